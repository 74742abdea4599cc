"""CUDA by PyCUDA, whose objects belong to the context that was current when they were made: here the primary one."""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import Any, Callable, Iterator, List, Tuple

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.lifetime import end_after_engines
from ampnet_opt.runtime.cuda import DEVICE, Buffer, Gpu, Queue

NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, which PyCUDA has no name for


class PyCudaQueue(Queue):
    """See `Queue`; without `record`."""

    binding = "PyCUDA"

    def __init__(self) -> None:
        self._driver = _driver()
        self._memory: List[Any] = []
        self._integrated = _integrated(self._driver.Device(DEVICE))
        with self.current():
            self._stream: Any = self._driver.Stream(NON_BLOCKING)
            self.handle = self._stream.handle

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        with _errors():
            context = _primary_context()
            context.push()
        try:
            with _errors():
                yield
        finally:
            context.pop()

    def buffer(self, shape: Tuple[int, ...], dtype: str) -> Buffer:
        flags = self._driver.host_alloc_flags.DEVICEMAP if self._integrated else 0
        host = self._driver.pagelocked_empty(shape, dtype, mem_flags=flags)
        self._memory.append(host.base)  # the allocation that the array is a view of
        if self._integrated:
            return Buffer(host, int(host.base.get_device_pointer()), shared=True)
        device = self._driver.mem_alloc(host.nbytes)
        self._memory.append(device)
        return Buffer(host, int(device), shared=False)

    def upload(self, buffer: Buffer, count: int) -> None:
        if not buffer.shared:
            self._driver.memcpy_htod_async(buffer.address, buffer.host[:count], self._stream)

    def download(self, buffer: Buffer, count: int) -> None:
        if not buffer.shared:
            self._driver.memcpy_dtoh_async(buffer.host[:count], buffer.address, self._stream)

    def take(self, buffer: Buffer, count: int, address: int) -> None:
        self._driver.memcpy_dtod_async(buffer.address, address, buffer.host[:count].nbytes, self._stream)

    def wait_for(self, stream: int) -> None:
        self.wait_for_all()  # PyCUDA takes no stream that it did not make

    def wait_for_all(self) -> None:
        self._driver.Context.synchronize()

    def timed(self, work: Callable[[], None]) -> float:
        start, end = self._driver.Event(), self._driver.Event()
        start.record(self._stream)
        work()
        end.record(self._stream)
        end.synchronize()
        return float(start.time_till(end)) / 1000

    def synchronize(self) -> None:
        if not self.blocking:
            self._stream.synchronize()
            return
        flags = self._driver.event_flags
        self._driver.Event(flags.BLOCKING_SYNC | flags.DISABLE_TIMING).record(self._stream).synchronize()

    def close(self) -> None:
        while self._memory:
            self._memory.pop().free()
        self._stream = None

    @staticmethod
    def gpus() -> List[Gpu]:
        with _errors():
            device = _driver().Device
            found = [device(i) for i in range(device.count())]
            return [Gpu(gpu.name(), "{}.{}".format(*gpu.compute_capability()), _integrated(gpu)) for gpu in found]


@lru_cache(maxsize=None)
def _driver() -> Any:
    import pycuda.driver

    with _errors():
        pycuda.driver.init()
    return pycuda.driver


def _integrated(device: Any) -> bool:
    return bool(device.get_attribute(_driver().device_attribute.INTEGRATED))


@lru_cache(maxsize=None)
def _primary_context() -> Any:
    """The context that TensorRT, through CUDA's runtime library, uses too; held until the process has freed its engines."""
    context = _driver().Device(DEVICE).retain_primary_context()
    # Left to its destructor, PyCUDA would release it as if it had been made by make_context, and print a warning.
    end_after_engines(context.detach)
    return context


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    import pycuda.driver

    try:
        yield
    except pycuda.driver.Error as error:
        raise AmpnetError(f"CUDA failed: {error}") from error
