"""A folder of class folders, with or without split folders above them, as FER-2013 and many others are passed on.

`happy/1.jpg`, or `train/happy/1.jpg`, `validation/happy/2.jpg`, `test/happy/3.jpg`. `naming` says what a class folder's name
means, be it a word or a number. Pictures that lie elsewhere have no label, and are left out.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.labels import KNOWN, canonical
from ampnet_opt.core.text import count, listed
from ampnet_opt.datasets.labelled_picture import Dataset, Picture
from ampnet_opt.datasets.listing import folders_in, holds_pictures, pictures_in
from ampnet_opt.datasets.naming import is_number, name_labels

SPLITS = {
    "train": "train",
    "val": "val",
    "test": "test",
    "valid": "val",
    "validation": "val",
    "training": "train",
    "testing": "test",
    "train_set": "train",  # AffectNet's
    "val_set": "val",
    "test_set": "test",
    "publictest": "val",  # FER-2013's
    "privatetest": "test",
    "fer2013train": "train",  # FER+'s
    "fer2013valid": "val",
    "fer2013test": "test",
}
NAMED = 3  # folders that a message names


def recognises(path: Path) -> bool:
    """Whether there are class folders: known by a name, or by holding pictures where none lie beside them."""
    if not path.is_dir():
        return False
    folders, _ = class_folders(path)
    if named(folders):
        return True
    below = [folder for folder in [*(folder for _, folder in folders), *_splits(path)] if holds_pictures(folder)]
    return bool(below) and not pictures_in(path)


def named(folders: list[tuple[str, Path]]) -> bool:
    """Whether any of the class folders is called by one of our words, or two of them by small numbers."""
    names = {folder.name for _, folder in folders}
    return any(canonical(name) in KNOWN for name in names) or sum(is_number(n) and len(n) < 3 for n in names) > 1


def read(path: Path, given: str | None = None, numbering: str | None = None) -> Dataset:
    """given: `--classes`, numbering: a data set whose numbers the folders have; see `naming.name_labels`.

    Raises MisuseError when there are no class folders, when their names are no classes, or no pictures in any.
    """
    folders, others = class_folders(path) if path.is_dir() else ([], [])
    if not folders:
        raise MisuseError(f"{path} needs class folders, named after expressions, right in it or in train, val and test")
    full = [(split, folder, pictures_in(folder)) for split, folder in folders]
    labels = {folder.name for _, folder, inside in full if inside or holds_pictures(folder)}
    if not labels:
        raise MisuseError(f"the class folders in {path} hold no pictures, all {len(folders)} are empty")
    meaning = name_labels(labels, f"the class folders in {path}", given, numbering)
    notes = list(meaning.notes)
    if others:
        names = listed((folder.name for folder in others), NAMED)
        notes.append(f"{count(len(others), 'folder')} beside train, val and test left out: {names}.")
    empty = [folder.relative_to(path).as_posix() for _, folder, _ in full if folder.name not in labels]
    if empty:
        notes.append(f"{count(len(empty), 'class folder')} without pictures: {listed(empty, NAMED)}.")
    pictures = [
        Picture(file.relative_to(path).as_posix(), meaning.of[folder.name], split, file)
        for split, folder, inside in full
        for file in inside
        if meaning.of[folder.name]
    ]
    aside = {folder.name for folder in others}

    def why(parts: tuple[str, ...]) -> str:
        if parts[0] in aside:
            return "in a folder beside train, val and test"
        inner = parts[1:] if split_of(parts[0]) else parts
        if len(inner) < 2:
            return "no label: in no class folder"
        return "deeper than in a class folder" if meaning.of.get(inner[0]) else "in a folder that --classes leaves out"

    return Dataset(numbering or "folders", meaning.classes, pictures, tuple(notes), why=why)


def class_folders(path: Path) -> tuple[list[tuple[str, Path]], list[Path]]:
    """The class folders with their split, and the folders that stand beside splits.

    Split folders without a folder in any of them are no splits: their pictures have no labels.
    """
    inside, splits = folders_in(path), _splits(path)
    found = [(split_of(split.name), folder) for split in splits for folder in folders_in(split)]
    others = [folder for folder in inside if folder not in splits]
    return (found, others) if found else ([("", folder) for folder in others], [])


def split_of(name: str) -> str:
    """The split that a folder's name stands for, or ""."""
    return SPLITS.get(unicodedata.normalize("NFC", name).lower(), "")


def _splits(path: Path) -> list[Path]:
    return [folder for folder in folders_in(path) if split_of(folder.name)]
