"""FER+: the votes of ten people on every picture of FER-2013, `fer2013new.csv` beside `fer2013.csv`, row by row.

Barsoum et al., "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label Distribution", ICMI 2016.
Columns Usage, Image name and the votes for eight classes, unknown and NF (no face). The label is the authors' majority
(github.com/microsoft/FERPlus, src/ferplus.py, `_process_data` in mode majority): single votes are dropped as outliers, then
the class needs more than half of the votes that are left, unknown and NF included. Pictures where none has that, where
unknown or NF has it, or that have no name there, are left out and counted. The names are shifted against the rows, so
pictures are called as in `fer2013`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from ampnet_opt.datasets import fer2013
from ampnet_opt.datasets.disk import first_file, left_out, read_table, whole_number
from ampnet_opt.datasets.picture import Dataset
from ampnet_opt.errors import MisuseError
from ampnet_opt.labels import PRESETS

CLASSES = PRESETS["ferplus"]
TABLE = "fer2013new.csv"
NO_CLASS = ("unknown", "NF")
MOST_VOTES = 100  # ten in the published table


def recognises(path: Path) -> bool:
    return path.name == TABLE if path.is_file() else (path / TABLE).is_file()


def read(path: Path) -> Dataset:
    """Raises MisuseError for a missing table or column, malformed rows, or tables that do not go together."""
    table = path if path.is_file() else first_file([path / TABLE], "FER+", path)
    columns = ["Usage", "Image name", *CLASSES, *NO_CLASS]
    votes = list(read_table(table, columns))
    pixels = first_file([table.with_name(fer2013.TABLE)], f"pictures for {TABLE}, which has votes only", table.parent)
    rows = fer2013.read_rows(pixels)
    if len(rows) != len(votes):
        raise MisuseError(f"{table} has {len(votes)} rows, but {pixels} has {len(rows)}; they go together row by row")
    pictures = []
    dropped: Counter[str] = Counter()
    for row, (where, entry) in zip(rows, votes, strict=True):
        if fer2013.split_of(entry["Usage"], where) != row.split:
            raise MisuseError(f"{where}: Usage is {entry['Usage']}, but {row.split} in the same row of {pixels}")
        counts = {name: whole_number(entry[name], range(MOST_VOTES + 1), f"votes for {name}", where) for name in columns[2:]}
        winner = majority(counts) if entry["Image name"] else "unnamed"
        if winner in CLASSES:
            pictures.append(replace(row, label=winner))
        else:
            dropped[winner] += 1
    reasons = {"unnamed": "no name", "": "no majority", "unknown": "unknown by majority", "NF": "no face by majority"}
    notes = tuple(f"{left_out(dropped[why])}: {text}." for why, text in reasons.items() if dropped[why])
    return Dataset("ferplus", CLASSES, pictures, notes)


def majority(votes: dict[str, int]) -> str:
    """Who has more than half of the votes when single ones are dropped, or ""."""
    counted = {name: count for name, count in votes.items() if count > 1}
    best = max(counted, key=lambda name: counted[name], default="")
    return best if best and 2 * counted[best] > sum(counted.values()) else ""
