"""Which CUDA binding is used: the first that works, in a process where stand-ins of the packages come first on the path."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rehearsal import driver

from ampnet_opt.runtime.cuda.stream import RecordingGuard

# What cuda-bindings 12.8.0 does without a driver: it imports, and each call raises.
BROKEN = """
def __getattr__(name):
    def call(*arguments):
        raise RuntimeError("Failed to dlopen libcuda.so.1")
    return call
"""
PYCUDA = """
class Error(Exception):
    pass

class device_attribute:
    INTEGRATED = "integrated"

class Device:
    def __init__(self, number):
        pass
    @staticmethod
    def count():
        return 1
    def name(self):
        return "Orin"
    def compute_capability(self):
        return (8, 7)
    def get_attribute(self, kind):
        return kind == "integrated"

def init():
    pass
"""
UNINSTALLED = "raise ImportError('No module named that')\n"
REPORT = """
import logging, sys
logging.basicConfig(format="%(message)s", stream=sys.stdout)
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.runtime import cuda
try:
    print(cuda.gpu(), cuda.binding().queue.binding)
except AmpnetError as error:
    print(error)
"""


def said(folder: Path, bindings: str, pycuda: str, script: str = REPORT, libraries: Path | None = None) -> str:
    files = {"cuda/bindings/runtime.py": bindings, "cuda/bindings/driver.py": bindings, "pycuda/driver.py": pycuda}
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for package in {path.parent, folder / path.parts[len(folder.parts)]}:
            (package / "__init__.py").touch()
        path.write_text(text)
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{script}"
    variables = {} if libraries is None else {"LD_LIBRARY_PATH": str(libraries)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **variables}
    )
    return done.stdout


def test_pycuda_is_taken_where_cuda_python_imports_but_does_not_work(tmp_path: Path) -> None:
    warning, found = said(tmp_path, BROKEN, PYCUDA).splitlines()
    assert warning == "PyCUDA is used: cuda-python does not work here (CUDA failed: Failed to dlopen libcuda.so.1)"
    assert found == "Gpu(name='Orin', compute_capability='8.7', integrated=True) PyCUDA"


def test_pycuda_alone_needs_no_warning(tmp_path: Path) -> None:
    assert said(tmp_path, UNINSTALLED, PYCUDA) == ("Gpu(name='Orin', compute_capability='8.7', integrated=True) PyCUDA\n")


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (BROKEN, "CUDA failed: Failed to dlopen libcuda.so.1"),
        (UNINSTALLED, "needs cuda-python or PyCUDA (No module named that)"),
    ],
)
def test_where_none_works_the_reason_is_one_sentence(tmp_path: Path, bindings: str, message: str) -> None:
    (line,) = said(tmp_path, bindings, UNINSTALLED).splitlines()
    assert line.startswith("no CUDA GPU can be used here: ") and message in line


# What newer bindings give on every call with too old a driver.
OUTDATED = """
class cudaError_t:
    cudaSuccess, cudaErrorInsufficientDriver = 0, 35
class cudaDeviceAttr:
    cudaDevAttrIntegrated = 18
def cudaGetDeviceCount():
    return 35, None
"""


def test_a_binding_that_is_newer_than_the_driver_names_the_one_that_fits(tmp_path: Path) -> None:
    (line,) = said(tmp_path, OUTDATED, UNINSTALLED, libraries=driver()).splitlines()
    assert "CUDA failed: cuda-bindings is newer than the driver: the driver's CUDA is 12.8, for which: " in line
    assert line.endswith("pip install 'cuda-bindings==12.8.*'")


def test_where_no_binding_is_installed_the_one_of_the_driver_is_named(tmp_path: Path) -> None:
    (line,) = said(tmp_path, UNINSTALLED, UNINSTALLED, libraries=driver()).splitlines()
    assert "(No module named that); the driver's CUDA is 12.8, for which: " in line


def test_without_a_driver_the_reason_is_that(tmp_path: Path) -> None:
    assert said(tmp_path, OUTDATED, UNINSTALLED).endswith(": CUDA failed: there is no NVIDIA driver here\n")


def test_doctor_reports_a_binding_that_raises(tmp_path: Path) -> None:
    script = "from ampnet_opt.system.doctor import examine\nprint(examine()['gpu']['problem'])\n"
    (line,) = said(tmp_path, BROKEN, UNINSTALLED, script).splitlines()
    assert line == "no CUDA GPU can be used here: CUDA failed: Failed to dlopen libcuda.so.1"


# Enough of cuda-bindings for a queue: every call succeeds and is noted.
WORKING = """
calls = []
class cudaError_t:
    cudaSuccess, cudaErrorInsufficientDriver = 0, 35
class Names:
    def __getattr__(self, name):
        return name
cudaStreamCaptureMode = cudaDeviceAttr = cudaMemcpyKind = Names()
class Properties:
    name = "GPU"
def cudaGetDeviceProperties(number):
    return 0, Properties
def __getattr__(name):
    if not name.startswith("cu"):
        raise AttributeError(name)
    def call(*arguments):
        calls.append(name)
        return 0, 1
    return call
"""
RECORDING = """
import threading
from cuda.bindings import runtime
from ampnet_opt.runtime import cuda
first, second = cuda.open_queue(), cuda.open_queue()
begun = threading.Event()
def waits():
    begun.set()
    second.wait_for_all()
    second.close()
other = threading.Thread(target=waits)
def work():
    other.start()
    begun.wait()
    other.join(0.3)
    runtime.calls.append("recorded")
first.record(work)
other.join()
print(*(name for name in runtime.calls if name in {"recorded", "cudaStreamEndCapture", "cudaDeviceSynchronize"}))
"""


def test_a_graph_is_recorded_while_nothing_waits_for_the_whole_gpu_and_a_wait_lets_it_end() -> None:
    guard, order = RecordingGuard(), []

    def wait(name: str) -> None:
        with guard.waiting():
            order.append(name)

    with guard.waiting(), guard.waiting(), guard.recording() as able:
        assert not able
    with ThreadPoolExecutor(2) as threads:
        with guard.recording() as able, guard.recording() as another:
            assert able and not another
            waits = [threads.submit(wait, "wait") for _ in range(2)]
            time.sleep(0.1)
            order.append("recorded")
        for one in waits:
            one.result(timeout=10)
    assert order == ["recorded", "wait", "wait"]
    with pytest.raises(KeyboardInterrupt), guard.recording():
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), guard.waiting():
        raise KeyboardInterrupt
    with guard.recording() as able:
        assert able


def test_no_thread_waits_for_the_whole_gpu_while_a_graph_is_recorded(tmp_path: Path) -> None:
    assert said(tmp_path, WORKING, UNINSTALLED, RECORDING).split() == [
        "recorded",
        "cudaStreamEndCapture",
        "cudaDeviceSynchronize",
    ]
