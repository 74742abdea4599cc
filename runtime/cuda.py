"""The few CUDA calls that an engine needs, on the first GPU: by PyCUDA where it is installed, else by cuda-python."""

from __future__ import annotations

import contextlib
import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ContextManager, Iterator, List, Tuple, Type

import numpy as np

from ampnet_opt.errors import AmpnetError

DEVICE = 0  # CUDA_VISIBLE_DEVICES chooses another


@dataclass(frozen=True)
class Gpu:
    """name: in NVIDIA's words. compute_capability: "8.7", say."""

    name: str
    compute_capability: str


@dataclass(frozen=True)
class Buffer:
    """The same tensor twice: `host`, a page-locked array, and `address`, that of as many bytes of device memory."""

    host: np.ndarray
    address: int


class Queue:
    """One CUDA stream and the buffers used on it; `handle` is the stream's address.

    Every method but `current` must be called within `with queue.current():`, as must any other library's calls on this
    stream; that works in any thread, in one at a time. Every CUDA error is raised as an AmpnetError.
    """

    handle: int

    def current(self) -> ContextManager[None]:
        """Makes the GPU's primary context the calling thread's."""
        raise NotImplementedError

    def buffer(self, shape: Tuple[int, ...], dtype: str) -> Buffer:
        """A new buffer for a tensor of this shape and numpy dtype; its contents are undefined."""
        raise NotImplementedError

    def upload(self, buffer: Buffer, count: int) -> None:
        """Queue a copy of the first `count` rows from host to device."""
        raise NotImplementedError

    def download(self, buffer: Buffer, count: int) -> None:
        """Queue a copy of the first `count` rows from device to host."""
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


class PyCudaQueue(Queue):
    """By PyCUDA, whose objects belong to the context that was current when they were made: here the primary one."""

    def __init__(self) -> None:
        self._driver = _pycuda()
        self._memory: List[Any] = []
        with self.current():
            self._stream: Any = self._driver.Stream()
            self.handle = self._stream.handle

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        with _pycuda_errors():
            context = _primary_context()
            context.push()
        try:
            with _pycuda_errors():
                yield
        finally:
            context.pop()

    def buffer(self, shape: Tuple[int, ...], dtype: str) -> Buffer:
        host = self._driver.pagelocked_empty(shape, dtype)
        self._memory.append(host.base)  # the allocation that the array is a view of
        device = self._driver.mem_alloc(host.nbytes)
        self._memory.append(device)
        return Buffer(host, int(device))

    def upload(self, buffer: Buffer, count: int) -> None:
        self._driver.memcpy_htod_async(buffer.address, buffer.host[:count], self._stream)

    def download(self, buffer: Buffer, count: int) -> None:
        self._driver.memcpy_dtoh_async(buffer.host[:count], buffer.address, self._stream)

    def synchronize(self) -> None:
        self._stream.synchronize()

    def close(self) -> None:
        while self._memory:
            self._memory.pop().free()
        self._stream = None

    @staticmethod
    def gpus() -> List[Gpu]:
        with _pycuda_errors():
            device = _pycuda().Device
            found = [device(i) for i in range(device.count())]
            return [Gpu(gpu.name(), "{}.{}".format(*gpu.compute_capability())) for gpu in found]


@lru_cache(maxsize=None)
def _pycuda() -> Any:
    import pycuda.driver

    with _pycuda_errors():
        pycuda.driver.init()
    return pycuda.driver


@lru_cache(maxsize=None)
def _primary_context() -> Any:
    """The context that TensorRT, through CUDA's runtime library, uses too; held until the process ends."""
    import atexit

    context = _pycuda().Device(DEVICE).retain_primary_context()
    # Left to its destructor, PyCUDA would release it as if it had been made by make_context, and print a warning.
    atexit.register(context.detach)
    return context


@contextlib.contextmanager
def _pycuda_errors() -> Iterator[None]:
    import pycuda.driver

    try:
        yield
    except pycuda.driver.Error as error:
        raise AmpnetError(f"CUDA failed: {error}") from error


class CudaPythonQueue(Queue):
    """By cuda-python's binding of CUDA's runtime library, which uses the primary context by itself."""

    def __init__(self) -> None:
        self._runtime = _cuda_python()
        self._memory: List[Tuple[Any, int]] = []  # (what frees it, its address)
        self._stream: Any = None
        with self.current():
            self._stream = _checked(self._runtime.cudaStreamCreate())
            self.handle = int(self._stream)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        _checked(self._runtime.cudaSetDevice(DEVICE))
        yield

    def buffer(self, shape: Tuple[int, ...], dtype: str) -> Buffer:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        pinned = _checked(self._runtime.cudaMallocHost(size))
        self._memory.append((self._runtime.cudaFreeHost, pinned))
        address = _checked(self._runtime.cudaMalloc(size))
        self._memory.append((self._runtime.cudaFree, address))
        view: Any = (ctypes.c_uint8 * size).from_address(pinned)
        return Buffer(np.frombuffer(view, dtype).reshape(shape), address)

    def upload(self, buffer: Buffer, count: int) -> None:
        part = buffer.host[:count]
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        _checked(self._runtime.cudaMemcpyAsync(buffer.address, part.ctypes.data, part.nbytes, kind, self._stream))

    def download(self, buffer: Buffer, count: int) -> None:
        part = buffer.host[:count]
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _checked(self._runtime.cudaMemcpyAsync(part.ctypes.data, buffer.address, part.nbytes, kind, self._stream))

    def synchronize(self) -> None:
        _checked(self._runtime.cudaStreamSynchronize(self._stream))

    def close(self) -> None:
        while self._memory:
            free, address = self._memory.pop()
            _checked(free(address))
        if self._stream is not None:
            stream, self._stream = self._stream, None
            _checked(self._runtime.cudaStreamDestroy(stream))

    @staticmethod
    def gpus() -> List[Gpu]:
        runtime = _cuda_python()
        kinds = runtime.cudaDeviceAttr
        found = []
        for i in range(_checked(runtime.cudaGetDeviceCount())):
            major = _checked(runtime.cudaDeviceGetAttribute(kinds.cudaDevAttrComputeCapabilityMajor, i))
            minor = _checked(runtime.cudaDeviceGetAttribute(kinds.cudaDevAttrComputeCapabilityMinor, i))
            name = _checked(runtime.cudaGetDeviceProperties(i)).name
            found.append(Gpu(name.decode() if isinstance(name, bytes) else name, f"{major}.{minor}"))
        return found


def _cuda_python() -> Any:
    from cuda.bindings import runtime

    return runtime


def _checked(result: Tuple[Any, ...]) -> Any:
    """The value of a call, (status, value) or (status,); AmpnetError when the status is not success."""
    status = result[0]
    if int(status) != 0:
        runtime = _cuda_python()
        reason = runtime.cudaGetErrorString(status)[1].decode()
        raise AmpnetError(f"CUDA failed: {reason} ({status.name})")
    return result[1] if len(result) > 1 else None


def _implementation() -> Type[Queue]:
    try:
        import pycuda.driver  # noqa: F401
    except ImportError:
        pass
    else:
        return PyCudaQueue
    try:
        _cuda_python()
    except ImportError as error:
        raise AmpnetError(
            f"reaching the GPU needs cuda-python or PyCUDA ({error}); install one with: pip install 'cuda-bindings>=12.6', "
            "or on a Jetson: pip install 'ampnet-opt[jetson]'"
        ) from error
    return CudaPythonQueue


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
