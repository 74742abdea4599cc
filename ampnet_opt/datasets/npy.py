"""Arrays out of .npy files, those of Python objects too, without running what their pickle asks for.

An array of objects is a pickle, a program that calls whatever it can name; here every name stands for one of the inert
classes below, which take numbers, strings and plain containers and nothing else. numpy's own functions for that are not
called either: they trust the item size and flags that a pickle gives them.
"""

from __future__ import annotations

import math
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.files import require_file
from ampnet_opt.core.npy import read_header, read_numbers
from ampnet_opt.core.text import one_line
from ampnet_opt.core.unpickle import Machine, Restored

LARGEST_PICKLE = 256 << 20  # bytes
LONGEST_ITEM = 1 << 16  # bytes of one string in an array


class _Refused(Exception):
    """What is wrong with a file, as the rest of a sentence that begins with its name."""


class _Dtype(Restored):
    """Stands for numpy.dtype: a kind of number or string, its size and byte order."""

    __slots__ = ("kind",)

    def __init__(self, code: Any = None, *flags: Any) -> None:
        kind = np.dtype(code) if isinstance(code, str) and len(code) < 8 and code[:1] in set("biufSUO") else None
        if kind is None or kind.fields or kind.subdtype or not 0 < kind.itemsize <= LONGEST_ITEM:
            raise UnpicklingError(f"it holds arrays of {one_line(code, 20) if isinstance(code, str) else 'records'}")
        self.kind: np.dtype[Any] = kind

    def restore(self, state: Any, machine: Machine) -> None:
        if isinstance(state, tuple) and state[1:2] == (">",):
            self.kind = self.kind.newbyteorder(">")


class Stored(Restored):
    """Stands for an array inside a pickle; `numpy.asarray` makes one of it."""

    __slots__ = ("array",)

    def __init__(self, *args: Any) -> None:
        self.array: np.ndarray = np.empty(0)

    def restore(self, state: Any, machine: Machine) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Dtype):
            raise UnpicklingError("one of its arrays is malformed")
        _, shape, dtype, fortran, data = state
        if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(n) is int and 0 <= n < 1 << 40 for n in shape):
            raise UnpicklingError("one of its arrays has no shape")
        if dtype.kind.hasobject:
            if not isinstance(data, list) or len(data) != math.prod(shape):
                raise UnpicklingError("one of its arrays has other items than its shape")
            machine.charge(40 * len(data))
            flat: np.ndarray = np.empty(len(data), object)
            for i, item in enumerate(data):  # a slice would look into the items
                flat[i] = item
        else:
            flat = np.frombuffer(_bytes(data, machine), dtype.kind)
        # numpy lists objects row by row, even those of a column-major array
        self.array = flat.reshape(shape, order="F" if fortran and not dtype.kind.hasobject else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.array if dtype is None else self.array.astype(dtype)


def _bytes(data: Any, machine: Machine) -> bytes:
    if isinstance(data, str):  # written by Python 2
        machine.charge(2 * len(data))
        return data.encode("latin-1")
    if not isinstance(data, bytes):
        raise UnpicklingError("one of its arrays has no bytes")
    return data


class _Reader(Machine):
    """A machine with which only arrays, numbers and text can be made."""

    STRICT = True
    INSTRUCTIONS = 1_000_000  # a picture's name and points take 40

    def __init__(self, data: bytes) -> None:
        super().__init__(data, 0, self._named)

    def _named(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        cores = ("numpy.core.multiarray", "numpy._core.multiarray")
        if full == "numpy.dtype":
            return _Dtype
        if full == "numpy.ndarray" or (module in cores and name == "_reconstruct"):
            return Stored
        if module in cores and name == "scalar":
            return self._scalar
        if full == "_codecs.encode":
            return self._encoded
        raise _Refused(f"is refused: its pickle asks for {one_line(full, 80)}, which no array of numbers and names needs")

    def _scalar(self, dtype: Any = None, data: Any = b"", *rest: Any) -> Any:
        """Stands for numpy's scalar function: the number or string itself."""
        if not isinstance(dtype, _Dtype) or dtype.kind.hasobject or len(data) != dtype.kind.itemsize:
            raise UnpicklingError("one of its numbers is malformed")
        return np.frombuffer(_bytes(data, self), dtype.kind)[0].item()

    def _encoded(self, text: Any = None, encoding: Any = "", *rest: Any) -> bytes:
        """Stands for _codecs.encode, by which protocol 2 writes bytes."""
        if encoding != "latin1" or not isinstance(text, str):
            raise UnpicklingError("it holds text that is not latin1")
        return _bytes(text, self)


def load_npy(file: Path, what: str) -> np.ndarray:
    """The array of a .npy file; one of objects may hold strings, numbers, lists, dicts and `Stored` arrays.

    Raises MisuseError that begins with `what` and the file when it is missing, damaged or reaches for code, which is never
    run.
    """
    try:
        with open(require_file(file, what), "rb") as stream:
            header = read_header(stream)
            available = file.stat().st_size - stream.tell()
            if not header.dtype.hasobject:
                return read_numbers(stream, header, available)
            if available > LARGEST_PICKLE:
                raise UnpicklingError(f"its pickle has over {LARGEST_PICKLE >> 20} MB")
            content = _Reader(stream.read()).load()
            if not isinstance(content, Stored) or content.array.shape != header.shape:
                raise UnpicklingError("its pickle is not the array that its header speaks of")
            return content.array
    except MisuseError:
        raise
    except _Refused as error:
        raise MisuseError(f"{what} {file} {error}") from error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged or hostile file can fail in any way
        reason = one_line(str(error) or type(error).__name__, 120).rstrip(".")
        raise MisuseError(f"{what} {file} cannot be read as a .npy file: {reason}") from error


def few_numbers(value: Any, most: int = 32) -> Any:
    """`value`, from an array of objects, when it is at most `most` numbers in lists and arrays; ValueError otherwise.

    Lists of the same lists can stand for more numbers than can be counted, so this is asked before they are looked at.
    """
    waiting, seen = [value], 0
    while waiting:
        item = waiting.pop()
        seen += item.array.size if isinstance(item, Stored) else 1
        if seen > most:
            raise ValueError("there are more numbers than a face has")
        waiting += item if isinstance(item, (list, tuple)) and len(item) <= most else []
        if not isinstance(item, (list, tuple, int, float, Stored)):
            raise ValueError("there is something that is no number")
    return value
