"""Tensors of a file: what is known of them before they are read, and safetensors files that are whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import safetensors
import safetensors.torch
from torch import Tensor

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import PathLike, new_file

if TYPE_CHECKING:
    from ampnet_opt.network.pickles import StoredTensor

LARGEST_HEADER = 4 << 20  # bytes; that of the network's checkpoint has 0.2 million
MOST_TENSORS = 20_000


@dataclass(frozen=True)
class Weights:
    """Tensors of a file by name, with what is known of them before they are read.

    read(name): the tensor as float32; it may be a view of numbers that stand for several. other: further keys of the file.
    """

    found: Mapping[str, Tensor | StoredTensor]
    read: Callable[[str], Tensor]
    other: Sequence[str] = ()


def as_float(tensors: Mapping[str, Tensor]) -> Callable[[str], Tensor]:
    """`Weights.read` of tensors that are at hand."""
    return lambda key: tensors[key].float()


def write_tensors(path: PathLike, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """The bytes follow from the content alone. Raises MisuseError or AmpnetError as `new_file` does."""
    content = safetensors.torch.save({key: value.cpu().contiguous() for key, value in tensors.items()}, metadata)
    header = _sorted_header(content)
    with new_file(path) as temporary, open(temporary, "wb") as stream:
        stream.write(header)
        stream.write(memoryview(content)[len(header) :])


def _sorted_header(content: bytes) -> bytes:
    """How a safetensors file begins, with its metadata sorted, so that equal checkpoints have equal bytes.

    safetensors writes metadata in the order of Rust's hash map, which is random. The header is 8 bytes of its length and
    JSON, filled up with spaces; it keeps its length, so that nothing else moves.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    if len(text) > length:  # another way to write the same JSON than safetensors has
        raise AmpnetError(f"safetensors {safetensors.__version__} writes a header that cannot be sorted in place")
    return content[:8] + text.ljust(length)


def read_tensors(path: PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata; the tensors' numbers are read when they are used.

    Raises safetensors.SafetensorError for a file that is none of its kind, or damaged.
    """
    _require_header(path)
    with safetensors.safe_open(path, "pt") as stream:
        names = stream.keys()
        if len(names) > MOST_TENSORS:
            raise safetensors.SafetensorError(f"it has {len(names)} tensors")
        try:
            return {key: stream.get_tensor(key) for key in names}, stream.metadata() or {}
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:  # a kind of number torch lacks
            raise safetensors.SafetensorError(str(error)) from error


def _require_header(path: PathLike) -> None:
    """SafetensorError when the header, which is parsed whole, cannot be one: its length, 8 bytes, and JSON follow."""
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        raw = stream.read(9)
    length = int.from_bytes(raw[:8], "little")
    if len(raw) < 9 or raw[8:] != b"{" or length > size - 8:
        raise safetensors.SafetensorError("its header is damaged, or it is cut off")
    if length > LARGEST_HEADER:
        raise safetensors.SafetensorError(f"its header has over {LARGEST_HEADER >> 20} MB")
