"""Our own table (`ampnet_opt.faces`): a CSV of files, labels, splits and landmarks, or a folder that holds faces.csv."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from ampnet_opt.datasets.disk import first_file
from ampnet_opt.datasets.folders import SPLITS
from ampnet_opt.datasets.naming import is_number, name_labels
from ampnet_opt.datasets.picture import Dataset, Picture, Skipped
from ampnet_opt.errors import MisuseError
from ampnet_opt.faces import COLUMNS, read_faces

TABLE = "faces.csv"


def recognises(path: Path) -> bool:
    return path.suffix.lower() == ".csv" if path.is_file() else (path / TABLE).is_file()


def is_table(path: Path) -> bool:
    """Whether a file, or the faces.csv of a folder, has the columns of faces."""
    table = path if path.is_file() else path / TABLE
    return table.is_file() and {"file", *COLUMNS} <= set(_head(table))


def read(path: Path, given: str | None = None, numbering: str | None = None) -> Dataset:
    """Classes are the labels in alphabetical order; a table without the column label has none.

    given, numbering: what labels mean that are numbers, or that the user chooses from, as of `naming.name_labels`. Raises
    MisuseError as that and `read_faces` do.
    """
    table = path if path.is_file() else first_file([path / TABLE], "table of faces", path)
    head = _head(table)
    if "emotion" in head and "pixels" in head:
        raise MisuseError(f"{table} has FER-2013's columns: if its numbers are FER-2013's too, pass --format fer2013")
    labelled = "label" in head
    faces = read_faces(table, labelled=labelled)
    strange = sorted({face.split for face in faces if face.split and face.split.lower() not in SPLITS})
    if strange:
        raise MisuseError(f"{table} has rows of split {', '.join(strange)}, allowed are {', '.join(SPLITS)}")
    classes, of, notes = _named({face.label for face in faces} - {""}, table, given, numbering)
    folder = table.parent / "images"
    pictures = [
        Picture(
            _name(face.file, folder if folder.is_dir() else table.parent),
            of.get(face.label, ""),
            SPLITS.get(face.split.lower(), ""),
            face.file,
            landmarks=face.landmarks,
        )
        for face in faces
    ]
    out = [
        Skipped(picture.name, "a label that --classes leaves out", face.label, face.file)
        for picture, face in zip(pictures, faces, strict=True)
        if face.label and not picture.label
    ]
    names = {skipped.name for skipped in out}
    pictures = [picture for picture in pictures if picture.name not in names] if out else pictures
    return Dataset("csv", classes, pictures, notes, tuple(out), why=lambda parts: f"no row in {table.name}")


def _named(
    labels: set[str], table: Path, given: str | None, numbering: str | None
) -> tuple[tuple[str, ...], Mapping[str, str], tuple[str, ...]]:
    """The classes, the class of each label, and notes. Words stand for themselves, unless the user says otherwise."""
    if not labels or (given is None and not any(map(is_number, labels))):
        return tuple(sorted(labels)), {label: label for label in labels}, ()
    named = name_labels(labels, f"the labels in {table}", given, numbering)
    return named.classes, named.of, named.notes


def _head(table: Path) -> list[str]:
    """The names of the columns. Raises MisuseError where there can be none."""
    try:
        with open(table, newline="", encoding="utf-8-sig", errors="replace") as stream:
            return [name.strip() for name in next(csv.reader(stream), [])]
    except csv.Error as error:
        raise MisuseError(f"{table} is not a readable CSV file: {error}") from error


def _name(file: Path, folder: Path) -> str:
    return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()
