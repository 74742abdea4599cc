"""Files that are either whole or not there, and their fingerprints. Standard library only."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Iterator, Union

from ampnet_opt.errors import AmpnetError, MisuseError
from ampnet_opt.text import command, printable

CACHE_VARIABLE = "AMPNET_OPT_CACHE"
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


def _require_kind(target: Path, directory: bool) -> None:
    """MisuseError when something of another kind than a file, or a directory, stands in the way of `target`."""
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
    made = []
    try:
        _require_kind(target, directory)
        made = [parent for parent in target.parents if not parent.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException as error:
        for parent in made:
            with contextlib.suppress(OSError):  # another process may have put a file there
                parent.rmdir()
        if isinstance(error, OSError):
            own = str(error.filename or target).startswith((str(target), str(target.parent / f".{target.name}.")))
            cause = f"{error.strerror or error}{'' if own else f' ({error.filename})'}"
            raise AmpnetError(f"cannot write {target}: {cause}; nothing was changed there") from error
        raise


@contextlib.contextmanager
def new_file(path: PathLike) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not.

    Raises MisuseError when `path` is no place for a file, AmpnetError when it cannot be written (full disk, permission).
    """
    target = Path(path)
    with _place(target, directory=False):
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix)
        temporary = Path(name)
        try:
            os.close(handle)
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_directory(path: PathLike) -> Iterator[Path]:
    """A temporary directory that takes the place of `path`, with all it holds, when the block ends well.

    Raises MisuseError when `path` is no place for a directory, AmpnetError when it cannot be written.
    """
    target = Path(path)
    with _place(target, directory=True):
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            _replace_directory(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _replace_directory(new: Path, target: Path) -> None:
    """Rename `new` to `target`, whose old contents come back if that fails and go if it does not."""
    if not target.exists():
        os.replace(new, target)
        return
    target = target.resolve()  # behind a link, the directory itself is replaced
    # A directory cannot be renamed onto a full one: the old one steps aside until the new one stands.
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
    try:
        os.replace(target, aside / "old")
        try:
            os.replace(new, target)
        except BaseException:
            os.replace(aside / "old", target)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_text(path: PathLike, text: str) -> None:
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: PathLike, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


class UnsafeCache(AmpnetError):
    """A cache that others may write to: what they put there would be taken for our own."""


def cache_folder(name: str) -> Path:
    """Where what can be made again is kept: `name` in $AMPNET_OPT_CACHE, or in ampnet-opt of $XDG_CACHE_HOME or ~/.cache.

    It is made, for this user alone, where it can be. Raises AmpnetError when none of them is known, UnsafeCache when it, or
    the folder it is in, is another user's or may be written to by others.
    """
    own, shared = os.environ.get(CACHE_VARIABLE), os.environ.get("XDG_CACHE_HOME")
    try:
        parent = Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "ampnet-opt"
    except RuntimeError as error:
        raise AmpnetError(f"there is no home directory for a cache: set {CACHE_VARIABLE} to a folder") from error
    folder = parent / name
    for place in (*reversed(parent.parents), parent, folder):
        with contextlib.suppress(OSError):  # it is there, or cannot be: whoever writes to it will be told
            place.mkdir(mode=0o700)
    for place in (parent, folder):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if not is_private(place.stat()):
                raise UnsafeCache(
                    f"the cache folder {printable(place)} belongs to another user or may be written to by others: run "
                    f"{command('chmod', 'go-w', place)}, or set {CACHE_VARIABLE} to a folder of your own"
                )
    return folder


def is_private(about: os.stat_result) -> bool:
    """Whether a file or folder is this user's, and nobody else may write to it."""
    return not hasattr(os, "geteuid") or (about.st_uid == os.geteuid() and not about.st_mode & 0o022)


def forget_oldest(folder: Path, pattern: str, kept: int) -> None:
    """Delete all but the newest `kept` files of a cache; another process may be at that too."""
    with contextlib.suppress(OSError):
        for old in sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)[:-kept]:
            old.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
