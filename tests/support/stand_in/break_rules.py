"""Breaks each rule of the stand-in driver once: prints {case: [code of the last call, the faults it reported]} as JSON."""

from __future__ import annotations

import ctypes
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

FAULTS = Path(os.environ["STAND_IN_CUDA_FAULTS"])
SIZE = 1 << 20
Call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
driver = ctypes.CDLL("libcuda.so.1")
driver.standInView.restype = ctypes.c_void_p
cases: dict[str, Callable[[], int]] = {}
succeed, fail = Call(lambda _: 0), Call(lambda _: 1)


class Region(ctypes.Structure):
    _fields_ = [("address", ctypes.c_size_t), ("size", ctypes.c_size_t), ("writes", ctypes.c_int)]


def case(work: Callable[[], int]) -> Callable[[], int]:
    cases[work.__name__] = work
    return work


def made(name: str, *arguments: Any) -> Any:
    """The handle or address that a call gives."""
    found = ctypes.c_void_p()
    assert getattr(driver, name)(ctypes.byref(found), *arguments) == 0
    return found


def stream() -> Any:
    return made("cuStreamCreate", 1)


def device() -> Any:
    return made("cuMemAlloc_v2", ctypes.c_size_t(SIZE))


def host() -> Any:
    return made("cuMemHostAlloc", ctypes.c_size_t(SIZE), 0)


def copy(target: Any, source: Any, on: Any, size: int = SIZE) -> int:
    return int(driver.cuMemcpyAsync(target, source, ctypes.c_size_t(size), on))


def call(on: Any, work: Any, memory: Any, writes: bool) -> int:
    region = Region(memory.value, SIZE, writes)
    return int(driver.standInCall(on, work, None, ctypes.byref(region), 1))


def recording(mode: int = 1) -> Any:
    on = stream()
    assert driver.cuStreamBeginCapture_v2(on, mode) == 0
    return on


def recorded(on: Any) -> int:
    return int(driver.cuStreamEndCapture(on, ctypes.byref(ctypes.c_void_p())))


def in_a_thread(work: Callable[[], int]) -> int:
    """In another thread, with this one's context."""
    context, results = made("cuCtxGetCurrent"), []

    def run() -> None:
        driver.cuCtxSetCurrent(context)
        results.append(work())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results[0]


@case
def nothing_wrong() -> int:
    first, second, source, there, event = stream(), stream(), host(), device(), made("cuEventCreate", 0)
    ctypes.memset(source, 7, SIZE)
    copy(there, source, first)
    at = driver.standInView(there, ctypes.c_size_t(SIZE))
    assert ctypes.string_at(at, 2) == b"\xff\xff", "a copy ran before it had to"
    driver.cuEventRecord(event, first)
    driver.cuStreamWaitEvent(second, event, 0)
    back = host()
    copy(back, there, second)
    result = driver.cuStreamSynchronize(second)
    assert ctypes.string_at(back, SIZE) == b"\7" * SIZE
    return int(result)


@case
def a_graph_runs_when_it_is_launched() -> int:
    source, target, on = host(), host(), recording()
    ctypes.memset(source, 1, SIZE)
    copy(target, source, on)
    graph = ctypes.c_void_p()
    driver.cuStreamEndCapture(on, ctypes.byref(graph))
    executable = made("cuGraphInstantiateWithFlags", graph, ctypes.c_uint64(0))
    driver.cuStreamSynchronize(on)
    assert ctypes.string_at(target, 1) == b"\xff"
    for value in (2, 3):
        ctypes.memset(source, value, SIZE)
        driver.cuGraphLaunch(executable, on)
        assert driver.cuStreamSynchronize(on) == 0 and ctypes.string_at(target, SIZE) == bytes([value]) * SIZE
    return 0


@case
def freed_memory_is_used() -> int:
    on, source, target = stream(), device(), device()
    driver.cuMemFree_v2(source)
    return copy(target, source, on)


@case
def a_graph_uses_freed_memory() -> int:
    source, target, on = device(), device(), recording()
    copy(target, source, on)
    graph = ctypes.c_void_p()
    driver.cuStreamEndCapture(on, ctypes.byref(graph))
    executable = made("cuGraphInstantiateWithFlags", graph, ctypes.c_uint64(0))
    driver.cuMemFree_v2(target)
    return int(driver.cuGraphLaunch(executable, on))


@case
def memory_is_freed_that_queued_work_uses() -> int:
    on, source, target = stream(), host(), device()
    copy(target, source, on)
    driver.cuMemFreeHost(source)
    return int(driver.cuStreamSynchronize(on))


@case
def memory_of_others_is_used() -> int:
    return copy(device(), ctypes.create_string_buffer(SIZE), stream())


@case
def a_copy_is_too_long() -> int:
    return copy(device(), device(), stream(), SIZE + 1)


@case
def a_source_is_overwritten() -> int:
    on, source = stream(), host()
    ctypes.memset(source, 1, SIZE)
    copy(device(), source, on)
    ctypes.memset(source, 2, 1)
    return int(driver.cuStreamSynchronize(on))


@case
def streams_race_to_read() -> int:
    writer, reader, there = stream(), stream(), device()
    call(writer, succeed, there, True)
    copy(device(), there, reader)
    return int(driver.cuStreamSynchronize(reader))


@case
def streams_race_to_write() -> int:
    reader, writer, there = stream(), stream(), device()
    copy(device(), there, reader)
    call(writer, succeed, there, True)
    return int(driver.cuStreamSynchronize(writer))


@case
def work_fails() -> int:
    on = stream()
    call(on, fail, device(), True)
    assert driver.cuStreamSynchronize(on) == 719
    return int(driver.cuMemAlloc_v2(ctypes.byref(ctypes.c_void_p()), ctypes.c_size_t(8)))  # nothing works from then on


@case
def no_context_is_current() -> int:
    context = made("cuCtxPopCurrent_v2")
    result = driver.cuStreamCreate(ctypes.byref(ctypes.c_void_p()), 1)
    driver.cuCtxPushCurrent_v2(context)
    return int(result)


@case
def another_context_is_current() -> int:
    on, there = stream(), device()
    made("cuCtxCreate_v2", 0, 0)
    result = copy(there, there, on)
    driver.cuCtxPopCurrent_v2(None)
    return result


@case
def a_context_is_popped_too_often() -> int:
    return in_a_thread(lambda: driver.cuCtxPopCurrent_v2(None) or driver.cuCtxPopCurrent_v2(None))


@case
def memory_is_freed_twice() -> int:
    there = device()
    driver.cuMemFree_v2(there)
    return int(driver.cuMemFree_v2(there))


@case
def memory_is_freed_as_another_kind() -> int:
    return int(driver.cuMemFree_v2(host()))


@case
def a_destroyed_stream_is_used() -> int:
    on = stream()
    driver.cuStreamDestroy_v2(on)
    return int(driver.cuStreamSynchronize(on))


@case
def a_destroyed_event_is_used() -> int:
    event = made("cuEventCreate", 0)
    driver.cuEventDestroy_v2(event)
    return int(driver.cuEventRecord(event, stream()))


@case
def memory_is_allocated_while_recording() -> int:
    on = recording()
    driver.cuMemAlloc_v2(ctypes.byref(ctypes.c_void_p()), ctypes.c_size_t(8))
    return recorded(on)


@case
def another_thread_allocates_while_recording() -> int:
    """Which is allowed where the recording is of one thread."""
    there, on = device(), recording()
    in_a_thread(lambda: int(driver.cuMemFree_v2(there)))
    return recorded(on)


@case
def another_thread_allocates_while_all_are_recorded() -> int:
    on = recording(mode=0)
    in_a_thread(lambda: int(driver.cuMemAlloc_v2(ctypes.byref(ctypes.c_void_p()), ctypes.c_size_t(8))))
    return recorded(on)


@case
def another_thread_waits_for_the_gpu_while_recording() -> int:
    on = recording()
    in_a_thread(lambda: int(driver.cuCtxSynchronize()))
    return recorded(on)


@case
def a_recorded_stream_is_waited_for() -> int:
    on = recording()
    driver.cuStreamSynchronize(on)
    return recorded(on)


@case
def a_recorded_stream_waits_for_another() -> int:
    other, event, on = stream(), made("cuEventCreate", 0), recording()
    driver.cuEventRecord(event, other)
    driver.cuStreamWaitEvent(on, event, 0)
    return recorded(on)


@case
def a_recorded_event_is_waited_for() -> int:
    event, on = made("cuEventCreate", 0), recording()
    driver.cuEventRecord(event, on)
    result = driver.cuEventSynchronize(event)
    recorded(on)
    return int(result)


@case
def a_recording_is_ended_in_another_thread() -> int:
    on = recording()
    result = in_a_thread(lambda: recorded(on))
    recorded(on)
    return result


@case
def a_recording_is_ended_that_was_not_begun() -> int:
    return recorded(stream())


@case
def the_default_stream_is_used_while_a_stream_that_waits_for_it_is_recorded() -> int:
    there, on = device(), made("cuStreamCreate", 0)
    driver.cuStreamBeginCapture_v2(on, 1)
    copy(there, there, None)
    return recorded(on)


def main() -> None:
    driver.cuInit(0)
    results: dict[str, Any] = {}
    for name, work in cases.items():
        made("cuCtxCreate_v2", 0, 0)  # a failed one stays failed
        code = work()
        driver.cuCtxPopCurrent_v2(None)
        results[name] = [code, FAULTS.read_text().splitlines() if FAULTS.exists() else []]
        FAULTS.unlink(missing_ok=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
