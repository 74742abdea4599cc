"""CUDA by cuda-python's binding of CUDA's runtime library, which uses the primary context by itself."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Any, Callable, Iterator, List, Optional, Tuple

import numpy as np
from cuda.bindings import driver, runtime

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.runtime.cuda.driver import binding_advice, driver_cuda
from ampnet_opt.runtime.cuda.stream import DEVICE, RECORDING, Buffer, Gpu, Queue

_IMPORTED_BY = os.getpid()


class CudaPythonQueue(Queue):
    """See `Queue`."""

    binding, can_record = "cuda-python", True

    def __init__(self) -> None:
        self._memory: List[Tuple[Any, int]] = []  # (what frees it, its address)
        self._stream: Any = None
        self._integrated = _integrated(DEVICE)
        with self.current():
            self._stream = checked(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
            self.handle = int(self._stream)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        _, before = driver.cuCtxGetCurrent()  # None before anything has called CUDA
        checked(runtime.cudaSetDevice(DEVICE))
        try:
            yield
        finally:
            if before is not None and int(before):  # the caller's, which need not be the primary one: PyCUDA makes its own
                driver.cuCtxSetCurrent(before)

    def buffer(self, shape: Tuple[int, ...], dtype: str) -> Buffer:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        flags = runtime.cudaHostAllocMapped if self._integrated else runtime.cudaHostAllocDefault
        with RECORDING.waiting():
            pinned = checked(runtime.cudaHostAlloc(size, flags))
        self._memory.append((runtime.cudaFreeHost, pinned))
        view: Any = (ctypes.c_uint8 * size).from_address(pinned)
        host = np.frombuffer(view, dtype).reshape(shape)
        if self._integrated:
            return Buffer(host, checked(runtime.cudaHostGetDevicePointer(pinned, 0)), shared=True)
        with RECORDING.waiting():
            address = checked(runtime.cudaMalloc(size))
        self._memory.append((runtime.cudaFree, address))
        return Buffer(host, address, shared=False)

    def upload(self, buffer: Buffer, count: int) -> None:
        if not buffer.shared:
            self._copy(buffer.address, buffer.host[:count].ctypes.data, buffer.host[:count].nbytes)

    def download(self, buffer: Buffer, count: int) -> None:
        if not buffer.shared:
            self._copy(buffer.host[:count].ctypes.data, buffer.address, buffer.host[:count].nbytes)

    def take(self, buffer: Buffer, count: int, address: int) -> None:
        self._copy(buffer.address, address, buffer.host[:count].nbytes)

    def _copy(self, target: int, source: int, size: int) -> None:
        # cudaMemcpyDefault: CUDA knows its own page-locked and device addresses.
        checked(runtime.cudaMemcpyAsync(target, source, size, runtime.cudaMemcpyKind.cudaMemcpyDefault, self._stream))

    def wait_for(self, stream: int) -> None:
        event = checked(runtime.cudaEventCreate())
        try:
            checked(runtime.cudaEventRecord(event, runtime.cudaStream_t(stream)))
            checked(runtime.cudaStreamWaitEvent(self._stream, event, 0))
        finally:
            checked(runtime.cudaEventDestroy(event))  # CUDA frees it once it is no longer waited for

    def wait_for_all(self) -> None:
        with RECORDING.waiting():
            checked(runtime.cudaDeviceSynchronize())

    def record(self, work: Callable[[], None]) -> Optional[Any]:
        # Other threads may go on calling CUDA meanwhile, but for what RECORDING keeps out.
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        with RECORDING.recording() as able:
            if not able:
                return None
            try:
                checked(runtime.cudaStreamBeginCapture(self._stream, mode))
                work()
            except BaseException:
                runtime.cudaStreamEndCapture(self._stream)
                raise
            graph = checked(runtime.cudaStreamEndCapture(self._stream))
        try:
            return checked(runtime.cudaGraphInstantiateWithFlags(graph, 0))
        finally:
            checked(runtime.cudaGraphDestroy(graph))

    def launch(self, graph: Any) -> None:
        checked(runtime.cudaGraphLaunch(graph, self._stream))

    def forget(self, graph: Any) -> None:
        checked(runtime.cudaGraphExecDestroy(graph))

    def timed(self, work: Callable[[], None]) -> float:
        events = [checked(runtime.cudaEventCreate()) for _ in range(2)]
        try:
            checked(runtime.cudaEventRecord(events[0], self._stream))
            work()
            checked(runtime.cudaEventRecord(events[1], self._stream))
            checked(runtime.cudaEventSynchronize(events[1]))
            return float(checked(runtime.cudaEventElapsedTime(*events))) / 1000
        finally:
            for event in events:
                checked(runtime.cudaEventDestroy(event))

    def synchronize(self) -> None:
        if not self.blocking:
            checked(runtime.cudaStreamSynchronize(self._stream))
            return
        event = checked(runtime.cudaEventCreateWithFlags(runtime.cudaEventBlockingSync | runtime.cudaEventDisableTiming))
        try:
            checked(runtime.cudaEventRecord(event, self._stream))
            checked(runtime.cudaEventSynchronize(event))
        finally:
            checked(runtime.cudaEventDestroy(event))

    def close(self) -> None:
        while self._memory:
            free, address = self._memory.pop()
            with RECORDING.waiting():
                checked(free(address))
        if self._stream is not None:
            stream, self._stream = self._stream, None
            checked(runtime.cudaStreamDestroy(stream))

    @staticmethod
    def gpus() -> List[Gpu]:
        found = []
        for i in range(checked(runtime.cudaGetDeviceCount())):
            major = _attribute(runtime.cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor, i)
            minor = _attribute(runtime.cudaDeviceAttr.cudaDevAttrComputeCapabilityMinor, i)
            name = checked(runtime.cudaGetDeviceProperties(i)).name
            name = name.decode() if isinstance(name, bytes) else name
            found.append(Gpu(name, f"{major}.{minor}", _integrated(i)))
        return found


def _attribute(kind: Any, device: int) -> int:
    return int(checked(runtime.cudaDeviceGetAttribute(kind, device)))


def _integrated(device: int) -> bool:
    return bool(_attribute(runtime.cudaDeviceAttr.cudaDevAttrIntegrated, device))


def checked(result: Tuple[Any, ...]) -> Any:
    """The value of a call, (status, value) or (status,); AmpnetError when the status is not success."""
    status = result[0]
    if status == runtime.cudaError_t.cudaSuccess:
        return result[1] if len(result) > 1 else None
    if status == runtime.cudaError_t.cudaErrorInsufficientDriver:
        reason = "" if driver_cuda() is None else "cuda-bindings is newer than the driver: "
        raise AmpnetError(f"CUDA failed: {reason}{binding_advice()}")
    if status == runtime.cudaError_t.cudaErrorInitializationError and os.getpid() != _IMPORTED_BY:
        raise AmpnetError(
            "CUDA failed: it was used before this process was forked, and works in the parent alone: start processes with "
            "multiprocessing's spawn method"
        )
    reason = runtime.cudaGetErrorString(status)[1].decode()
    raise AmpnetError(f"CUDA failed: {reason} ({status.name})")
