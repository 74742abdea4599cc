"""Pictures without labels: one file, or those right in a folder; what lies deeper is left out."""

from __future__ import annotations

from pathlib import Path

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.pictures import OTHER_PICTURES, PICTURES, remedy
from ampnet_opt.datasets.labelled_picture import Dataset, Picture
from ampnet_opt.datasets.listing import pictures_in


def recognises(path: Path) -> bool:
    if path.is_dir():
        return any(file.suffix.lower() in PICTURES | OTHER_PICTURES for file in path.iterdir())
    return path.suffix.lower() in PICTURES | OTHER_PICTURES


def read(path: Path) -> Dataset:
    """Raises MisuseError when there is no picture."""
    if path.is_file() and path.suffix.lower() in OTHER_PICTURES:
        raise MisuseError(f"{path}: {path.suffix.lower()} is not read here, {remedy(path.suffix)}")
    files = pictures_in(path) if path.is_dir() else [path] if path.suffix.lower() in PICTURES else []
    if not files and not (path.is_dir() and recognises(path)):
        place = f"folder {path} holds no pictures" if path.is_dir() else f"{path} is no picture"
        raise MisuseError(f"{place} ({', '.join(sorted(PICTURES))})")
    return Dataset(
        "photos", (), [Picture(file.name, file=file) for file in files], why=lambda parts: "in a folder of the folder"
    )
