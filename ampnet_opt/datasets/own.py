"""Our own table (`ampnet_opt.faces`): a CSV of files, labels, splits and landmarks, or a folder that holds faces.csv."""

from __future__ import annotations

from pathlib import Path

from ampnet_opt.datasets.disk import first_file
from ampnet_opt.datasets.folders import SPLITS
from ampnet_opt.datasets.picture import Dataset, Picture
from ampnet_opt.errors import MisuseError
from ampnet_opt.faces import read_rows, require_size
from ampnet_opt.landmark_checks import size_of
from ampnet_opt.tables import NAME, read_table


def recognises(path: Path) -> bool:
    return path.suffix.lower() == ".csv" if path.is_file() else (path / NAME).is_file()


def read(path: Path) -> Dataset:
    """Classes are the labels in alphabetical order; a table without the column label has none.

    Raises MisuseError as `read_rows` does.
    """
    table = path if path.is_file() else first_file([path / NAME], "table of faces", path)
    labelled = "label" in read_table(table, ["file"], "table of faces").columns
    faces = read_rows(table, labelled)
    for face in faces:
        if face.size is not None:
            require_size(face, *size_of(face.file)[:2])
    strange = sorted({face.split for face in faces if face.split and face.split.lower() not in SPLITS})
    if strange:
        raise MisuseError(f"{table} has rows of split {', '.join(strange)}, allowed are {', '.join(SPLITS)}")
    folder = table.parent / "images"
    pictures = [
        Picture(
            _name(face.file, folder if folder.is_dir() else table.parent),
            face.label,
            SPLITS.get(face.split.lower(), ""),
            face.file,
            landmarks=face.landmarks,
        )
        for face in faces
    ]
    return Dataset("csv", tuple(sorted({face.label for face in faces} - {""})), pictures)


def _name(file: Path, folder: Path) -> str:
    return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()
