"""Which formats there are, and which one a path is in."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Protocol

from ampnet_opt.datasets import affectnet, authors, fer2013, ferplus, folders, own, photos, rafdb
from ampnet_opt.datasets.picture import Dataset
from ampnet_opt.errors import MisuseError
from ampnet_opt.files import PathLike


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


def read_dataset(path: PathLike, format: str | None = None) -> Dataset:
    """The pictures of a data set on disk; format: one of `FORMATS`, by default the first that recognises the path.

    Raises MisuseError when the path does not exist, no format or not the named one fits, or the data is malformed: one
    sentence that names the file, and the line where there is one.
    """
    place = Path(path)
    if format is not None and format not in FORMATS:
        raise MisuseError(f"there is no format {format!r}; the formats are {', '.join(FORMATS)}")
    if not place.exists():
        raise MisuseError(f"data set {place} does not exist")
    found = format or next((name for name, reader in FORMATS.items() if reader.recognises(place)), None)
    if found is None:
        raise MisuseError(f"{place} is in no format that is known here: {', '.join(FORMATS)}")
    dataset = FORMATS[found].read(place)
    name, count = Counter(picture.name for picture in dataset.pictures).most_common(1)[0] if dataset.pictures else ("", 0)
    if count != 1:
        raise MisuseError(f"{place} names {name} {count} times" if count else f"{place} has no pictures that could be used")
    return dataset
