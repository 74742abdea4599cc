"""Tensors that are on the GPU already, of any library with `__cuda_array_interface__`: CuPy, PyTorch, Numba, say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Optional, Sequence, Tuple

import numpy as np

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.runtime.cuda.stream import DEVICE, Queue

ALIGNMENT = 256  # bytes, of what cudaMalloc gives: kernels read several numbers at once


@dataclass(frozen=True)
class DeviceArray:
    """A C-contiguous tensor at `address` in GPU memory, ready once all that is on `stream` so far is done.

    stream: None: it is ready now, or `producer` tells; 1 and 2: CUDA's legacy and per-thread default streams; else a
    stream's address. owner: keeps the memory alive. producer: what has to be asked where the interface, before version 3,
    names no stream: its `__dlpack__` makes a stream wait for it.
    """

    address: int
    shape: Tuple[int, ...]
    dtype: np.dtype
    stream: Optional[int]
    owner: Any
    producer: Any = None

    @property
    def aligned(self) -> bool:
        """Whether TensorRT may read it where it is; a slice may begin anywhere."""
        return self.address % ALIGNMENT == 0

    def order(self, queue: Queue) -> None:
        """Let what is put on `queue` from now on begin after the tensor is computed."""
        if self.stream is not None:
            queue.wait_for(self.stream)
        elif self.producer is not None and hasattr(self.producer, "__dlpack__"):
            try:
                self.producer.__dlpack__(stream=queue.handle)  # the capsule is dropped: the address is known
            except Exception as error:  # each library has its own
                raise AmpnetError(f"a tensor on the GPU cannot be read: {error}") from error
        elif self.producer is not None:
            queue.wait_for_all()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> DeviceArray:
        """Some of the rows, without a copy."""
        start, stop, _ = rows.indices(len(self))
        size = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        return replace(self, address=self.address + start * size, shape=(max(0, stop - start), *self.shape[1:]))


def device_array(array: Any, name: str, dtype: str, row: Tuple[int, ...]) -> DeviceArray:
    """`array` as the engine reads it in place: C-contiguous `dtype` [N, *row], or MisuseError that says what it is instead.

    name: of the tensor, for messages. The protocol is Numba's "CUDA Array Interface", versions 2 and 3.
    """
    _, device = array.__dlpack_device__() if hasattr(array, "__dlpack_device__") else (None, DEVICE)
    if device != DEVICE:  # which the CUDA array interface does not tell: it would be read as memory of this GPU
        raise MisuseError(
            f"{name} is on GPU {device}, but engines run on GPU {DEVICE}: copy it there, or choose with CUDA_VISIBLE_DEVICES"
        )
    about = array.__cuda_array_interface__
    shape, kind = tuple(about["shape"]), np.dtype(about["typestr"])
    if kind != np.dtype(dtype) or shape[1:] != row or not shape:
        raise MisuseError(
            f"{name} on the GPU must be {dtype} [N, {', '.join(map(str, row))}], as this engine reads it in place, "
            f"got {kind} {list(shape)}"
        )
    if about.get("mask") is not None:
        raise MisuseError(f"{name} on the GPU must not have a mask")
    if not _contiguous(about.get("strides"), shape, kind.itemsize):
        raise MisuseError(f"{name} on the GPU must be C-contiguous; make it so with .contiguous() or ascontiguousarray")
    stream = about.get("stream")
    if stream == 0:
        raise MisuseError(f"{name} on the GPU names stream 0, which the CUDA array interface forbids: 1 or 2 is meant")
    # Version 2 has no stream, and PyTorch has version 2; from 3 on, no stream means that there is nothing to wait for.
    producer = array if stream is None and about.get("version", 0) < 3 else None
    return DeviceArray(about["data"][0], shape, kind, stream, array, producer)


def _contiguous(strides: Optional[Sequence[int]], shape: Tuple[int, ...], itemsize: int) -> bool:
    """Whether rows follow each other without gaps; strides in bytes, None for that very order."""
    expected = itemsize
    for stride, length in zip(reversed(strides or ()), reversed(shape)):
        if length > 1 and stride != expected:  # where there is one element, the stride means nothing
            return False
        expected *= length
    return True
