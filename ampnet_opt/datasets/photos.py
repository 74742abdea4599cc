"""Pictures without labels: one file, or those right in a folder."""

from __future__ import annotations

from pathlib import Path

from ampnet_opt.datasets.disk import pictures_in
from ampnet_opt.datasets.picture import Dataset, Picture
from ampnet_opt.errors import MisuseError
from ampnet_opt.pictures import PICTURES


def recognises(path: Path) -> bool:
    return bool(pictures_in(path)) if path.is_dir() else path.suffix.lower() in PICTURES


def read(path: Path) -> Dataset:
    """Raises MisuseError when there is no picture; what lies deeper in the folder is not looked at."""
    files = pictures_in(path) if path.is_dir() else [path] if path.suffix.lower() in PICTURES else []
    if not files:
        place = f"folder {path} holds no pictures" if path.is_dir() else f"{path} is no picture"
        raise MisuseError(f"{place} ({', '.join(sorted(PICTURES))})")
    return Dataset("photos", (), [Picture(file.name, file=file) for file in files])
