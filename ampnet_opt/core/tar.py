"""Tar files of plain members, read strictly: what could be something else than it seems is refused. Standard library only.

Layout: POSIX.1-2001, pax, "ustar Interchange Format" and "pax Header Block". tarfile of the standard library follows links,
long names and sparse maps, and in Python 3.8 reads a negative size for ever.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import IO, Dict, Iterator, Tuple

BLOCK = 512
MOST_MEMBERS = 1000
LONGEST_PAX = 1 << 16  # bytes
FILE, OLD_FILE, DIRECTORY, PAX, GLOBAL_PAX = b"0", b"\0", b"5", b"x", b"g"
# What a pax header may say that changes neither a member's name, nor its size, nor what it is.
HARMLESS = re.compile(rb"(mtime|atime|ctime|uid|gid|uname|gname|comment|charset|LIBARCHIVE\..+|SCHILY\..+)$")


@dataclass(frozen=True)
class Member:
    """start: of its bytes in the file."""

    name: str
    start: int
    size: int
    directory: bool


def looks_like_tar(head: bytes) -> bool:
    """Whether a file's first 512 bytes are the header of a member."""
    return len(head) >= BLOCK and head[257:262] == b"ustar" and _sums_up(head[:BLOCK])


def members(stream: IO[bytes]) -> Iterator[Member]:
    """The members in the order of the file, at most a thousand. Raises ValueError for a tar that is damaged, or has what
    no bundle has: links, devices, long names, sparse files. Members' own bytes are not read.
    """
    end, place, count = stream.seek(0, 2), 0, 0
    while place + BLOCK <= end:
        stream.seek(place)
        head = stream.read(BLOCK)
        if not any(head):
            return
        if not _sums_up(head):
            raise ValueError(f"its member {count + 1} has no valid header")
        count += 1
        if count > MOST_MEMBERS:
            raise ValueError(f"it has more than {MOST_MEMBERS:,} members")
        kind, name, size = head[156:157], _name(head), _octal(head[124:136])
        start = place + BLOCK
        if kind in {PAX, GLOBAL_PAX}:
            if size > LONGEST_PAX:
                raise ValueError("one of its pax headers is too long")
            _require_harmless(stream.read(size))
        elif kind not in {FILE, OLD_FILE, DIRECTORY} or (kind == DIRECTORY and size):
            raise ValueError(f"{name} is no plain file")
        else:
            directory = kind == DIRECTORY or name.endswith("/")
            if directory and size:
                raise ValueError(f"{name} is no plain file")
            if start + size > end:
                raise ValueError(f"it ends in the middle of {name}")
            yield Member(name, start, size, directory)
        place = start + -(-size // BLOCK) * BLOCK


def _sums_up(head: bytes) -> bool:
    """Whether a header's checksum is that of its bytes, with its own field as spaces."""
    field = head[148:156].strip(b" \0")
    return bool(re.match(rb"[0-7]{1,7}$", field)) and int(field, 8) == sum(head[:148]) + 8 * 32 + sum(head[156:])


def _octal(field: bytes) -> int:
    """A size; those that are negative or over 8 GB are written in another way, and refused."""
    text = field.strip(b" \0")
    if not re.match(rb"[0-7]{0,12}$", text):
        raise ValueError("the size of one of its members is no number")
    return int(text or b"0", 8)


def _name(head: bytes) -> str:
    name = head[:100].split(b"\0")[0]
    prefix = head[345:500].split(b"\0")[0] if head[257:263] == b"ustar\0" else b""
    return (prefix + b"/" * bool(prefix) + name).decode("utf-8", "replace")


def _require_harmless(records: bytes) -> None:
    """ValueError when one of the records "length key=value\\n" changes what a member is."""
    place = 0
    while place < len(records) and records[place : place + 1] != b"\0":
        found = re.compile(rb"(\d{1,6}) ([^=\n]{1,100})=").match(records, place)
        size = int(found[1]) if found else 0
        if found is None or size < found.end() - place or records[place + size - 1 : place + size] != b"\n":
            raise ValueError("one of its pax headers is damaged")
        if not HARMLESS.match(found[2]):
            raise ValueError(f"one of its pax headers sets {found[2].decode('ascii', 'replace')}")
        place += size


def plain_names(found: Iterator[Member], inside: str) -> Dict[str, Tuple[int, int]]:
    """Name -> start and size of the files that lie beside `inside`, in the one folder that holds it.

    A leading "./" is no folder. Raises ValueError for names that lead elsewhere, and for two files of one name.
    """
    files: Dict[str, Tuple[int, int]] = {}
    folders = []
    for member in found:
        name = re.sub(r"^(\./)+", "", member.name)
        if member.directory:
            folders.append(member.name.rstrip("/"))
        elif name in files:
            raise ValueError(f"it holds {name} twice")
        elif not name.rpartition("/")[2].startswith("._"):  # macOS: what its tar adds of its own
            files[name] = member.start, member.size
    homes = [name[: -len(inside)] for name in files if name == inside or name.endswith(f"/{inside}")]
    home = homes[0] if len(homes) == 1 and re.match(r"([^/\\:\0]+/)?$", homes[0]) and homes[0] != "../" else ""
    for name in files:
        rest = name[len(home) :]
        if not name.startswith(home) or rest in {"", ".", ".."} or set(rest) & set("/\\:\0"):
            raise ValueError(f"it names a file outside itself: {name}")
    for name in folders:
        if name not in {".", "", home.rstrip("/"), f"./{home.rstrip('/')}"}:
            raise ValueError(f"{name} is no plain file")
    return {name[len(home) :]: place for name, place in files.items()}
