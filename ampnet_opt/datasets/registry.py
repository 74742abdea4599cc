"""Which formats there are, and which one a path is in."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.files import PathLike
from ampnet_opt.core.pictures import PICTURES, remedy
from ampnet_opt.core.text import listed
from ampnet_opt.datasets import affectnet, authors, fer2013, ferplus, folders, photos, rafdb
from ampnet_opt.datasets import face_table as own
from ampnet_opt.datasets.labelled_picture import Dataset, Skipped
from ampnet_opt.datasets.listing import HIDDEN, all_pictures
from ampnet_opt.datasets.naming import NUMBERINGS


class Reader(Protocol):
    """What every module of a format has."""

    def recognises(self, path: Path) -> bool: ...

    def read(self, path: Path) -> Dataset: ...


FORMATS: dict[str, Reader] = {  # in the order of detection, the more special before the more general
    "authors": authors,
    "rafdb": rafdb,
    "ferplus": ferplus,
    "fer2013": fer2013,
    "csv": own,
    "affectnet": affectnet,
    "folders": folders,
    "photos": photos,
}
UNREAD = "is not read"  # how the reasons end for which a picture is left out by its suffix
NAMES = (*FORMATS, *(name for name in NUMBERINGS if name not in FORMATS))


def read_dataset(path: PathLike, format: str | None = None, classes: str | None = None) -> Dataset:
    """The pictures of a data set on disk, and those in its folder that are left out, with the reason for each.

    format: one of `NAMES`, by default the first that recognises the path. classes: `--classes`, what class folders or labels
    of a table stand for (`naming.name_labels`). Raises MisuseError when the path does not exist, no format or not the named
    one fits, labels are no classes, or the data is malformed: one sentence that names the file, and the line where there is
    one.
    """
    place = Path(path)
    if format is not None and format not in NAMES:
        raise MisuseError(f"there is no format {format!r}; the formats are {', '.join(NAMES)}")
    if not place.exists():
        raise MisuseError(f"data set {place} does not exist")
    found = format or next((name for name, reader in FORMATS.items() if reader.recognises(place)), None)
    if found is None:
        raise MisuseError(f"{place} is in no format that is known here: {', '.join(FORMATS)}")
    dataset = _read(place, found, classes)
    skipped = (*dataset.skipped, *_unread(place, dataset))
    if not dataset.pictures:
        reasons = Counter(one.reason for one in skipped).most_common()
        counts = f" ({listed(f'{reason}: {number}' for reason, number in reasons)})" if reasons else ""
        convert = next((f"; {one.detail}" for one in skipped if one.reason.endswith(UNREAD)), "")
        raise MisuseError(f"{place} has no pictures that could be used{counts}{convert}")
    name, times = Counter(picture.name for picture in dataset.pictures).most_common(1)[0]
    if times != 1:
        raise MisuseError(f"{place} names {name} {times} times")
    return replace(dataset, skipped=skipped)


def _read(place: Path, format: str, classes: str | None) -> Dataset:
    published = FORMATS.get(format)
    if format in NUMBERINGS and (published is None or not published.recognises(place)):
        if classes is not None:
            raise MisuseError(f"--format {format} names the classes already; leave out --classes")
        if own.is_table(place):
            return own.read(place, numbering=format)
        if place.is_dir() and folders.named(folders.class_folders(place)[0]):
            return folders.read(place, numbering=format)
        if published is None:
            raise MisuseError(f"{place} holds no class folders and no table of faces that {format} could have numbered")
    assert published is not None
    if classes is None:
        return published.read(place)
    if published not in (folders, own):
        raise MisuseError(f"--classes is for class folders and tables of faces; {place} is read as {format}: leave it out")
    return (folders if published is folders else own).read(place, classes)


def _unread(place: Path, dataset: Dataset) -> Iterator[Skipped]:
    """The picture files in the data set's folder that are neither read nor skipped for a reason of its own."""
    if not place.is_dir():
        return
    real = lru_cache(maxsize=None)(os.path.realpath)  # of folders, which are fewer than files

    def key(file: Path) -> tuple[str, str]:
        folder, name = os.path.split(file)
        return real(folder), name

    files = [*(picture.file for picture in dataset.pictures), *(one.file for one in dataset.skipped)]
    seen = {key(file) for file in files if file is not None}
    for file in all_pictures(place):
        if key(file) in seen:
            continue
        inside = file.relative_to(place)
        if any(part.startswith(HIDDEN) for part in inside.parts):
            yield Skipped(inside.as_posix(), "hidden")
        elif file.suffix.lower() not in PICTURES:
            yield Skipped(inside.as_posix(), f"{file.suffix.lower()} {UNREAD}", remedy(file.suffix))
        else:
            yield Skipped(inside.as_posix(), dataset.why(inside.parts))
