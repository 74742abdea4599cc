"""Arrays of the .npy format, read strictly: nothing is evaluated, and no memory is taken that the file has no bytes for.

Layout: numpy/lib/format.py of NumPy, versions 1.0 to 3.0. NumPy reads the header with Python's own parser, which deep
nesting exhausts. numpy and the standard library only.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import IO, Any, Tuple

import numpy as np

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000
MOST_DIMENSIONS = 32
LAST_CHARACTER = 0x10FFFF  # of Unicode
HEADER = re.compile(
    rb"\{\s*'descr':\s*'([<>|=]?[biufSUO]\d{0,6})',\s*'fortran_order':\s*(True|False),\s*'shape':\s*\(([\d, L]*)\),?\s*\}\s*"
)


@dataclass(frozen=True)
class Header:
    dtype: np.dtype[Any]
    fortran: bool
    shape: Tuple[int, ...]


def read_header(stream: IO[bytes]) -> Header:
    """Raises ValueError for one that is damaged, or an array of other things than numbers, text and objects."""
    start = stream.read(8)
    if start[:6] != MAGIC or len(start) < 8 or start[6] not in {1, 2, 3}:
        raise ValueError("it does not begin as one")
    code = struct.Struct("<H" if start[6] == 1 else "<I")
    raw = stream.read(code.size)
    length = code.unpack(raw)[0] if len(raw) == code.size else 0
    text = stream.read(length) if length <= LONGEST_HEADER else b""
    found = HEADER.fullmatch(text)
    if found is None or len(text) != length:
        raise ValueError("its header is damaged, or of an array of records")
    numbers = [part.strip().rstrip(b"L") for part in found[3].split(b",") if part.strip()]
    if len(numbers) > MOST_DIMENSIONS or not all(re.match(rb"\d{1,12}$", number) for number in numbers):
        raise ValueError("its shape is that of no array")
    dtype = np.dtype(found[1].decode("ascii"))
    if dtype.itemsize == 0:
        raise ValueError("its items have no bytes")
    return Header(dtype, found[2] == b"True", tuple(map(int, numbers)))


def read_numbers(stream: IO[bytes], header: Header, available: int) -> np.ndarray:
    """The array behind its header, of `available` bytes. Raises ValueError when they are too few."""
    size = math.prod(header.shape) * header.dtype.itemsize
    if size > available:
        raise ValueError(f"it has {available:,} bytes for an array of {size:,}")
    data = bytearray(stream.read(size))
    if len(data) != size:
        raise ValueError("it is cut off")
    if header.dtype.kind == "U" and size and np.frombuffer(data, header.dtype.byteorder + "u4").max() > LAST_CHARACTER:
        raise ValueError("its text is damaged")
    return np.frombuffer(data, header.dtype).reshape(header.shape, order="F" if header.fortran else "C")
