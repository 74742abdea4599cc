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

PathLike = Union[str, "os.PathLike[str]"]


def sha256(path: PathLike) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def require_file(path: PathLike, what: str) -> Path:
    """`path` as a Path, or a MisuseError that says which `what` is missing."""
    found = Path(path)
    if not found.is_file():
        reason = "is a directory" if found.is_dir() else "does not exist"
        raise MisuseError(f"{what} {found} {reason}")
    return found


def require_new(path: PathLike, force: bool) -> Path:
    """`path` as a Path whose place is free, or may be overwritten because `force` was given."""
    target = Path(path)
    if target.exists() and not force:
        raise MisuseError(f"{target} exists already; pass --force to replace it")
    return target


@contextlib.contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AmpnetError(f"cannot write {target}: {error.strerror or error}; nothing was left there") from error


@contextlib.contextmanager
def new_file(path: PathLike) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not."""
    target = Path(path)
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_directory(path: PathLike) -> Iterator[Path]:
    """A temporary directory that takes the place of `path`, with all it holds, when the block ends well."""
    target = Path(path)
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            if target.is_dir() and not target.is_symlink():
                # A directory cannot be renamed onto a full one: the old one steps aside until the new one stands.
                old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
                os.replace(target, old)
                try:
                    os.replace(temporary, target)
                except OSError:
                    os.replace(old, target)
                    raise
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: PathLike, text: str) -> None:
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: PathLike, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
