"""Files that are either whole or not there, and their fingerprints. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import threading
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple, Union

from ampnet_opt.core import exchange, locks
from ampnet_opt.core.errors import AmpnetError, MisuseError

NEW, OLD = ".new", ".old"  # ends of the hidden names of directories: in the making, and moved aside
RANDOM = "[0-9a-f]{8}"  # pattern of what makes a hidden name new
PathLike = Union[str, "os.PathLike[str]"]


def sha256(path: PathLike) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def size_on_disk(path: PathLike) -> int:
    """Bytes of a file, or of all files of a directory."""
    top = Path(path)
    return sum(file.stat().st_size for file in (top.rglob("*") if top.is_dir() else [top]) if file.is_file())


def require_file(path: PathLike, what: str) -> Path:
    """`path` as a Path, or a MisuseError that says which `what` is missing."""
    found = Path(path)
    if not found.is_file():
        reason = "is a directory" if found.is_dir() else "is no regular file" if found.exists() else "does not exist"
        raise MisuseError(f"{what} {found} {reason}")
    return found


def require_new(path: PathLike, force: bool) -> Path:
    """`path` as a Path whose place is free, or may be overwritten because `force` was given."""
    target = Path(path)
    if target.exists() and not force:
        raise MisuseError(f"{target} exists already; pass --force to replace it")
    return target


def require_new_file(path: PathLike, force: bool) -> Path:
    """As `require_new`, for a file: a MisuseError as well where none can be, before work is done for it."""
    target = require_new(path, force)
    _require_kind(target, directory=False)
    return target


def require_writable(path: PathLike, directory: bool = False) -> None:
    """Refuse a path where no file, or no file in a directory, can be written: before work is done, or earlier results go.

    Raises MisuseError when something of another kind stands in the way, AmpnetError for what the system refuses.
    """
    from tempfile import TemporaryFile

    target = Path(path)
    there = next(place for place in (target, *target.parents) if place.exists())
    if there.is_dir() != (directory or there != target):
        kind = "a directory" if there.is_dir() else "a file, not a directory"
        raise MisuseError(f"cannot write {target}: {there} is {kind}")
    try:
        if there.is_dir():
            TemporaryFile(dir=there).close()
        elif not os.access(there, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise AmpnetError(f"cannot write {target}: {error.strerror or error}; nothing was changed there") from error


def require_apart(outputs: Mapping[str, Optional[PathLike]], inputs: Iterable[Optional[PathLike]]) -> None:
    """MisuseError when two outputs are one file, or one is a file that is read, which writing would destroy.

    outputs: by what names each on the command line, "--json"; "-" is stdout. inputs: files; a directory stands for the files
    in it. None is none of either. Links are followed. What is no regular file, such as /dev/null, may be several outputs.
    """
    places: Dict[Tuple[object, ...], str] = {}
    for name, path in outputs.items():
        place = () if path is None or str(path) == "-" else _identity(Path(path))
        if place in places:
            raise MisuseError(f"{places[place]} and {name} would be written to the same file, {path}")
        if place:
            places[place] = name
    if not places:
        return
    for found in (Path(path) for path in inputs if path is not None):
        for file in found.iterdir() if found.is_dir() else [found]:
            written = places.get(_identity(file) or ("",))
            if written is not None:
                raise MisuseError(f"{written} would be written to {file}, which is read; name another file")


def _identity(path: Path) -> Tuple[object, ...]:
    """Equal for paths of one file, that is there or may be made; () for what is no regular file."""
    try:
        about = os.stat(path)
    except OSError:
        return (os.path.realpath(path),)
    return (about.st_dev, about.st_ino) if stat.S_ISREG(about.st_mode) else ()


def _require_kind(target: Path, directory: bool) -> None:
    """MisuseError when something of another kind than a file, or a directory, stands in the way of `target`.

    The working folder, one above it and the root ("", "..", "/") are no places: the folder cannot be moved as a whole.
    """
    if target.name in {"", ".."}:
        raise MisuseError(f"cannot write {target}: give the name of a {'directory' if directory else 'file'}")
    for parent in reversed(target.parents):
        if parent.exists() and not parent.is_dir():
            raise MisuseError(f"cannot write {target}: {parent} is a file, not a directory")
    if target.exists() and directory and not target.is_dir():
        raise MisuseError(f"cannot write {target}: it is a file, not a directory")
    if target.exists() and not directory and not target.is_file():
        raise MisuseError(f"cannot write {target}: it is {'a directory' if target.is_dir() else 'no regular file'}")


@contextlib.contextmanager
def _place(target: Path, directory: bool) -> Iterator[None]:
    """Make the parents of `target` for the time of the block, and for good when it ends well.

    Raises MisuseError when something of another kind stands in the way, AmpnetError for what the system refuses.
    """
    with _refusals_named(target):
        _require_kind(target, directory)
        with _parents(target):
            yield


@contextlib.contextmanager
def _refusals_named(target: Path) -> Iterator[None]:
    """What the system refuses in the block is an AmpnetError about `target`.

    But for a pipe whose reader left: `target`, a regular file or a directory, is none, so that it is stdout or stderr.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, BrokenPipeError) and error.filename is None:
            raise
        own = str(error.filename or target).startswith((str(target), str(target.parent / f".{target.name}.")))
        cause = f"{error.strerror or error}{'' if own else f' ({error.filename})'}"
        raise AmpnetError(f"cannot write {target}: {cause}; nothing was changed there") from error


@contextlib.contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Make the folders that `target` lies in; those that were not there go again when the block fails."""
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for parent in made:
            with contextlib.suppress(OSError):  # another process may have put a file there
                parent.rmdir()
        raise


@contextlib.contextmanager
def new_file(path: PathLike, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not.

    durable: once it is there, a power cut does not take it back, and what killed processes left beside it is removed. That
    costs a flush to the disk and a listing of the folder: needless for a cache, too much for files by the thousand, whose
    folder `remove_abandoned` sweeps once.
    Raises MisuseError when `path` is no place for a file, AmpnetError when it cannot be written (full disk, permission).
    """
    target = Path(path)
    with _place(target, directory=False):
        if durable:
            remove_abandoned(target.parent, target.name)
        temporary, handle = _create_beside(target)
        try:
            yield temporary
            if durable:
                flush(temporary)
            os.replace(temporary, target)
            if durable:
                _flush_names(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
            if handle is not None:
                os.close(handle)  # and with it its lock


def _create_beside(target: Path) -> Tuple[Path, Optional[int]]:
    """An empty file, with the permissions that the umask leaves, and a handle whose lock tells that it is in use."""
    while True:
        temporary = _temporary(target, target.suffix)
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
        if not locks.AVAILABLE:
            os.close(handle)  # Windows renames no open file
            return temporary, None
        if locks.acquire(handle) is not False and locks.is_at(handle, temporary):
            return temporary, handle
        os.close(handle)  # another process took it for abandoned before it was locked


def _temporary(target: Path, suffix: str) -> Path:
    """A new hidden name beside `target`, which no shell's * matches."""
    return target.with_name(f".{target.name}.{os.urandom(4).hex()}{suffix}")


def _left_beside(target: Path, suffix: str) -> List[Path]:
    """What `_temporary` has named, oldest first."""
    pattern = re.compile(re.escape(f".{target.name}.") + RANDOM + re.escape(suffix))
    found = [path for path in _listing(target.parent) if pattern.fullmatch(path.name)]
    return sorted(found, key=lambda path: path.lstat().st_mtime)


def remove_abandoned(folder: Path, name: Optional[str] = None) -> None:
    """Remove the unfinished files of `new_file` that killed processes left in a folder, which may be missing.

    name: only those of this file.
    """
    for path in _listing(folder):
        named = re.fullmatch(rf"\.(.+)\.{RANDOM}(\.[^.]*)?", path.name, re.DOTALL)
        if named and name in (None, named[1]) and Path(named[1]).suffix == (named[2] or ""):
            with contextlib.suppress(OSError):  # of another user, or just gone
                _remove_unlocked(path)


def _listing(folder: Path) -> List[Path]:
    """The paths in a folder, in no order; none where it is missing, or may be written but not read."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        return [folder / name for name in os.listdir(folder)]
    return []


def _remove_unlocked(path: Path) -> None:
    handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        if locks.acquire(handle):
            path.unlink()
    finally:
        os.close(handle)


@contextlib.contextmanager
def new_directory(path: PathLike, replace: bool = True, durable: bool = True) -> Iterator[Path]:
    """A temporary directory that takes the place of `path`, with all it holds, when the block ends well.

    On Linux the old one and the new one change places in one step: whoever opens `path` finds one of them, whole. Where
    the system or the file system cannot do that, `path` is missing for a moment; what a kill leaves there comes back when
    the next directory is made. replace: what is there, or appears before the block has ended. durable: as of `new_file`.

    Raises MisuseError when `path` is no place for a directory, or exists and may not be replaced; locks.BusyError when
    another process is writing it; AmpnetError when it cannot be written.
    """
    target = _behind_link(Path(path))
    with _place(target, directory=True), scratch_directory(target) as temporary:
        require_new(target, replace)  # also of one that came back, or appeared since the caller looked
        yield temporary
        if durable:
            for entry in temporary.rglob("*"):
                flush(entry)
            flush(temporary)
        _move_directory(temporary, target, replace)
        if durable:
            _flush_names(target.parent)


@contextlib.contextmanager
def scratch_directory(target: Path) -> Iterator[Path]:
    """An empty directory beside `target`, which goes when the block ends; meanwhile no other process has one for it.

    What killed processes left beside `target` is removed, or put back where it was moved aside. Raises locks.BusyError.
    """
    with _locked(target) as held:
        if held:
            _recover(target)
        temporary = _temporary(target, NEW)
        try:
            temporary.mkdir()
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def reserved(*paths: PathLike) -> Iterator[None]:
    """What `new_directory` and `scratch_directory` will write in this block, in this thread, no other process begins with.

    Who works for minutes before it writes is told now, and not then, that another process is at it, or that it may not
    write there. Raises locks.BusyError, and AmpnetError for what the system refuses.
    """
    with contextlib.ExitStack() as held:
        for path in paths:
            target = _behind_link(Path(path))
            with _refusals_named(target):
                held.enter_context(_parents(target))
                has_locks = held.enter_context(_locked(target))
            key = _key(target)
            _reserved[key] = has_locks
            held.callback(_reserved.pop, key)
        yield


_reserved: Dict[Tuple[int, int, str], bool] = {}  # by process, thread and path: whether its file system has locks


def _key(target: Path) -> Tuple[int, int, str]:
    return os.getpid(), threading.get_ident(), os.path.abspath(target)


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[bool]:
    """Hold the lock of what is written at `target`, or find it `reserved`: whether this file system has locks."""
    if _key(target) in _reserved:
        yield _reserved[_key(target)]
        return
    with locks.hold(target.with_name(f".{target.name}.lock"), f"another process is writing {target}; wait for it") as held:
        yield held


def _behind_link(target: Path) -> Path:
    """The directory itself where `target` is a link to one: it is replaced where it lies."""
    linked = os.path.islink(target) and not target.is_file()  # false, and no error, where this user may not look
    return target.resolve() if linked else target


def _recover(target: Path) -> None:
    for old in reversed(_left_beside(target, OLD)):
        if not target.exists():
            os.replace(old, target)
    for left in [*_left_beside(target, OLD), *_left_beside(target, NEW)]:
        shutil.rmtree(left, ignore_errors=True)


def _move_directory(new: Path, target: Path, replace: bool) -> None:
    """Rename `new` to `target`; an old one is afterwards at `new`, or gone. It comes back if that fails."""
    if not os.path.lexists(target):
        if not exchange.rename(new, target, exchange.NOREPLACE):
            os.rename(new, target)
        return
    require_new(target, replace)
    if exchange.rename(new, target, exchange.EXCHANGE):
        return
    # A directory cannot be renamed onto a full one: the old one steps aside until the new one stands.
    aside = _temporary(target, OLD)
    try:
        os.replace(target, aside)
        os.replace(new, target)
    except BaseException:
        if not target.exists():
            os.replace(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _flush_names(folder: Path) -> None:
    """Makes a rename last; what fails here does not undo it."""
    with contextlib.suppress(OSError):
        flush(folder)


def flush(path: PathLike) -> None:
    """Have the system write a file, or the names in a directory, to the disk. Does nothing on Windows."""
    if os.name == "nt":  # knows no flush of what is open for reading
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems without such a thing
            raise
    finally:
        os.close(handle)


def write_text(path: PathLike, text: str) -> None:
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: PathLike, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")
