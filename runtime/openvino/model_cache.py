"""Compiled models of the cpu backend, kept for the next process: its first result comes sooner, from less memory.

OpenVINO keeps compiled models itself, when told to, but knows them by their contents: it reads the whole engine beside the
compiled model. Here an engine is known by the hashes in its sidecar, and what is kept is read alone. A file is a compiled
model and its SHA-256, in the last 32 bytes: OpenVINO does not notice damage, and would answer with it.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import mmap
import os
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Mapping, Optional, Tuple

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import UnsafeCache, cache_folder, forget_oldest, is_private, new_file

log = logging.getLogger(__name__)

NEWEST = 9  # kept whatever their size: three each of the engines in use
LARGEST_CACHE = 1 << 30  # bytes; a compiled model is as large as its engine
DIGEST = 32  # bytes


def load_or_compile(
    openvino: Any, core: Any, identity: Mapping[str, Any], config: Dict[str, Any], make: Callable[[], Any]
) -> Tuple[Any, Any]:
    """The CompiledModel of `make()`, from the cache where it is there; put there, where that can be written, if not. And
    the memory that must live as long as it, and as its requests.

    identity: what tells the engine and its shapes from others, as JSON. The library's version, the processor and `config`
    are told apart as well. What cannot be read, or is damaged, is made again and replaced. A folder that others may write
    to is not used, which a warning says.
    """
    try:
        folder = cache_folder("openvino")
    except AmpnetError as error:
        if isinstance(error, UnsafeCache):
            _warn_once(str(error))
        return make(), None
    processor = [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    key = json.dumps([identity, config, openvino.__version__, processor], sort_keys=True, default=str)
    path = folder / f"{sha256(key.encode()).hexdigest()[:32]}.blob"
    with contextlib.suppress(RuntimeError, OSError):
        return _read(openvino, core, path, config)
    compiled = make()
    with contextlib.suppress(AmpnetError):
        _keep(compiled, path)
    return compiled, None


@lru_cache(maxsize=None)
def _warn_once(reason: str) -> None:
    log.warning("compiled models are not cached: %s", reason)


def _read(openvino: Any, core: Any, path: Path, config: Dict[str, Any]) -> Tuple[Any, Any]:
    with open(path, "rb") as file:
        _require_whole(file)
        # Copy-on-write because OpenVINO takes no memory that is read-only; it does not write to a model's constants. The
        # file stays as it was hashed: only this user may write to it, and this module replaces files, and changes none.
        mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)[:-DIGEST]
    with contextlib.suppress(TypeError):  # older versions take a copy alone
        return core.import_model(openvino.Tensor(mapped, shared_memory=True), "CPU", config), mapped
    return core.import_model(io.BytesIO(mapped.tobytes()), "CPU", config), None


def _require_whole(file: BinaryIO) -> None:
    """OSError for a file that does not end with the hash of what comes before, or that another user may have written."""
    about = os.fstat(file.fileno())
    if not is_private(about):
        raise OSError("others may write to this file")
    if about.st_size <= DIGEST or _digest(file, about.st_size - DIGEST) != file.read():
        raise OSError("this file is damaged")


def _digest(file: BinaryIO, size: int) -> bytes:
    """SHA-256 of the first `size` bytes, after which the file stands. Read in pieces: as part of the mapping, all of it
    would count as this process's memory."""
    digest, piece = sha256(), memoryview(bytearray(1 << 18))
    file.seek(0)
    while size > 0:
        count = file.readinto(piece[: min(len(piece), size)])  # type: ignore[attr-defined]
        if not count:
            break
        digest.update(piece[:count])
        size -= count
    return digest.digest()


def _keep(compiled: Any, path: Path) -> None:
    """Write a compiled model, and forget the oldest. Raises AmpnetError when it cannot be written."""
    with new_file(path, durable=False) as unfinished, open(unfinished, "w+b") as file:
        straight = _Straight(file)
        compiled.export_model(straight)
        if straight.failure:
            raise straight.failure
        os.chmod(unfinished, 0o600)
        size = file.seek(0, io.SEEK_END)
        file.write(_digest(file, size))
    forget_oldest(path.parent, "*.blob", LARGEST_CACHE, NEWEST)


class _Straight(io.BytesIO):
    """What is written goes to a file at once: OpenVINO exports into a BytesIO alone, which would be one more copy.

    failure: of a write, Ctrl-C included. OpenVINO would not pass it on.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.failure: Optional[BaseException] = None

    def write(self, content: Any) -> int:
        try:
            return self._file.write(content)
        except BaseException as error:
            self.failure = self.failure or error
            raise

    def seek(self, place: int, whence: int = 0) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()
