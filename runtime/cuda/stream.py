"""What both CUDA bindings give: the GPUs, and a stream with the buffers used on it."""

from __future__ import annotations

import contextlib
import re
import threading
from dataclasses import dataclass
from typing import Any, Callable, ContextManager, Iterator, List, Optional, Tuple

import numpy as np

DEVICE = 0  # CUDA_VISIBLE_DEVICES chooses another


class RecordingGuard:
    """Keeps the recording of CUDA graphs apart from what waits for the whole GPU, as allocating and freeing may: such a wait
    of another thread spoils a recording (TensorRT's issue 2888).

    A wait lets a recording end first, which takes milliseconds. A recording does not wait, as a build, which is one long
    wait, takes minutes.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waits = 0
        self._recording = False

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """For what may wait for the whole GPU; any number of threads at a time."""
        counted = False
        try:
            with self._changed:
                self._changed.wait_for(lambda: not self._recording)
                counted = True
                self._waits += 1
            yield
        finally:
            if counted:
                with self._changed:
                    self._waits -= 1

    @contextlib.contextmanager
    def recording(self) -> Iterator[bool]:
        """Gives whether a graph can be recorded now: while nothing waits for the whole GPU, and no other is recorded."""
        able = False
        try:
            with self._changed:
                if not (self._waits or self._recording):
                    able = self._recording = True
            yield able
        finally:
            if able:
                with self._changed:
                    self._recording = False
                    self._changed.notify_all()


RECORDING = RecordingGuard()


@dataclass(frozen=True)
class Gpu:
    """name: in NVIDIA's words. compute_capability: "8.7", say. integrated: shares the processor's memory, as on a Jetson."""

    name: str
    compute_capability: str
    integrated: bool = False

    @property
    def slug(self) -> str:
        """For names of files: "nvidia-geforce-rtx-4090-8.9", say."""
        return f"{re.sub(r'[^a-z0-9]+', '-', self.name.lower()).strip('-')}-{self.compute_capability}"


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

    def record(self, work: Callable[[], None]) -> Optional[Any]:
        """What `work` puts on the stream, not run but kept as a CUDA graph for `launch`.

        None while another thread does what would spoil it (`RecordingGuard`): `work` was not called then.
        """
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
