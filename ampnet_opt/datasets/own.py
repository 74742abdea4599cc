"""Our own table (`ampnet_opt.faces`): a CSV of files, labels, splits and landmarks, or a folder that holds faces.csv."""

from __future__ import annotations

import csv
from pathlib import Path

from ampnet_opt.datasets.disk import first_file
from ampnet_opt.datasets.folders import SPLITS
from ampnet_opt.datasets.picture import Dataset, Picture
from ampnet_opt.errors import MisuseError
from ampnet_opt.faces import read_faces

TABLE = "faces.csv"


def recognises(path: Path) -> bool:
    return path.suffix.lower() == ".csv" if path.is_file() else (path / TABLE).is_file()


def read(path: Path) -> Dataset:
    """Classes are the labels in alphabetical order; a table without the column label has none.

    Raises MisuseError as `read_faces` does.
    """
    table = path if path.is_file() else first_file([path / TABLE], "table of faces", path)
    with open(table, newline="", encoding="utf-8-sig", errors="replace") as stream:
        labelled = "label" in next(csv.reader(stream), [])
    faces = read_faces(table, labelled=labelled)
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
