"""The few CUDA calls that an engine needs, on the first GPU: by cuda-python where it works, else by PyCUDA."""

from __future__ import annotations

import ctypes
import logging
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Callable, ContextManager, List, Optional, Tuple, Type

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.installing import cuda_binding_command
from ampnet_opt.core.text import one_line

log = logging.getLogger(__name__)

# Held while a CUDA graph is recorded, and by what waits for the whole GPU, as allocating and freeing may: a wait of another
# thread spoils the recording (TensorRT's issue 2888).
RECORDING = threading.Lock()
DEVICE = 0  # CUDA_VISIBLE_DEVICES chooses another


@dataclass(frozen=True)
class Gpu:
    """name: in NVIDIA's words. compute_capability: "8.7", say. integrated: shares the processor's memory, as on a Jetson."""

    name: str
    compute_capability: str
    integrated: bool = False


@dataclass(frozen=True)
class Buffer:
    """A tensor that both sides reach: `host`, a page-locked array, and `address`, where the GPU has it.

    shared: both are the same memory, as on an integrated GPU, and nothing is ever copied.
    """

    host: np.ndarray
    address: int
    shared: bool


class Queue:
    """One CUDA stream and the buffers used on it; `handle` is the stream's address.

    Every method but `current` must be called within `with queue.current():`, as must any other library's calls on this
    stream; that works in any thread, in one at a time. Every CUDA error is raised as an AmpnetError. The stream does not
    wait for the default stream, nor that for it.
    """

    handle: int
    binding: str  # the Python package
    blocking: bool  # whether `synchronize` sleeps until the GPU is done; else it asks it again and again, which is quicker
    can_record = False  # whether `record` is there: PyCUDA has no binding of CUDA graphs

    def current(self) -> ContextManager[None]:
        """Makes the GPU's primary context the calling thread's, and the one that was before again at the end."""
        raise NotImplementedError

    def buffer(self, shape: Tuple[int, ...], dtype: str) -> Buffer:
        """A new buffer for a tensor of this shape and numpy dtype; its contents are undefined."""
        raise NotImplementedError

    def upload(self, buffer: Buffer, count: int) -> None:
        """Queue a copy of the first `count` rows from host to device, unless the buffer is shared."""
        raise NotImplementedError

    def download(self, buffer: Buffer, count: int) -> None:
        """Queue a copy of the first `count` rows from device to host, unless the buffer is shared."""
        raise NotImplementedError

    def take(self, buffer: Buffer, count: int, address: int) -> None:
        """Queue a copy of `count` rows from another place in GPU memory to the buffer's."""
        raise NotImplementedError

    def wait_for(self, stream: int) -> None:
        """Let what is queued from now on begin after all that is on another library's `stream` so far."""
        raise NotImplementedError

    def wait_for_all(self) -> None:
        """Wait until the GPU has done all that was queued on any stream."""
        raise NotImplementedError

    def record(self, work: Callable[[], None]) -> Any:
        """What `work` puts on the stream, not run but kept as a CUDA graph for `launch`."""
        raise NotImplementedError

    def launch(self, graph: Any) -> None:
        """Queue a graph that `record` gave."""
        raise NotImplementedError

    def forget(self, graph: Any) -> None:
        """Free a graph that `record` gave."""
        raise NotImplementedError

    def timed(self, work: Callable[[], None]) -> float:
        """Seconds that the GPU takes for what `work` queues, by CUDA events; waits for it."""
        raise NotImplementedError

    def synchronize(self) -> None:
        """Wait until all that was queued is done."""
        raise NotImplementedError

    def close(self) -> None:
        """Free the stream and its buffers, whose host arrays must not be touched afterwards."""
        raise NotImplementedError

    @staticmethod
    def gpus() -> List[Gpu]:
        """The GPUs of this machine; needs no `current`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Binding:
    """The CUDA binding that works here. gpus: what it sees. passed_over: why not cuda-python, which comes first, or ""."""

    queue: Type[Queue]
    gpus: List[Gpu]
    passed_over: str = ""


@lru_cache(maxsize=None)  # of one that has worked; errors are not kept
def binding() -> Binding:
    """cuda-python first, which can record CUDA graphs; PyCUDA where that does not work, with a warning that says why.

    A package that imports may still fail at the first call, without a driver or with one that is too old. Raises
    AmpnetError, for the first that is installed, where none works.
    """
    problems: List[str] = []
    missing: List[str] = []
    for load in (_cuda_python, _pycuda):
        try:
            queue = load()
            found = Binding(queue, queue.gpus(), problems[0] if problems else "")
        except ImportError as error:
            missing.append(str(error))
        except AmpnetError as error:
            problems.append(str(error))
        except Exception as error:  # cuda-bindings 12.8.0 raises a RuntimeError where there is no driver
            problems.append(f"CUDA failed: {one_line(str(error))}")
        else:
            if found.passed_over:
                log.warning("%s is used: cuda-python does not work here (%s)", queue.binding, found.passed_over)
            return found
    if problems:
        raise AmpnetError(problems[0])
    raise AmpnetError(f"reaching the GPU needs cuda-python or PyCUDA ({missing[0]}); {binding_advice()}")


def binding_advice() -> str:
    """Which binding this machine's driver takes, as a part of a sentence."""
    cuda = driver_cuda()
    if cuda is None:
        return "there is no NVIDIA driver here"
    return f"the driver's CUDA is {cuda[0]}.{cuda[1]}, for which: {cuda_binding_command(cuda)}"


def driver_cuda() -> Optional[Tuple[int, int]]:
    """The newest CUDA that the installed driver knows, (12, 6) say, asked without a binding; None without a driver."""
    version = ctypes.c_int()
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return None if failed else (version.value // 1000, version.value % 1000 // 10)


def _cuda_python() -> Type[Queue]:
    from ampnet_opt.runtime.cuda.cuda_python import CudaPythonQueue

    return CudaPythonQueue


def _pycuda() -> Type[Queue]:
    import pycuda.driver  # noqa: F401

    from ampnet_opt.runtime.cuda.pycuda import PyCudaQueue

    return PyCudaQueue


def gpu() -> Gpu:
    """The GPU that engines are built for and run on, or AmpnetError when there is none."""
    try:
        found = binding().gpus
    except AmpnetError as error:
        raise AmpnetError(f"no CUDA GPU can be used here: {error}") from error
    if not found:
        raise AmpnetError("no CUDA GPU can be used here: there is none, or CUDA_VISIBLE_DEVICES hides it")
    return found[DEVICE]


def open_queue(blocking: bool = False) -> Queue:
    """A new stream on the GPU; see `Queue`."""
    queue = binding().queue()
    queue.blocking = blocking
    return queue
