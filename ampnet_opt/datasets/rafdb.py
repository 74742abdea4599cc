"""RAF-DB's basic expressions, as published: a list of names and labels, and the aligned pictures.

Layout of the authors' download (Li, Deng and Du, "Reliable Crowdsourcing and Deep Locality-Preserving Learning for
Expression Recognition in the Wild", CVPR 2017): `EmoLabel/list_patition_label.txt` with lines like `train_00001.jpg 5`, and
that picture as `Image/aligned/train_00001_aligned.jpg`; all of it may lie in `basic/`, or in one flat folder. Labels 1 to 7
are surprise, fear, disgust, happiness, sadness, anger, neutral. The same pictures are also passed on in `train/1` to
`test/7`, with `train_labels.csv` and `test_labels.csv` (columns image and label; the folders may lie in `DATASET/`); the
pictures' own names tell that the numbers are RAF-DB's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.datasets.labelled_picture import Dataset, Picture
from ampnet_opt.datasets.listing import first_file, read_lines, read_table, refuse_missing, whole_number

CLASSES = PRESETS["rafdb"]
LIST = "list_patition_label.txt"
TABLES = ("train_labels.csv", "test_labels.csv")
NAME = re.compile(r"(train|test)_\d+_aligned\.(?:jpg|png)")


def recognises(path: Path) -> bool:
    return any(place.is_file() for place in _lists(path)) or _passed_on(path)


def read(path: Path) -> Dataset:
    """Raises MisuseError for a missing list or picture, or a line that is not a name and a label."""
    if not any(place.is_file() for place in _lists(path)) and _passed_on(path):
        return _read_tables(path)
    listed = first_file(_lists(path), "list of RAF-DB", path)
    root = listed.parent.parent if listed.parent.name == "EmoLabel" else listed.parent
    rows = read_list(listed)
    files = locate([name for name, _, _ in rows], [root / "Image" / "aligned", root / "aligned", root])
    refuse_missing([name for name, _, _ in rows if name not in files], len(rows), listed)
    pictures = [Picture(name, label, split, files[name]) for name, label, split in rows]
    return Dataset("rafdb", CLASSES, pictures, why=lambda parts: f"not among the aligned pictures of {LIST}")


def read_list(file: Path) -> list[tuple[str, str, str]]:
    """Name, label and split (by the name's prefix) of every line of a list of RAF-DB."""
    rows = []
    for where, words in read_lines(file, "list"):
        if len(words) != 2:
            raise MisuseError(f"{where}: a picture's name and a label are needed, found {' '.join(words)[:80]!r}")
        split = words[0].partition("_")[0]
        if split not in ("train", "test"):
            raise MisuseError(f"{where}: {words[0]} begins neither with train_ nor with test_, as pictures of RAF-DB do")
        rows.append((words[0], _label(words[1], where), split))
    return rows


def locate(names: Sequence[str], folders: Sequence[Path]) -> dict[str, Path]:
    """The pictures called `names`, with or without "_aligned", in the first of `folders` that holds any of them."""
    for folder in folders:
        there = set(os.listdir(folder)) if folder.is_dir() else set()
        found = {}
        for name in names:
            stem, dot, suffix = name.rpartition(".")
            for candidate in (f"{stem}_aligned{dot}{suffix}", name):
                if candidate in there:
                    found[name] = folder / candidate
                    break
        if found:
            return found
    return {}


def _label(text: str, where: str) -> str:
    return CLASSES[whole_number(text, range(1, len(CLASSES) + 1), "the label", where) - 1]


def _lists(path: Path) -> list[Path]:
    return [path / top / LIST for top in ("EmoLabel", "", "basic/EmoLabel", "basic")]


def _tables(path: Path) -> list[Path]:
    return [path / name for name in TABLES if (path / name).is_file()]


def _passed_on(path: Path) -> bool:
    """Whether there are tables of labels, and the first picture in each is called as RAF-DB's are."""
    tables = _tables(path)
    return bool(tables) and all(_begins_with_rafdb(table) for table in tables)


def _begins_with_rafdb(table: Path) -> bool:
    try:
        _, row = next(read_table(table, ["image", "label"]), ("", {"image": ""}))
    except MisuseError:
        return False
    return NAME.fullmatch(row["image"].strip()) is not None


def _read_tables(path: Path) -> Dataset:
    pictures = []
    for table in _tables(path):
        rows = [(where, row["image"].strip(), row["label"].strip()) for where, row in read_table(table, ["image", "label"])]
        missing = []
        for where, name, number in rows:
            matched = NAME.fullmatch(name)
            if matched is None:
                raise MisuseError(f"{where}: {name[:80]!r} is not called as pictures of RAF-DB are")
            label, split = _label(number, where), matched[1]
            places = [path / top / split / number / name for top in ("DATASET", "")]
            file = next((place for place in places if os.path.isfile(place)), None)
            if file is None:
                missing.append(f"{split}/{number}/{name}")
            else:
                pictures.append(Picture(file.relative_to(path).as_posix(), label, split, file))
        refuse_missing(missing, len(rows), table)
    return Dataset("rafdb", CLASSES, pictures, why=lambda parts: f"no row in {' or '.join(TABLES)}")
