"""Zip files whose members are stored as they are, which is how torch.save writes them, read piece by piece.

Layout: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3. zipfile of the standard library makes an object of every entry
first, and reads a member whole; here the table of contents is bounded, and no two members can be the same bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import IO

END, END64, LOCATOR64, ENTRY, LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
LONGEST_COMMENT = 65535
LARGEST_TABLE = 4 << 20  # bytes; that of the network's checkpoint has 0.2 million
BLOCK = 1 << 20
STORED, ZIP64, UNKNOWN = 0, 1, 0xFFFFFFFF


class ZipError(Exception):
    """What is wrong with a zip file, as the rest of a sentence that begins with its name."""


class StoredZip:
    """names: of the members, in the order of the file. compressed: those that cannot be read."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Raises ZipError for a file that is damaged, or whose table is too long."""
        self._stream = stream
        self._size = stream.seek(0, 2)
        try:
            self._members = {name: place for name, *place in _entries(self._table())}
        except struct.error as error:
            raise ZipError("is a zip file whose table of contents is damaged") from error
        self.names = list(self._members)
        if sum(size for _, size, _, method in self._members.values() if method == STORED) > self._size:
            raise ZipError("is a zip file whose members are larger than the file: it is damaged")
        self.compressed = [name for name, (*_, method) in self._members.items() if method != STORED]
        self._checked: set[str] = set()

    def size(self, name: str) -> int:
        return self._members[name][1]

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytearray:
        """`size` bytes of a member from `start`, all by default; its CRC is checked once. Raises ZipError."""
        header, whole, crc, method = self._members[name]
        if method != STORED:
            raise ZipError(f"is damaged: its member {name} is compressed")
        stop = whole if size is None else start + size
        if not 0 <= start <= stop <= whole:
            raise ZipError(f"is damaged: its member {name} is too short")
        first = self._first_byte(header)
        if name in self._checked or (start, stop) == (0, whole):
            found = self._piece(first + start, stop - start)
        else:
            found = bytearray(stop - start)
        if name not in self._checked:
            actual = zlib.crc32(found) if (start, stop) == (0, whole) else self._scan(first, whole, start, found)
            if actual != crc:
                raise ZipError(f"is damaged: its member {name} does not match its CRC-32")
            self._checked.add(name)
        return found

    def _scan(self, first: int, whole: int, start: int, found: bytearray) -> int:
        """CRC of a whole member, of which `found` takes the part from `start`; a block in memory at a time."""
        crc = 0
        for place in range(0, whole, BLOCK):
            block = self._piece(first + place, min(BLOCK, whole - place))
            crc = zlib.crc32(block, crc)
            low, high = max(place, start), min(place + len(block), start + len(found))
            if low < high:
                found[low - start : high - start] = block[low - place : high - place]
        return crc

    def _piece(self, place: int, size: int) -> bytearray:
        if place + size > self._size:
            raise ZipError("is cut off: copy or download it again")
        piece = bytearray(size)
        self._stream.seek(place)
        if self._stream.readinto(piece) != size:  # type: ignore[attr-defined]
            raise ZipError("is cut off: copy or download it again")
        return piece

    def _first_byte(self, header: int) -> int:
        """Where the data of a member begins: behind its own header, whose extra field differs from the table's."""
        fixed = self._piece(header, 30)
        if fixed[:4] != LOCAL:
            raise ZipError("is a zip file whose table of contents is damaged")
        name, extra = struct.unpack_from("<HH", fixed, 26)
        return header + 30 + name + extra

    def _table(self) -> bytearray:
        tail_start = max(0, self._size - LONGEST_COMMENT - 22)
        tail = self._piece(tail_start, self._size - tail_start)
        place = tail.rfind(END)
        if place < 0:
            raise ZipError("is cut off, its end is missing: copy or download it again")
        size, start = struct.unpack_from("<II", tail, place + 12)
        if UNKNOWN in (size, start) or struct.unpack_from("<H", tail, place + 10)[0] == 0xFFFF:
            locator = tail.rfind(LOCATOR64, 0, place)
            if locator >= 0:
                (end64,) = struct.unpack_from("<Q", tail, locator + 8)
                record = self._piece(end64, 56)
                if record[:4] == END64:
                    size, start = struct.unpack_from("<QQ", record, 40)
        if size > LARGEST_TABLE:
            raise ZipError("is a zip file of too many members to be a checkpoint")
        return self._piece(start, size)


def _entries(table: bytearray) -> Iterator[tuple[str, int, int, int, int]]:
    """Name, place of the header, size, CRC and method of each member; sizes beyond 32 bits lie in an extra field."""
    place, seen = 0, set()
    while place < len(table):
        if table[place : place + 4] != ENTRY:
            raise ZipError("is a zip file whose table of contents is damaged")
        flags, method = struct.unpack_from("<HH", table, place + 8)
        crc, packed, size, name_size, extra_size, comment_size = struct.unpack_from("<IIIHHH", table, place + 16)
        (header,) = struct.unpack_from("<I", table, place + 42)
        name_end = place + 46 + name_size
        raw = bytes(table[place + 46 : name_end])
        name = raw.decode("utf-8" if flags & 0x800 else "latin-1", "replace")
        wide = _wide(table[name_end : name_end + extra_size])
        size, packed, header = (wide() if value == UNKNOWN else value for value in (size, packed, header))
        if name in seen:
            raise ZipError("is a zip file that holds two members of one name: it is damaged")
        if method == STORED and (size != packed or flags & 1):
            raise ZipError("is a zip file whose table of contents is damaged")
        seen.add(name)
        yield name, header, size, crc, method
        place = name_end + extra_size + comment_size


def _wide(extra: bytearray) -> Callable[[], int]:
    """Gives the numbers of 64 bits in the zip64 part of an extra field, one a call."""
    place = 0
    while place + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, place)
        if kind == ZIP64:
            part = extra[place + 4 : place + 4 + size]
            numbers = iter(struct.unpack(f"<{len(part) // 8}Q", part[: len(part) // 8 * 8]))
            return lambda: next(numbers, UNKNOWN)
        place += 4 + size
    return lambda: UNKNOWN
