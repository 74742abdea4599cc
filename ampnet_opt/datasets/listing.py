"""What the readers have in common: folders, lists and tables on disk, and the sentences about what is wrong with them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.files import require_file
from ampnet_opt.core.pictures import OTHER_PICTURES, PICTURES, is_picture
from ampnet_opt.core.row_matching import IMAGES
from ampnet_opt.core.text import count

JOURNAL, SKIPPED = "faces.partial.jsonl", "skipped.csv"  # of `prepare`, beside its table: see preparing.journal
HIDDEN = (".", "__")  # how the names of files and folders begin that systems make: .cache, ._1.jpg, __MACOSX


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder that can be read, by suffix, in the order of their names, without hidden ones."""
    return sorted(file for file in folder.iterdir() if is_picture(file))


def folders_in(folder: Path) -> list[Path]:
    """The folders of a folder, in the order of their names, without hidden ones and what `prepare` wrote."""
    return sorted(
        inside
        for inside in folder.iterdir()
        if inside.is_dir() and not inside.name.startswith(HIDDEN) and not is_output(inside)
    )


def is_output(folder: Path) -> bool:
    """Whether `prepare` wrote a folder, or is at it: no part of the data set, even where it lies in it."""
    unfinished = folder.name == IMAGES and (folder.parent / JOURNAL).is_file()
    return unfinished or ((folder / IMAGES).is_dir() and any((folder / mark).is_file() for mark in (JOURNAL, SKIPPED)))


def all_pictures(folder: Path) -> Iterator[Path]:
    """Every picture file below a folder, by suffix, hidden ones and those that are not read here too.

    Links to folders are followed, each folder is looked at once, and what `prepare` wrote is not looked at.
    """
    suffixes, seen = PICTURES | OTHER_PICTURES, set()
    for top, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(top)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_output(Path(top, name)))
        for name in sorted(files):
            if os.path.splitext(name.lower())[1] in suffixes:
                yield Path(top, name)


def holds_pictures(folder: Path) -> bool:
    """Whether `all_pictures` finds any."""
    return next(all_pictures(folder), None) is not None


def first_file(places: Sequence[Path], what: str, where: Path) -> Path:
    """The first of `places` that is a file, or a MisuseError that says `what` is missing in `where`."""
    for place in places:
        if place.is_file():
            return place
    names = " or ".join(str(place.relative_to(where)) for place in places)
    raise MisuseError(f"{where} holds no {what}: there is no {names}")


def refuse_missing(missing: Sequence[str], names: int, source: Path) -> None:
    """Raise MisuseError when pictures that `source` names are missing; names: how many it names in all."""
    if missing:
        raise MisuseError(
            f"{source} names {count(names, 'picture')}, but {len(missing)} of them cannot be found, first {missing[0]}"
        )


def whole_number(text: str, allowed: range, what: str, where: str) -> int:
    """`text` as a number of `allowed`, or a MisuseError that says what stands there instead."""
    try:
        number = int(text)
    except ValueError:
        number = allowed.stop
    if number not in allowed:
        raise MisuseError(f"{where}: {what} is {text[:80]!r}, allowed is {allowed[0]} to {allowed[-1]}")
    return number


def read_lines(file: Path, what: str) -> list[tuple[str, list[str]]]:
    """The words of every line that has any, each with where it stands. UTF-8."""
    try:
        text = require_file(file, what).read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise MisuseError(f"{what} {file} is not readable text: {error}") from error
    found = [(f"{file}, line {i}", line.split()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not found:
        raise MisuseError(f"{what} {file} is empty")
    return found


def read_table(file: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV (UTF-8) that must have `columns`, each with where it stands."""
    try:
        with open(require_file(file, "table"), newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
            missing = [column for column in columns if column not in reader.fieldnames]
            if missing:
                raise MisuseError(f"{file} has no column {', '.join(missing)}")
            for row in reader:
                where = f"{file}, line {reader.line_num}"
                if None in row or None in row.values():  # csv's marks of too many and too few
                    raise MisuseError(f"{where}: the row has not as many values as there are columns")
                yield where, row
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise MisuseError(f"{file} is not a readable CSV file: {error}") from error
