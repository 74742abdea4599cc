"""Tables of faces as text: in a folder, a file or a pipe; by commas, semicolons or tabs. Standard library only."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.files import PathLike
from ampnet_opt.core.text import listed, one_line

NAME = "faces.csv"  # of the table in a folder that `ampnet-opt prepare` made
DELIMITERS = ",;\t"
MOST_BYTES, BLOCK = 1 << 30, 1 << 20
BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
STREAMS = ("/dev", "/proc")  # what lies there is a stream, and no folder of pictures


@dataclass(frozen=True)
class Table:
    """name: for messages. folder: that the column file is relative to. rows: each with its line, by the columns' names."""

    name: str
    folder: Path
    columns: Tuple[str, ...]
    rows: List[Tuple[int, Dict[str, str]]]

    def where(self, line: int) -> str:
        return f"{self.name}, line {line}"


def find_table(path: PathLike, what: str) -> Path:
    """The table that `path` is, or that a folder of `ampnet-opt prepare` holds; MisuseError where there is none."""
    found = Path(path)
    if found.is_dir():
        if not (found / NAME).is_file():
            raise MisuseError(f"{what} {one_line(found)} is a folder without {NAME}")
        return found / NAME
    if not found.exists():
        raise MisuseError(f"{what} {one_line(found)} does not exist")
    return found


def read_table(path: PathLike, columns: Sequence[str], what: str) -> Table:
    """A table of comma-, semicolon- or tab-separated values with a header that has `columns`.

    path: a file, a folder that holds faces.csv, or a pipe, which is read once and whose files are relative to the working
    folder. Text is UTF-8, or UTF-16 with a byte order mark. Raises MisuseError that says what is wrong and where.
    """
    file = find_table(path, what)
    name = one_line(file)
    text = _text(file, name, what)
    header = text.split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        names = tuple(cell.strip() for cell in next(reader, []))
        _require_columns(name, names, columns)
        rows = [(reader.line_num, _row(f"{name}, line {reader.line_num}", names, cells)) for cells in reader if cells]
    except csv.Error as error:
        if "field larger" in str(error):
            error = csv.Error(f"a value has over {csv.field_size_limit():,} characters; is a quotation mark never closed?")
        raise MisuseError(f"{name} is not a readable CSV file: line {reader.line_num}: {one_line(error)}") from error
    folder = Path() if str(file).startswith(STREAMS) or not file.is_file() else file.parent
    return Table(name, folder, names, rows)


def parse_number(text: str) -> float:
    """A float, or ValueError, whose message is for the user where there is a decimal comma."""
    try:
        return float(text)
    except ValueError:
        if "," in text:
            float(text.replace(",", ".", 1))
            raise ValueError("a number with a decimal comma; write a point") from None
        raise


def _text(file: Path, name: str, what: str) -> str:
    try:
        if stat.S_ISCHR(file.stat().st_mode) and not str(file).startswith(("/dev/stdin", "/dev/fd", "/proc")):
            raise MisuseError(f"{what} {name} is a device, not a file")
        with open(file, "rb") as stream:
            raw = b"".join(itertools.islice(iter(lambda: stream.read(BLOCK), b""), MOST_BYTES // BLOCK + 1))
    except OSError as error:
        raise MisuseError(f"{name} is not a readable CSV file: {error.strerror or error}") from error
    if len(raw) > MOST_BYTES:
        raise MisuseError(f"{what} {name} is larger than {MOST_BYTES >> 30} GB")
    encoding = next((encoding for mark, encoding in BOMS if raw.startswith(mark)), "utf-8")
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise MisuseError(
            f"{name} is not a readable CSV file: it is neither UTF-8 nor UTF-16 with a byte order mark ({error.reason})"
        ) from error


def _require_columns(name: str, found: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [column for column in wanted if column not in found]
    if missing:
        there = f"; it has {listed(found, 12)}" if any(found) else ""
        raise MisuseError(f"{name} has no column {', '.join(missing)}{there}")
    twice = sorted({column for column in wanted if list(found).count(column) > 1})
    if twice:
        raise MisuseError(f"{name} has the column {twice[0]} more than once")


def _row(where: str, names: Sequence[str], cells: List[str]) -> Dict[str, str]:
    if len(cells) > len(names):
        label = f" of {one_line(cells[0], 80)}" if cells else ""
        raise MisuseError(f"{where}: the row{label} has more values than there are columns")
    return {column: cell.strip() for column, cell in zip(names, [*cells, *[""] * (len(names) - len(cells))])}
