"""The stand-in CUDA driver of tests/support/stand_in reports each fault that it is to see, and none where all is well."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rehearsal import STAND_IN, driver

# Case of break_rules.py -> the code that a call gave (of CUresult), and what was reported of it.
REPORTED = {
    "nothing_wrong": (0, None),
    "a_graph_runs_when_it_is_launched": (0, None),
    "another_thread_allocates_while_recording": (0, None),
    "freed_memory_is_used": (700, "use after free: work that is queued reads freed memory"),
    "a_graph_uses_freed_memory": (700, "use after free: work that is queued writes freed memory"),
    "memory_is_freed_that_queued_work_uses": (700, "freed while queued work uses it"),
    "memory_of_others_is_used": (700, "reads memory that CUDA did not allocate"),
    "a_copy_is_too_long": (700, "memory that CUDA did not allocate"),
    "a_source_is_overwritten": (0, "overwritten before queued work had read it"),
    "streams_race_to_read": (0, "race: work reads memory that work queued before on another stream has yet to write"),
    "streams_race_to_write": (0, "race: work writes memory that work queued before on another stream has yet to use"),
    "work_fails": (719, "the work of a library failed"),
    "no_context_is_current": (201, "no context is current"),
    "another_context_is_current": (400, "the stream's context is not current"),
    "a_context_is_popped_too_often": (201, "popped where none is current"),
    "memory_is_freed_twice": (1, "freed twice"),
    "memory_is_freed_as_another_kind": (1, "cuMemFree of what was not allocated so"),
    "a_destroyed_stream_is_used": (400, "use after free: stream that was destroyed"),
    "a_destroyed_event_is_used": (400, "use after free: event that was destroyed"),
    "memory_is_allocated_while_recording": (901, "cuMemAlloc while a graph is recorded"),
    "another_thread_allocates_while_all_are_recorded": (901, "cuMemAlloc while a graph is recorded"),
    "another_thread_waits_for_the_gpu_while_recording": (901, "cuCtxSynchronize while a graph is recorded"),
    "a_recorded_stream_is_waited_for": (901, "cuStreamSynchronize of a stream that is recorded"),
    "a_recorded_stream_waits_for_another": (901, "waits for an event of outside"),
    "a_recorded_event_is_waited_for": (907, "an event that was recorded into a graph is waited for"),
    "a_recording_is_ended_in_another_thread": (908, "ended in another thread"),
    "a_recording_is_ended_that_was_not_begun": (401, "was not begun"),
    "the_default_stream_is_used_while_a_stream_that_waits_for_it_is_recorded": (901, "the default stream is used"),
}


def run(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    variables = {"LD_LIBRARY_PATH": str(driver()), "STAND_IN_CUDA_FAULTS": str(folder / "faults")}
    arguments = [sys.executable, *map(str, command)]
    return subprocess.run(arguments, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = run(tmp_path_factory.mktemp("rules"), STAND_IN / "break_rules.py")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found.keys() == REPORTED.keys()
    return found


@pytest.mark.parametrize("case", REPORTED)
def test_each_broken_rule_is_reported(broken: dict[str, Any], case: str) -> None:
    code, words = REPORTED[case]
    given, faults = broken[case]
    assert given == code, faults
    if words is None:
        assert not faults
    else:
        assert any(words in fault for fault in faults), faults


def test_every_fault_of_the_source_is_shown_by_a_case() -> None:
    """Beside those of arguments that no call of ours can give."""
    source = (STAND_IN / "cuda_driver.c").read_text(encoding="utf-8")
    codes = set(re.findall(r"fault\(([A-Z_]+),", source))
    shown = {code for code, words in REPORTED.values() if words}
    numbers = {name: int(number) for name, number in re.findall(r"([A-Z_]+) = (\d+)", source)}
    capture = {numbers["CAPTURE_UNSUPPORTED"], numbers["CAPTURE_ISOLATION"], numbers["CAPTURE_IMPLICIT"]}  # then 901
    elsewhere = {numbers["CONTEXT_IS_DESTROYED"], numbers["NOT_INITIALIZED"], numbers["OUT_OF_MEMORY"]}
    assert {numbers[code] for code in codes} <= shown | capture | elsewhere


LEAKS = """
import ctypes
driver, found = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
print(driver.cuMemAlloc_v2(ctypes.byref(found), ctypes.c_size_t(8)))
driver.cuInit(0)
driver.cuDevicePrimaryCtxRetain(ctypes.byref(found), 0)
driver.cuCtxPushCurrent_v2(found)
driver.cuMemAlloc_v2(ctypes.byref(found), ctypes.c_size_t(8))
driver.cuMemHostAlloc(ctypes.byref(found), ctypes.c_size_t(8), 0)
driver.cuStreamCreate(ctypes.byref(found), 0)
driver.cuEventCreate(ctypes.byref(found), 0)
driver.cuDevicePrimaryCtxRelease_v2(0)
print(driver.cuEventCreate(ctypes.byref(found), 0))
"""


def test_leaks_are_reported_at_the_end_and_a_context_that_is_gone_at_once(tmp_path: Path) -> None:
    assert run(tmp_path, "-c", LEAKS).stdout.split() == ["3", "709"]
    faults = (tmp_path / "faults").read_text().splitlines()
    assert faults[:2] == ["cuMemAlloc before cuInit (3)", "cuEventCreate: the current context was destroyed (709)"]
    assert sorted(faults[2:]) == [
        "leak: 8 bytes of device memory (2)",
        "leak: 8 bytes of host memory (2)",
        "leak: event (2)",
        "leak: stream (2)",
    ]


TOUCHES = """
import ctypes, sys
driver, context, place = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), ctypes.c_void_p()
driver.cuInit(0)
driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
driver.cuCtxPushCurrent_v2(context)
if sys.argv[1] == "device":
    driver.cuMemAlloc_v2(ctypes.byref(place), ctypes.c_size_t(8))
else:
    driver.cuMemHostAlloc(ctypes.byref(place), ctypes.c_size_t(8), 0)
    driver.cuMemFreeHost(place)
ctypes.string_at(place, 1)
"""


@pytest.mark.parametrize("memory", ["device", "freed"])
def test_the_host_cannot_touch_device_memory_nor_freed_memory(tmp_path: Path, memory: str) -> None:
    assert run(tmp_path, "-c", TOUCHES, memory).returncode == -signal.SIGSEGV
