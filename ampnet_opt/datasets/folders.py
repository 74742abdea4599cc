"""A folder of class folders, with or without split folders above them, as FER-2013 and many others are passed on.

`happy/1.jpg`, or `train/happy/1.jpg`, `validation/happy/2.jpg`, `test/happy/3.jpg`. Classes are named by their folders, with
our word where there is one (`Happy` is happiness), in the order of the folders' names.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ampnet_opt.datasets.disk import folders_in, pictures_in
from ampnet_opt.datasets.picture import Dataset, Picture
from ampnet_opt.errors import MisuseError
from ampnet_opt.labels import canonical

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def recognises(path: Path) -> bool:
    return path.is_dir() and not pictures_in(path) and len(_classes(path)) > 1


def read(path: Path) -> Dataset:
    """Raises MisuseError when there are fewer than two classes, or no pictures in any."""
    classes = _classes(path) if path.is_dir() else ()
    if len(classes) < 2:
        found = f"there is only {classes[0]}" if classes else "there is none"
        raise MisuseError(f"{path} needs at least two class folders, right in it or in train, val and test; {found}")
    return read_folders("folders", path, classes, canonical)


def class_folders(path: Path) -> tuple[list[tuple[str, Path]], list[Path]]:
    """The class folders with their split, and the folders that are left out because they stand beside splits."""
    inside = folders_in(path)
    splits = [folder for folder in inside if folder.name.lower() in SPLITS]
    if not splits:
        return [("", folder) for folder in inside], []
    found = [(SPLITS[split.name.lower()], folder) for split in splits for folder in folders_in(split)]
    return found, [folder for folder in inside if folder not in splits]


def read_folders(format: str, path: Path, classes: tuple[str, ...], label: Callable[[str], str]) -> Dataset:
    """The pictures in all class folders; label: a folder's name to the class, one of `classes`."""
    folders, others = class_folders(path)
    notes = [f"Folder {folder.name} was left out: it is neither train, val nor test." for folder in others]
    pictures = []
    for split, folder in folders:
        inside = pictures_in(folder)
        if not inside:
            notes.append(f"Class folder {folder.relative_to(path).as_posix()} holds no pictures.")
        pictures += [Picture(file.relative_to(path).as_posix(), label(folder.name), split, file) for file in inside]
    if not pictures:
        raise MisuseError(f"the class folders in {path} hold no pictures, all {len(folders)} are empty")
    return Dataset(format, classes, pictures, tuple(notes))


def _classes(path: Path) -> tuple[str, ...]:
    names = sorted({folder.name for _, folder in class_folders(path)[0]})
    return tuple(dict.fromkeys(canonical(name) for name in names))
