"""Tensors out of PyTorch's pickled files, both layouts, without running what the pickle asks for.

A pickle is a program that calls whatever it can name, so here it can name nothing: every name stands for one of the
functions below, which take a tensor's place in the file, or for nothing at all, and a name that no checkpoint needs is
refused. Of a tensor, its own bytes are read, when it is asked for.
Layouts: torch/serialization.py of PyTorch, `_save` (zip) and `_legacy_save`.
"""

from __future__ import annotations

import _compat_pickle
import io
import math
import re
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import torch
from torch import Tensor

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.stored_zip import StoredZip, ZipError
from ampnet_opt.core.text import listed, one_line
from ampnet_opt.core.unpickle import NOTHING, Inert, Machine, fill
from ampnet_opt.network.file_kinds import kind_of

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
LARGEST_PICKLE = 64 << 20  # bytes, without the tensors; the network's checkpoint has 0.2 million
MOST_DIMENSIONS = 64  # of torch
MOST_NUMBERS = 1 << 48  # of a tensor: beyond any file
SAVE_WEIGHTS = "save its weights alone, with torch.save(model.state_dict(), 'weights.pth')"
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


@dataclass(frozen=True)
class _Storage:
    """A run of numbers in the file; `start` is counted in elements, for the views that old files hold."""

    key: str
    dtype: torch.dtype
    start: int


# Reads `size` bytes of a storage, from `start`; all of it when no size is given.
ReadBytes = Callable[[str, int, "int | None"], bytearray]


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in a file, whose numbers were not read yet. offset and stride: in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        return self.storage.dtype

    @property
    def place(self) -> tuple[str, int, tuple[int, ...], tuple[int, ...]]:
        """Equal for two names of one tensor."""
        return self.storage.key, self.storage.start + self.offset, self.shape, self.stride

    @property
    def span(self) -> int:
        """Elements from the first of it to the last."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))


@dataclass(frozen=True)
class Pickled:
    """What a file of `torch.save` holds: dicts, lists and tuples of plain data and `StoredTensor`s.

    kinds: full names of the classes that it speaks of and that are none of torch.
    """

    file: Path
    content: Any
    kinds: list[str]
    _read_bytes: ReadBytes = field(repr=False)


class Tensors(Mapping[str, Tensor]):
    """Tensors by name, each read from the file when it is asked for.

    A storage that several of them share is read once, and stays in memory with them; of others, a tensor's own part is.
    """

    def __init__(self, pickled: Pickled, found: Mapping[str, StoredTensor]) -> None:
        self.found = found
        self._pickled = pickled
        self._users = Counter(tensor.storage.key for tensor in found.values())
        self._shared: dict[tuple[str, torch.dtype], Tensor] = {}

    def __getitem__(self, key: str) -> Tensor:
        return self.read(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def read(self, key: str, dtype: torch.dtype | None = None) -> Tensor:
        """A tensor, as `dtype`: converted before it is repeated, where one number stands for many."""
        tensor = self.found[key]
        dtype = dtype or tensor.dtype
        if tensor.span == 0:
            return torch.empty(tensor.shape, dtype=dtype)
        with _explained(self._pickled.file):
            first, size = tensor.storage.start + tensor.offset, tensor.dtype.itemsize
            if self._users[tensor.storage.key] == 1:
                numbers = _numbers(self._read(tensor, first * size, tensor.span * size), tensor.dtype).to(dtype)
                return numbers.as_strided(tensor.shape, tensor.stride)
            place = tensor.storage.key, dtype
            if place not in self._shared:
                self._shared[place] = _numbers(self._read(tensor, 0, None), tensor.dtype).to(dtype)
            if first + tensor.span > len(self._shared[place]):
                raise _Refused(f"is damaged: storage {tensor.storage.key} is shorter than its tensor")
            return self._shared[place].as_strided(tensor.shape, tensor.stride, first)

    def _read(self, tensor: StoredTensor, start: int, size: int | None) -> bytearray:
        return self._pickled._read_bytes(tensor.storage.key, start, size)


def _numbers(data: bytearray, dtype: torch.dtype) -> Tensor:
    usable = len(data) // dtype.itemsize
    return torch.frombuffer(data, dtype=dtype, count=usable) if usable else torch.empty(0, dtype=dtype)


def _tensor(storage: Any = None, offset: Any = None, size: Any = None, stride: Any = None, *rest: Any) -> Any:
    """Stands for `torch._utils._rebuild_tensor` and its second version."""
    shape, steps = (tuple(v) if isinstance(v, (tuple, list)) and len(v) <= MOST_DIMENSIONS else (v,) for v in (size, stride))
    if not isinstance(storage, _Storage):
        return NOTHING  # a kind of number that AMP-Net has none of
    if len(shape) != len(steps) or not all(type(v) is int and 0 <= v < MOST_NUMBERS for v in (offset, *shape, *steps)):
        raise UnpicklingError("a tensor's place in it is malformed")
    if math.prod(shape) >= MOST_NUMBERS:
        raise UnpicklingError("one of its tensors is larger than any file")
    return StoredTensor(storage, offset, shape, steps)


def _parameter(data: Any = NOTHING, *rest: Any) -> Any:
    """Stands for `torch._utils._rebuild_parameter`: the tensor alone."""
    return data if isinstance(data, StoredTensor) else NOTHING


TORCH = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    **{f"torch.{name}": dtype for name, dtype in STORAGES.items()},
}


class _Reader(Machine):
    """A machine whose every name is inert; `storages` collects the storages that the pickle speaks of."""

    def __init__(self, data: bytes, start: int = 0) -> None:
        super().__init__(data, start, self._named, self._stored)
        self.storages: dict[str, torch.dtype] = {}
        self.kinds: list[str] = []

    def _named(self, module: str, name: str) -> Any:
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        full = f"{module}.{name}"
        if full == "collections.OrderedDict":
            return self._table
        if full in TORCH:
            return TORCH[full]
        top = module.partition(".")[0]
        guarded = top in sys.stdlib_module_names or top in {"numpy", "torch"}
        if (guarded and not HARMLESS.fullmatch(full)) or "." in name:  # a dotted name would walk through attributes
            raise _Refused(f"is refused: its pickle asks for {one_line(full, 80)}, which no checkpoint needs")
        if not guarded or full.startswith("torch.nn.modules."):
            self.kinds.append(full)
        return Inert(full)

    def _table(self, pairs: Any = (), *rest: Any) -> dict[str, Any]:
        """Stands for OrderedDict, which Python 2 pickles with a list of its pairs."""
        table: dict[str, Any] = {}
        if isinstance(pairs, list):
            self.charge(64 * len(pairs))  # of an entry, and as many steps as a list may be looked through
            whole = [pair for pair in pairs if isinstance(pair, (list, tuple)) and len(pair) == 2]
            fill(table, [key for key, _ in whole], [value for _, value in whole], self)
        return table

    def _stored(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) >= 2 and pid[0] == "module":  # a class with its source code
            return pid[1]
        if not isinstance(pid, tuple) or not 5 <= len(pid) <= 6 or pid[0] != "storage":
            raise UnpicklingError("it refers to something outside the file")
        _, dtype, key, _, _, *view = pid
        if not isinstance(dtype, torch.dtype):
            return NOTHING
        start = view[0][1] if view and isinstance(view[0], tuple) and len(view[0]) == 3 else 0
        if type(key) not in {str, int} or type(start) is not int or not 0 <= start < MOST_NUMBERS:
            raise UnpicklingError("one of its storages is malformed")
        if self.storages.setdefault(str(key), dtype) != dtype:
            raise UnpicklingError("one of its storages is of two kinds")
        return _Storage(str(key), dtype, start)


@contextmanager
def pickled(file: Path) -> Iterator[Pickled]:
    """What a file that `torch.save` wrote holds; its tensors can be read while the block lasts.

    Raises AmpnetError for a file that is damaged, of another kind or reaches for code; no name of a pickle is ever imported
    or called.
    """
    with open(file, "rb") as stream:
        with _explained(file):
            zipped = stream.read(4) == b"PK\3\4"
            stream.seek(0)
            reader, read_bytes = _read_zip(stream) if zipped else _read_legacy(stream)
            content = Pickled(file, reader[0], reader[1], read_bytes)
        yield content


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except (_Refused, ZipError) as error:
        raise AmpnetError(f"{file} {error}") from error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged or hostile file can fail in any way
        reason = one_line(str(error) or type(error).__name__, 120)
        raise AmpnetError(f"{file} cannot be read as a PyTorch checkpoint: {reason}") from error


def _read_zip(stream: IO[bytes]) -> tuple[tuple[Any, list[str]], ReadBytes]:
    archive = StoredZip(stream)
    root = next((name[: -len("data.pkl")] for name in archive.names if re.fullmatch(r"[^/]+/data\.pkl", name)), None)
    if root is None:
        raise _Refused(_other_zip(archive.names))
    if f"{root}constants.pkl" in archive.names:
        raise _Refused(f"is a TorchScript archive, a program rather than weights: {SAVE_WEIGHTS}")
    if archive.compressed:
        raise _Refused(
            f"is a checkpoint that was packed again with compression ({archive.compressed[0]}): torch.save stores its "
            "members as they are; take the file that it wrote"
        )
    if f"{root}byteorder" in archive.names and archive.read(f"{root}byteorder", 0, None) != b"little":
        raise _Refused("holds big-endian numbers; save it again with little-endian ones")
    if archive.size(f"{root}data.pkl") > LARGEST_PICKLE:
        raise _Refused(f"holds more than tensors, a pickle of over {LARGEST_PICKLE >> 20} MB: {SAVE_WEIGHTS}")
    reader = _Reader(bytes(archive.read(f"{root}data.pkl")))
    content = reader.load()
    known = set(archive.names)

    def read(key: str, start: int, size: int | None) -> bytearray:
        name = f"{root}data/{key}"
        if name not in known:
            raise _Refused(f"is damaged: storage {one_line(key, 40)} is missing")
        if size is not None and start + size > archive.size(name):
            raise _Refused(f"is damaged: storage {one_line(key, 40)} is shorter than its tensor")
        return archive.read(name, start, size)

    return (content, reader.kinds), read


def _other_zip(names: list[str]) -> str:
    inside = [name for name in names if name.endswith((".pth", ".pt", ".ckpt", ".tar", ".safetensors", ".bin"))]
    if inside:
        return f"is a zip file that holds {listed(inside, 2)}: unpack it and give the file in it"
    if any(name.endswith(".keras") or name in {"model.weights.h5", "config.json"} for name in names):
        return "is a zip file of Keras, not a PyTorch checkpoint"
    return f"is a zip file, but not a PyTorch checkpoint: it holds {listed(names) or 'nothing'}"


def _read_legacy(stream: IO[bytes]) -> tuple[tuple[Any, list[str]], ReadBytes]:
    end = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    data = stream.read(min(end, 1 << 16))
    head: list[Any] = []
    position = 0
    try:
        for _ in range(2):
            machine = _Reader(data, position)
            head.append(machine.load())
            position = machine.position
    except UnpicklingError:  # text, a picture: bytes that mean nothing
        head = []
    if [value for value in head if type(value) is int] != [LEGACY_MAGIC, LEGACY_PROTOCOL]:
        raise _Refused(kind_of(data) or "is not a PyTorch checkpoint")
    data += stream.read(min(end, LARGEST_PICKLE) - len(data))
    system = _Reader(data, position)
    value = system.load()
    if not isinstance(value, dict) or value.get("little_endian", True) is not True:
        raise _Refused("holds big-endian numbers; save it again with little-endian ones")
    reader = _Reader(data, system.position)
    content = reader.load()
    last = _Reader(data, reader.position)
    keys = last.load()
    if not isinstance(keys, list) or not all(type(key) in {str, int} for key in keys):
        raise UnpicklingError("its list of storages is damaged")
    start = last.position
    places: dict[str, tuple[int, int]] = {}
    for key in map(str, keys):  # each storage: the count of its elements, int64, then the elements
        if key not in reader.storages:
            raise UnpicklingError("its list of storages does not fit its tensors")
        stream.seek(start)
        (count,) = struct.unpack("<q", stream.read(8))
        size = count * reader.storages[key].itemsize
        places[key] = start + 8, size
        start += 8 + size
        if count < 0 or start > end:
            raise _Refused("is cut off, it ends before its tensors do: copy or download it again")

    def read(key: str, start: int, size: int | None) -> bytearray:
        if key not in places:
            raise _Refused(f"is damaged: storage {one_line(key, 40)} is missing")
        place, whole = places[key]
        piece = bytearray(whole - start if size is None else size)
        if start + len(piece) > whole:
            raise _Refused(f"is damaged: storage {one_line(key, 40)} is shorter than its tensor")
        stream.seek(place + start)
        if stream.readinto(piece) != len(piece):  # type: ignore[attr-defined]
            raise _Refused("is cut off: copy or download it again")
        return piece

    return (content, reader.kinds), read
