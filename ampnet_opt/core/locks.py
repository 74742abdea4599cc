"""Locks between processes that the system takes back from one that dies. Standard library only.

They are flock(2)'s: on Windows, and on file systems without them, nothing is locked and all goes on as if alone.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Iterator, Optional, Tuple

from ampnet_opt.core.errors import AmpnetError

try:
    import fcntl
except ImportError:  # Windows
    AVAILABLE = False
else:
    AVAILABLE = True


class BusyError(AmpnetError):
    """Another process is at work on what was asked for."""


def acquire(handle: int) -> Optional[bool]:
    """Lock an open file until it is closed: whether that worked, or None where there are no locks."""
    if not AVAILABLE:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def is_at(handle: int, path: Path) -> bool:
    """Whether an open file is the one at `path`, and not one that was removed from there."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def hold(path: Path, busy: str) -> Iterator[bool]:
    """Lock the file `path`, which is there only as long as the block: whether this file system has locks.

    busy: message of the BusyError that is raised when another process holds it.
    """
    if not AVAILABLE:
        yield False
        return
    handle, held = _acquire_at(path)
    try:
        if held is False:
            raise BusyError(busy)
        yield held is True
    finally:
        if held is not False:
            with contextlib.suppress(OSError):
                path.unlink()
        os.close(handle)


def _acquire_at(path: Path) -> Tuple[int, Optional[bool]]:
    """A handle of the file that is at `path` once it is locked, and what `acquire` says."""
    while True:
        handle = _open(path)
        held = acquire(handle)
        if held is False or is_at(handle, path):
            return handle, held
        os.close(handle)  # its holder removed it between the two calls


def _open(path: Path) -> int:
    flags = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY | flags)  # another user's: to lock it, reading is enough
