"""The few CUDA calls that an engine needs, on the first GPU: by cuda-python where it is installed, else by PyCUDA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, ContextManager, List, Tuple, Type

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.installing import install_command

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
    can_record = False  # whether `record` is there: PyCUDA has no binding of CUDA graphs

    def current(self) -> ContextManager[None]:
        """Makes the GPU's primary context the calling thread's."""
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


def _implementation() -> Type[Queue]:
    """cuda-python first: it can record CUDA graphs."""
    try:
        import cuda.bindings.runtime  # noqa: F401
    except ImportError as error:
        missing = error
    else:
        from ampnet_opt.runtime.cuda.cuda_python import CudaPythonQueue

        return CudaPythonQueue
    try:
        import pycuda.driver  # noqa: F401
    except ImportError:
        raise AmpnetError(
            f"reaching the GPU needs cuda-python or PyCUDA ({missing}); install one with: pip install "
            f"'cuda-bindings>=12.6', or on a Jetson: {install_command('jetson')}"
        ) from missing
    from ampnet_opt.runtime.cuda.pycuda import PyCudaQueue

    return PyCudaQueue


def gpu() -> Gpu:
    """The GPU that engines are built for and run on, or AmpnetError when there is none."""
    try:
        found = _implementation().gpus()
    except AmpnetError as error:
        raise AmpnetError(f"no CUDA GPU can be used here: {error}") from error
    if not found:
        raise AmpnetError("no CUDA GPU can be used here: there is none, or CUDA_VISIBLE_DEVICES hides it")
    return found[DEVICE]


def open_queue() -> Queue:
    """A new stream on the GPU; see `Queue`."""
    return _implementation()()
