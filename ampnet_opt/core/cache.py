"""Where what can be made again is kept for the next process, and how its files are found whole. Standard library only."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Iterator

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import new_file
from ampnet_opt.core.text import command, printable

log = logging.getLogger(__name__)

CACHE_VARIABLE = "AMPNET_OPT_CACHE"
DIGEST = 32  # bytes at the end of a hashed file: the SHA-256 of what comes before


class UnsafeCache(AmpnetError):
    """A cache that others may write to: what they put there would be taken for our own."""


def cache_folder(name: str) -> Path:
    """Where what can be made again is kept: `name` in $AMPNET_OPT_CACHE, or in ampnet-opt of $XDG_CACHE_HOME, which counts
    where it is absolute, or ~/.cache.

    It is made, for this user alone, where it can be. In the latter two, a folder of this user that others may write to, as
    older versions made with a umask of 002, is emptied and closed to them: they may have changed what is there. Raises
    AmpnetError when none is known, UnsafeCache when another user owns it or the folder it is in, or others may write there.
    """
    own, shared = os.environ.get(CACHE_VARIABLE), os.environ.get("XDG_CACHE_HOME", "")
    try:
        parent = Path(own) if own else (Path(shared) if os.path.isabs(shared) else Path.home() / ".cache") / "ampnet-opt"
    except RuntimeError as error:
        raise AmpnetError(f"there is no home directory for a cache: set {CACHE_VARIABLE} to a folder") from error
    folder = parent / name
    for place in (*reversed(parent.parents), parent, folder):
        with contextlib.suppress(OSError):  # it is there, or cannot be: whoever writes to it will be told
            place.mkdir(mode=0o700)
        if place not in (parent, folder):
            continue
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if not is_private(place.stat()) and not (not own and _take_back(place)):
                raise UnsafeCache(
                    f"the cache folder {printable(place)} belongs to another user or may be written to by others: run "
                    f"{command('chmod', 'go-w', place)}, or set {CACHE_VARIABLE} to a folder of your own"
                )
    return folder


def _take_back(folder: Path) -> bool:
    """Close a folder of this user to others and empty it; False when it is not this user's to close, or is a link."""
    if folder.is_symlink() or folder.lstat().st_uid != os.geteuid():
        return False
    try:
        folder.chmod(0o700)
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    except OSError as error:
        raise UnsafeCache(
            f"others could write to the cache folder {printable(folder)}, which cannot be emptied: {error.strerror or error}"
        ) from error
    log.warning("others could write to the cache folder %s: it was emptied, and is now yours alone", printable(folder))
    return True


def cache_or_temporary(name: str) -> Path:
    """`cache_folder(name)`; where that is unsafe, a folder for this process, removed at its end, which a warning says."""
    try:
        return cache_folder(name)
    except UnsafeCache as error:
        return _temporary_cache(name, str(error))


@lru_cache(maxsize=None)
def _temporary_cache(name: str, reason: str) -> Path:
    log.warning("%s is made for this command alone: %s", name, reason)
    folder = Path(tempfile.mkdtemp(prefix="ampnet-opt-"))
    atexit.register(_remove_in, os.getpid(), folder)
    return folder


def _remove_in(process: int, folder: Path) -> None:
    """Remove a folder if this is that process, and no forked child of it."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def is_private(about: os.stat_result) -> bool:
    """Whether a file or folder is this user's, and nobody else may write to it."""
    return not hasattr(os, "geteuid") or (about.st_uid == os.geteuid() and not about.st_mode & 0o022)


def forget_oldest(folder: Path, pattern: str, size: int, kept: int = 2) -> None:
    """Delete the oldest files of a cache until it has at most `size` bytes, but not the newest `kept`.

    Another process may be at that too.
    """
    with contextlib.suppress(OSError):
        found = [(path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob(pattern)]
        for place, (_, own, path) in enumerate(sorted(found, reverse=True)):
            size -= own
            if size < 0 and place >= kept:
                path.unlink()


@contextlib.contextmanager
def new_hashed_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which gets its SHA-256 at its end, is for this user alone, and appears at `path` whole.

    Raises AmpnetError when it cannot be written.
    """
    with new_file(path, durable=False) as unfinished, open(unfinished, "w+b") as file:
        yield file
        os.chmod(unfinished, 0o600)
        size = file.seek(0, os.SEEK_END)
        file.write(_digest(file, size))


@contextlib.contextmanager
def hashed_file(path: Path) -> Iterator[BinaryIO]:
    """A file of `new_hashed_file`, found unchanged; its content is all but the last `DIGEST` bytes.

    Raises OSError when it is missing or damaged, or another user may have written it.
    """
    with _own_file(path) as file:
        size = os.fstat(file.fileno()).st_size - DIGEST
        if size <= 0 or _digest(file, size) != file.read():
            raise OSError("this file is damaged")
        yield file


@contextlib.contextmanager
def _own_file(path: Path) -> Iterator[BinaryIO]:
    """A file that nobody but this user may have written, open for reading; OSError for others."""
    with open(path, "rb") as file:
        if not is_private(os.fstat(file.fileno())):
            raise OSError("others may write to this file")
        yield file


def kept_bytes(path: Path) -> bytes:
    """What `keep_bytes` wrote; b"" where it is missing or damaged, or another user may have written it."""
    try:
        with _own_file(path) as file:
            content = file.read()
    except OSError:
        return b""
    data, digest = content[:-DIGEST], content[-DIGEST:]
    return data if hashlib.sha256(data).digest() == digest else b""


def keep_bytes(path: Path, data: bytes, size: int, kept: int) -> None:
    """Write a hashed file, then forget the oldest files of its suffix beside it, as of `forget_oldest`.

    Raises AmpnetError or OSError when it cannot be written.
    """
    with new_hashed_file(path) as file:
        file.write(data)
    forget_oldest(path.parent, f"*{path.suffix}", size, kept)


def _digest(file: BinaryIO, size: int) -> bytes:
    """SHA-256 of the first `size` bytes, after which the file stands. Read in pieces: as part of a mapping, all of it would
    count as this process's memory."""
    digest, piece = hashlib.sha256(), memoryview(bytearray(1 << 18))
    file.seek(0)
    while size > 0:
        count = file.readinto(piece[: min(len(piece), size)])  # type: ignore[attr-defined]
        if not count:
            break
        digest.update(piece[:count])
        size -= count
    return digest.digest()
