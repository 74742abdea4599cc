"""Tensors out of PyTorch's pickled files, both layouts, without running what the pickle asks for.

A pickle is a program that calls whatever it can name, so here it can name nothing: every name stands for one of the
inert classes below, and a name that no checkpoint needs is refused. Tensors are read from the file only when asked for.
Layouts: torch/serialization.py of PyTorch, `_save` (zip) and `_legacy_save`.
"""

from __future__ import annotations

import _compat_pickle
import io
import math
import pickle
import re
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from ampnet_opt.errors import AmpnetError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}

# What plain data and numpy arrays of training objects are pickled with. All are inert here; of the standard library, numpy
# and torch nothing else is looked at, so that a file that reaches for code is refused rather than half understood.
HARMLESS = re.compile(
    r"(__builtin__|builtins)\.(set|frozenset|list|dict|tuple|int|float|bool|complex|str|bytes|bytearray|object|slice|range)"
    r"|_codecs\.encode|copyreg\._reconstructor|argparse\.Namespace|types\.SimpleNamespace"
    r"|collections\.(defaultdict|deque|Counter)|datetime\.\w+|decimal\.Decimal|fractions\.Fraction|uuid\.UUID"
    r"|pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path"
    r"|numpy\.(core|_core)\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer)|numpy\.(ndarray|dtype|dtypes\.\w+)"
    r"|numpy\.(bool_?|u?int\d+|float\d+|complex\d+)|numpy\.random\.\w+\.(__\w+|[A-Z]\w+)"
    r"|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2|torch\.(Size|device|Tensor|[A-Z]\w+Storage)"
    r"|torch\.(serialization\._get_layout|storage\.(Untyped|Typed)Storage|u?int\d+|b?float\d+|complex\d+|bool)"
    r"|torch\.(optim|nn|amp|cuda\.amp)(\.\w+)*\.[A-Z]\w*"
)


class _Refused(Exception):
    """What is wrong with a file, as the rest of a sentence that begins with its name."""


class _Inert:
    """Takes the place of a training object in a pickle: lets everything be done to it and keeps nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(_Inert)

    def __call__(self, *args: Any, **kwargs: Any) -> _Inert:
        return self

    def _ignore(self, *args: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = update = _ignore


class _Table(dict):
    """An OrderedDict without the attributes that state dicts hang on it."""

    def __setstate__(self, state: Any) -> None:
        pass


@dataclass(frozen=True)
class _Storage:
    """A run of numbers in the file; `start` is counted in elements, for the views that old files hold."""

    key: str
    dtype: torch.dtype
    start: int


class _TensorRef:
    """Where a tensor lies: stands for `torch._utils._rebuild_tensor` and its second version."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __new__(cls, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Any:
        size, stride = (tuple(v) if isinstance(v, (tuple, list)) else (v,) for v in (size, stride))
        if not isinstance(storage, _Storage):
            return _Inert()  # a kind of number that AMP-Net has none of
        if len(size) != len(stride) or not all(type(v) is int and v >= 0 for v in (offset, *size, *stride)):
            raise pickle.UnpicklingError("a tensor's place in it is malformed")
        self = object.__new__(cls)
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def read(self, read_bytes: Callable[[_Storage], bytes]) -> Tensor:
        data = read_bytes(self.storage)
        start = self.storage.start + self.offset
        last = start + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if math.prod(self.size) == 0:
            return torch.empty(self.size, dtype=self.storage.dtype)
        if (last + 1) * self.storage.dtype.itemsize > len(data):
            raise pickle.UnpicklingError(f"storage {self.storage.key} is shorter than its tensor")
        return torch.frombuffer(bytearray(data), dtype=self.storage.dtype).as_strided(self.size, self.stride, start)


class _Parameter:
    """Stands for `torch._utils._rebuild_parameter`: the tensor alone."""

    def __new__(cls, data: Any, *rest: Any) -> Any:
        return data

    def __setstate__(self, state: Any) -> None:
        pass


TORCH = {
    "collections.OrderedDict": _Table,
    "torch._utils._rebuild_tensor": _TensorRef,
    "torch._utils._rebuild_tensor_v2": _TensorRef,
    "torch._utils._rebuild_parameter": _Parameter,
    "torch._utils._rebuild_parameter_with_state": _Parameter,
    **{f"torch.{name}": dtype for name, dtype in STORAGES.items()},
}


class _Reader(pickle.Unpickler):
    """An unpickler whose every name is inert; `storages` collects the storages that the pickle speaks of."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream, encoding="latin-1")  # byte strings of Python 2 are any bytes
        self.storages: dict[str, torch.dtype] = {}

    def find_class(self, module: str, name: str) -> Any:
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        full = f"{module}.{name}"
        if full in TORCH:
            return TORCH[full]
        top = module.partition(".")[0]
        guarded = top in sys.stdlib_module_names or top in {"numpy", "torch"}
        if (guarded and not HARMLESS.fullmatch(full)) or "." in name:  # a dotted name would walk through attributes
            raise _Refused(f"is refused: its pickle asks for {full}, which no checkpoint needs")
        return _Inert

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) >= 2 and pid[0] == "module":  # a class with its source code
            return pid[1]
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise pickle.UnpicklingError("it refers to something outside the file")
        _, dtype, key, _, _, *view = pid
        if not isinstance(dtype, torch.dtype):
            return _Inert()
        start = view[0][1] if view and isinstance(view[0], tuple) and len(view[0]) == 3 else 0
        if type(start) is not int or start < 0 or self.storages.setdefault(str(key), dtype) != dtype:
            raise pickle.UnpicklingError(f"storage {key} is malformed")
        return _Storage(str(key), dtype, start)


class Tensors(Mapping[str, Tensor]):
    """The tensors of a state dict by name, each read anew from the file when it is asked for."""

    def __init__(self, file: Path, found: Mapping[str, _TensorRef], read_bytes: Callable[[_Storage], bytes]) -> None:
        self._file, self._found, self._read_bytes = file, found, read_bytes

    def __getitem__(self, key: str) -> Tensor:
        found = self._found[key]
        with _explained(self._file):
            return found.read(self._read_bytes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


@contextmanager
def pickled_tensors(file: Path) -> Iterator[Tensors]:
    """The tensors of a file that `torch.save` wrote, from its `state_dict` if it has one, without `module.` prefixes.

    They can be read while the block lasts. Raises AmpnetError for a file that is damaged, of another kind or reaches for
    code; no name of a pickle is ever imported or called.
    """
    with open(file, "rb") as stream:
        with _explained(file):
            zipped = stream.read(4) == b"PK\3\4"
            stream.seek(0)
            content, read_bytes = _read_zip(stream) if zipped else _read_legacy(stream)
            if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
                content = content["state_dict"]
            if not isinstance(content, dict):
                raise _Refused("is not an AMP-Net checkpoint: it holds no table of tensors")
            found = {str(k).removeprefix("module."): v for k, v in content.items() if isinstance(v, _TensorRef)}
        yield Tensors(file, found, read_bytes)


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except _Refused as error:
        raise AmpnetError(f"{file} {error}") from error
    except OSError:
        raise
    except Exception as error:  # a damaged or hostile file can fail in any way
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise AmpnetError(f"{file} cannot be read as a PyTorch checkpoint: {reason}") from error


def _read_zip(stream: IO[bytes]) -> tuple[Any, Callable[[_Storage], bytes]]:
    archive = zipfile.ZipFile(stream)
    members = {info.filename: info for info in archive.infolist()}
    root = next((name[: -len("data.pkl")] for name in members if re.fullmatch(r"[^/]+/data\.pkl", name)), None)
    if root is None:
        raise _Refused("is a zip file, but not a PyTorch checkpoint")
    if f"{root}constants.pkl" in members:
        raise _Refused("is a TorchScript archive; save the model's state_dict with torch.save instead")

    def read(name: str) -> bytes:
        if members[name].compress_type != zipfile.ZIP_STORED:  # never so from PyTorch, and a few bytes could become many
            raise zipfile.BadZipFile(f"its member {name} is compressed")
        return archive.read(name)

    if f"{root}byteorder" in members and read(f"{root}byteorder") != b"little":
        raise _Refused("holds big-endian numbers; save it again with little-endian ones")
    content = _Reader(io.BytesIO(read(f"{root}data.pkl"))).load()
    return content, lambda storage: read(f"{root}data/{storage.key}")


def _read_legacy(stream: IO[bytes]) -> tuple[Any, Callable[[_Storage], bytes]]:
    try:
        head = [_Reader(stream).load(), _Reader(stream).load()]
    except _Refused:
        raise
    except Exception:  # text, a picture: bytes that mean nothing
        head = []
    if head != [LEGACY_MAGIC, LEGACY_PROTOCOL]:
        raise _Refused("is not a PyTorch checkpoint")
    system = _Reader(stream).load()
    if not isinstance(system, dict) or not system.get("little_endian", True):
        raise _Refused("holds big-endian numbers; save it again with little-endian ones")
    reader = _Reader(stream)
    content, keys = reader.load(), _Reader(stream).load()
    start = stream.tell()
    end = stream.seek(0, io.SEEK_END)
    places: dict[str, tuple[int, int]] = {}
    for key in map(str, keys):  # each storage: the count of its elements, int64, then the elements
        stream.seek(start)
        (count,) = struct.unpack("<q", stream.read(8))
        size = count * reader.storages[key].itemsize
        places[key] = start + 8, size
        start += 8 + size
        if count < 0 or start > end:
            raise EOFError("it ends before its tensors do")

    def read(storage: _Storage) -> bytes:
        place, size = places[storage.key]
        stream.seek(place)
        return stream.read(size)

    return content, read
