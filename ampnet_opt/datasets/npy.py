"""Arrays out of .npy files, those of Python objects too, without running what their pickle asks for.

Format: numpy/lib/format.py. An array of objects is a pickle, a program that calls whatever it can name; here every name
stands for one of the inert classes below, which take numbers, strings and plain containers and nothing else. numpy's own
functions for that are not called either: they trust the item size and flags that a pickle gives them.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ampnet_opt.errors import MisuseError
from ampnet_opt.files import require_file


class _Refused(Exception):
    """What is wrong with a file, as the rest of a sentence that begins with its name."""


class _Dtype:
    """Stands for numpy.dtype: a kind of number or string, its size and byte order."""

    kind: np.dtype[Any]

    def __new__(cls, code: Any, *flags: Any) -> Any:
        self = object.__new__(cls)
        kind = np.dtype(code) if isinstance(code, str) and code[:1] in "biufSUO" else None
        if kind is None or kind.fields or kind.subdtype:
            raise pickle.UnpicklingError(f"it holds arrays of {code!r}")
        self.kind = kind
        return self

    def __setstate__(self, state: Any) -> None:
        if state[1] == ">":
            self.kind = self.kind.newbyteorder(">")


class Stored:
    """Stands for an array inside a pickle; `numpy.asarray` makes one of it."""

    array = np.empty(0)

    def __new__(cls, *args: Any) -> Any:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if dtype.kind.hasobject:
            flat = np.empty(len(data), object)
            for i, item in enumerate(data):  # a slice would look into the items
                flat[i] = item
        else:
            flat = np.frombuffer(_bytes(data), dtype.kind)
        # numpy lists objects row by row, even those of a column-major array
        self.array = flat.reshape(shape, order="F" if fortran and not dtype.kind.hasobject else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.array if dtype is None else self.array.astype(dtype)


class _Scalar:
    """Stands for numpy's scalar function: the number or string itself."""

    def __new__(cls, dtype: Any, data: Any = b"") -> Any:
        return np.frombuffer(_bytes(data), dtype.kind)[0].item()

    def __setstate__(self, state: Any) -> None:
        pass


class _Encoded:
    """Stands for _codecs.encode, by which protocol 2 writes bytes."""

    def __new__(cls, text: Any, encoding: Any = "") -> Any:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it holds text as {encoding!r}")
        return text.encode("latin-1")

    def __setstate__(self, state: Any) -> None:
        pass


ALLOWED = {
    "numpy.dtype": _Dtype,
    "numpy.ndarray": Stored,
    "_codecs.encode": _Encoded,
    **{f"numpy.{core}.multiarray._reconstruct": Stored for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _Scalar for core in ("core", "_core")},
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in ALLOWED:
            raise _Refused(f"is refused: its pickle asks for {full}, which no array of numbers and names needs")
        return ALLOWED[full]


def _bytes(data: Any) -> bytes:
    return data.encode("latin-1") if isinstance(data, str) else bytes(memoryview(data))  # str: written by Python 2


def load_npy(file: Path, what: str) -> np.ndarray:
    """The array of a .npy file; one of objects may hold strings, numbers, lists, dicts and `Stored` arrays.

    Raises MisuseError that begins with `what` and the file when it is missing, damaged or reaches for code, which is never
    run.
    """
    try:
        with open(require_file(file, what), "rb") as stream:
            version = np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(stream)
            if dtype.hasobject:
                content = _Reader(stream, encoding="latin-1").load()
                if not isinstance(content, Stored) or content.array.shape != shape:
                    raise pickle.UnpicklingError("its pickle is not the array that its header speaks of")
                return content.array
            stream.seek(0)
            return np.lib.format.read_array(stream, allow_pickle=False)
    except MisuseError:
        raise
    except _Refused as error:
        raise MisuseError(f"{what} {file} {error}") from error
    except Exception as error:  # a damaged or hostile file can fail in any way
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise MisuseError(f"{what} {file} cannot be read as a .npy file: {reason}") from error
