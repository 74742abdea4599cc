"""The table that `prepare` writes: a CSV of files, labels, splits and landmarks, or a folder that holds faces.csv."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.row_matching import picture_folders
from ampnet_opt.core.tables import NAME, read_table
from ampnet_opt.datasets.folders import SPLITS
from ampnet_opt.datasets.labelled_picture import Dataset, Picture, Skipped
from ampnet_opt.datasets.listing import first_file
from ampnet_opt.datasets.naming import is_number, name_labels
from ampnet_opt.faces.face import COLUMNS, read_rows, require_size
from ampnet_opt.faces.landmark_checks import size_of


def recognises(path: Path) -> bool:
    return path.suffix.lower() == ".csv" if path.is_file() else (path / NAME).is_file()


def is_table(path: Path) -> bool:
    """Whether a file, or the faces.csv of a folder, has the columns of faces."""
    try:
        read_table(path, ["file", *COLUMNS], "table of faces")
    except MisuseError:
        return False
    return True


def read(path: Path, given: str | None = None, numbering: str | None = None) -> Dataset:
    """Classes are the labels in alphabetical order; a table without the column label has none.

    given, numbering: what labels mean that are numbers, or that the user chooses from, as of `naming.name_labels`. Raises
    MisuseError as that and `read_rows` do.
    """
    table = path if path.is_file() else first_file([path / NAME], "table of faces", path)
    head = read_table(table, [], "table of faces").columns
    if "emotion" in head and "pixels" in head:
        raise MisuseError(f"{table} has FER-2013's columns: if its numbers are FER-2013's too, pass --format fer2013")
    faces = read_rows(table, "label" in head)
    for face in faces:
        if face.size is not None:
            require_size(face, *size_of(face.file)[:2])
    strange = sorted({face.split for face in faces if face.split and face.split.lower() not in SPLITS})
    if strange:
        raise MisuseError(f"{table} has rows of split {', '.join(strange)}, allowed are {', '.join(SPLITS)}")
    classes, of, notes = _named({face.label for face in faces} - {""}, table, given, numbering)
    folder = picture_folders(table.parent)[0]
    pictures = [
        Picture(
            _name(face.file, folder),
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


def _name(file: Path, folder: Path) -> str:
    return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()
