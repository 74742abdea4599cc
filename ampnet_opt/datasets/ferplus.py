"""FER+: the votes of ten people on every picture of FER-2013, in a table beside `fer2013.csv` or in folders of pictures.

Barsoum et al., "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label Distribution", ICMI 2016.
`fer2013new.csv` goes with `fer2013.csv` row by row; columns Usage, Image name and the votes for eight classes, unknown and
NF (no face). Its names are shifted against the rows, so pictures are called as in `fer2013`. The folders are those that the
authors' generate_training_data.py writes: FER2013Train, FER2013Valid and FER2013Test, each with pictures and a `label.csv`
without a header: file, box (of the whole picture), the ten votes.

The label is the authors' majority (github.com/microsoft/FERPlus, src/ferplus.py, `_process_data` in mode majority): single
votes are dropped as outliers, then the class needs more than half of the votes that are left, unknown and NF included.
Pictures where none has that, where unknown or NF has it, or that have no name there, are left out.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.files import require_file
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.datasets import fer2013
from ampnet_opt.datasets.folders import split_of
from ampnet_opt.datasets.labelled_picture import Dataset, Picture, Skipped
from ampnet_opt.datasets.listing import first_file, read_table, refuse_missing, whole_number

CLASSES = PRESETS["ferplus"]
TABLE, LABELS = "fer2013new.csv", "label.csv"
FOLDERS = ("FER2013Train", "FER2013Valid", "FER2013Test")
VOTES = (*CLASSES, "unknown", "NF")
REASONS = {
    "unnamed": "no name in FER+",
    "": "no majority",
    "unknown": "unknown by majority",
    "NF": "no face by majority",
}
MOST_VOTES = 100  # ten in the published table


def recognises(path: Path) -> bool:
    return path.name == TABLE if path.is_file() else (path / TABLE).is_file() or bool(_labels(path))


def read(path: Path) -> Dataset:
    """Raises MisuseError for a missing table or column, malformed rows, or tables that do not go together."""
    beside = path / TABLE if path.is_dir() else path
    if path.is_dir() and not (beside.is_file() and beside.with_name(fer2013.TABLE).is_file()) and _labels(path):
        return _read_folders(path)
    table = path if path.is_file() else first_file([beside], "FER+", path)
    entries = list(read_table(table, ["Usage", "Image name", *VOTES]))
    pixels = first_file([table.with_name(fer2013.TABLE)], f"pictures for {TABLE}, which has votes only", table.parent)
    rows = fer2013.read_rows(pixels)
    if len(rows) != len(entries):
        raise MisuseError(f"{table} has {len(entries)} rows, but {pixels} has {len(rows)}; they go together row by row")
    pictures: list[Picture] = []
    skipped: list[Skipped] = []
    for row, (where, entry) in zip(rows, entries, strict=True):
        if fer2013.split_of(entry["Usage"], where) != row.split:
            raise MisuseError(f"{where}: Usage is {entry['Usage']}, but {row.split} in the same row of {pixels}")
        winner = majority(_votes([entry[name] for name in VOTES], where))
        _sort(row, winner if entry["Image name"] else "unnamed", pictures, skipped)
    return Dataset("ferplus", CLASSES, pictures, skipped=tuple(skipped))


def majority(votes: Mapping[str, int]) -> str:
    """Who has more than half of the votes when single ones are dropped, or ""."""
    counted = {name: count for name, count in votes.items() if count > 1}
    best = max(counted, key=lambda name: counted[name], default="")
    return best if best and 2 * counted[best] > sum(counted.values()) else ""


def _read_folders(path: Path) -> Dataset:
    pictures: list[Picture] = []
    skipped: list[Skipped] = []
    for table in _labels(path):
        folder, rows = table.parent, _rows(table)
        refuse_missing([name for _, name, _ in rows if not os.path.isfile(folder / name)], len(rows), table)
        for where, name, votes in rows:
            file = folder / name
            picture = Picture(file.relative_to(path).as_posix(), "", split_of(folder.name), file)
            _sort(picture, majority(_votes(votes, where)), pictures, skipped)
    return Dataset("ferplus", CLASSES, pictures, skipped=tuple(skipped), why=lambda parts: f"no row in {LABELS}")


def _labels(path: Path) -> list[Path]:
    """The lists of labels in the folders, which lie in `path`, or in `data` as in the authors' repository."""
    for top in (path, path / "data"):
        found = [top / folder / LABELS for folder in FOLDERS if (top / folder / LABELS).is_file()]
        if found:
            return found
    return []


def _rows(table: Path) -> list[tuple[str, str, list[str]]]:
    """Where it stands, the file's name and the ten votes of each row of a `label.csv`."""
    try:
        with open(require_file(table, "list"), newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            found = [(f"{table}, line {reader.line_num}", row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise MisuseError(f"{table} is not a readable CSV file: {error}") from error
    for where, row in found:
        if len(row) != 2 + len(VOTES):
            raise MisuseError(f"{where}: a file, a box and {len(VOTES)} votes are needed, found {len(row)} values")
        if Path(row[0].strip()).name != row[0].strip():
            raise MisuseError(f"{where}: {row[0][:80]!r} is not the name of a picture beside the list")
    return [(where, row[0].strip(), row[2:]) for where, row in found]


def _votes(values: Sequence[str], where: str) -> dict[str, int]:
    allowed = range(MOST_VOTES + 1)
    return {
        name: whole_number(value, allowed, f"votes for {name}", where) for name, value in zip(VOTES, values, strict=True)
    }


def _sort(picture: Picture, winner: str, pictures: list[Picture], skipped: list[Skipped]) -> None:
    if winner in CLASSES:
        pictures.append(replace(picture, label=winner))
    else:
        skipped.append(Skipped(picture.name, REASONS[winner], file=picture.file))
