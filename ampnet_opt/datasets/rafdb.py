"""RAF-DB, basic expressions: a list of names and numbers beside the aligned pictures, or folders of class numbers.

As published (Li, Deng and Du, "Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression Recognition in
the Wild", CVPR 2017): `EmoLabel/list_patition_label.txt` with lines like `train_00001.jpg 5`, and that picture as
`Image/aligned/train_00001_aligned.jpg`; all of it may lie in `basic/`, or in one flat folder. The same pictures are also
passed on sorted into `train/1` to `test/7`. Labels 1 to 7 are surprise, fear, disgust, happiness, sadness, anger, neutral.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ampnet_opt.datasets.disk import first_file, read_lines, refuse_missing, whole_number
from ampnet_opt.datasets.folders import class_folders, read_folders
from ampnet_opt.datasets.picture import Dataset, Picture
from ampnet_opt.errors import MisuseError
from ampnet_opt.labels import PRESETS

CLASSES = PRESETS["rafdb"]
NUMBERS = [str(number) for number in range(1, len(CLASSES) + 1)]
LIST = "list_patition_label.txt"


def recognises(path: Path) -> bool:
    return any(place.is_file() for place in _lists(path)) or _numbered(path)


def read(path: Path) -> Dataset:
    """Raises MisuseError for a missing list or picture, or a line that is not a name and a label."""
    if _numbered(path):
        return read_folders("rafdb", path, CLASSES, lambda folder: CLASSES[NUMBERS.index(folder)])
    listed = first_file(_lists(path), "list of RAF-DB", path)
    root = listed.parent.parent if listed.parent.name == "EmoLabel" else listed.parent
    rows = read_list(listed)
    files = locate([name for name, _, _ in rows], [root / "Image" / "aligned", root / "aligned", root])
    refuse_missing([name for name, _, _ in rows if name not in files], len(rows), listed)
    return Dataset("rafdb", CLASSES, [Picture(name, label, split, files[name]) for name, label, split in rows])


def read_list(file: Path) -> list[tuple[str, str, str]]:
    """Name, label and split (by the name's prefix) of every line of a list of RAF-DB."""
    rows = []
    for where, words in read_lines(file, "list"):
        if len(words) != 2:
            raise MisuseError(f"{where}: a picture's name and a label are needed, found {' '.join(words)[:80]!r}")
        split = words[0].partition("_")[0]
        if split not in ("train", "test"):
            raise MisuseError(f"{where}: {words[0]} begins neither with train_ nor with test_, as pictures of RAF-DB do")
        number = whole_number(words[1], range(1, len(CLASSES) + 1), "the label", where)
        rows.append((words[0], CLASSES[number - 1], split))
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


def _lists(path: Path) -> list[Path]:
    return [path / top / LIST for top in ("EmoLabel", "", "basic/EmoLabel", "basic")]


def _numbered(path: Path) -> bool:
    """Whether there are splits with the folders 1 to 7; AffectNet's numbers begin at 0."""
    if not path.is_dir():
        return False
    folders, _ = class_folders(path)
    splits = {split for split, _ in folders} - {""}
    return bool(splits) and sorted((s, f.name) for s, f in folders) == [(s, n) for s in sorted(splits) for n in NUMBERS]
