"""Faces on disk: a CSV of labels and landmarks, images beside it. numpy and Pillow only."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.files import PathLike, sha256
from ampnet_opt.core.graph_interface import IMAGE_SIDE
from ampnet_opt.core.pictures import Photo, opened_photo
from ampnet_opt.core.row_matching import IMAGES, own_picture, picture_folders, rows_of, source_of
from ampnet_opt.core.tables import Table, find_table, parse_number, read_table
from ampnet_opt.core.text import count, listed, one_line, plain_cell
from ampnet_opt.faces.landmark_checks import AUTO, Given, to_pixels
from ampnet_opt.faces.repeats import first_of_each, require_agreement

log = logging.getLogger(__name__)

POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
COLUMNS = [f"{point}_{axis}" for point in POINTS for axis in "xy"]
# What `ampnet-opt prepare` adds: the size of the row's own picture, and what it was made from: a picture of the data set,
# its size, and the square of it that became this one (empty where it was kept whole). All in pixels, upright.
SIZE = ["picture_width", "picture_height"]
ORIGIN = ["source", "source_width", "source_height", "box_x", "box_y", "box_width", "box_height"]
FARTHEST = 1e6  # pixels; a landmark farther out is no landmark
ALL = "all"  # as a split: every row


@dataclass(frozen=True)
class Face:
    """One row of the data file.

    landmarks: float32 [5, 2], (x, y) in pixels of the upright picture, that is after its EXIF orientation is applied; (0, 0)
    is the outer corner of the top left pixel. label, split: "" if none. size: (width, height) that the picture must have,
    where the table says so. line: of the table, 0 if none.
    """

    file: Path
    landmarks: np.ndarray
    label: str = ""
    split: str = ""
    size: Optional[Tuple[int, int]] = None
    line: int = 0


def read_faces(
    path: PathLike,
    split: Optional[str] = None,
    labelled: bool = True,
    form: str = AUTO,
    whole: bool = False,
    *,
    repeats: bool = False,
) -> List[Face]:
    """Rows of a table with the columns file, label, split and the five landmarks (`COLUMNS`), or of a folder's faces.csv.

    The table is CSV by commas, semicolons or tabs. Images lie in `images/` beside it, or right beside it. split: only the
    rows of that split ("all": every row). labelled: whether every row must have a label, and the table the column label
    (and split, unless whole). form: of the landmarks, see `landmark_formats`. whole: take all rows of a table without any
    split, instead of refusing it. Raises MisuseError that names the missing columns or files, or the row that lacks a label
    or five finite landmarks, or whose landmarks cannot be a face's; warns of improbable ones.

    A row is one face, and a picture may have several, whose landmarks differ clearly. Of rows that repeat a face (the same
    landmarks in the same picture, or in a copy of it under another name) the first is kept, with a warning: they would count
    as independent evidence. labelled: MisuseError names the lines where one face of one picture has two labels, splits or
    slightly different landmarks. repeats: keep all rows, for whoever has numbers for each.
    """
    wanted = None if split == ALL else split
    needs_split = not whole and split != ALL and (labelled or wanted is not None)
    name, faces = _read(path, labelled, ["split"] if needs_split else [])
    if labelled:
        require_agreement(name, faces)
    splits = {face.split for face in faces}
    if wanted is not None and not (whole and splits == {""}):
        chosen = [face for face in faces if face.split == wanted]
        if not chosen:
            there = f"it has {listed(sorted(splits - {''}), 8)}" if splits != {""} else "no row of it has a split"
            raise MisuseError(f"{name} has no rows of split {wanted!r}; {there}")
        if "" in splits:
            without = sum(not face.split for face in faces)
            log.warning(f"{name}: {count(without, 'row')} without a split left out")
        faces = chosen
    faces = _with_pictures(path, name, faces)
    if not repeats:
        faces = _without_repeats(name, faces, labelled)
    points = to_pixels(_given(name, faces), form)
    return [replace(face, landmarks=own) for face, own in zip(faces, points)]


def read_tables(paths: Sequence[PathLike], split: str, form: str = AUTO) -> List[Face]:
    """Labelled rows of several tables, as of `read_faces`; of a face in two of them, the earlier row is kept."""
    faces = [face for path in paths for face in read_faces(path, split, form=form)]
    return _without_repeats(listed(paths), faces, True)


def _without_repeats(tables: str, faces: Sequence[Face], labelled: bool) -> List[Face]:
    """The first row of each face, and a warning of the others."""
    first = first_of_each(faces)
    repeats = [(faces[row], face) for row, face in zip(first, faces) if face is not faces[row]]
    if repeats:
        kept, repeat = repeats[0]
        others = sum(one.label != other.label for one, other in repeats) if labelled else 0
        log.warning(
            f"{tables}: {count(len(repeats), 'row')} left out, with a face that another row has: line {repeat.line} "
            f"({one_line(repeat.file.name, 80)}) repeats line {kept.line} ({one_line(kept.file.name, 80)})"
            + (f"; {others} under another label" if others else "")
        )
    return [faces[row] for row in sorted(set(first))]


def read_rows(path: PathLike, labelled: bool) -> List[Face]:
    """All rows of a table as `read_faces` reads them, but with their landmarks as they stand, unjudged."""
    return _with_pictures(path, *_read(path, labelled, []))


def _read(path: PathLike, labelled: bool, columns: Sequence[str]) -> Tuple[str, List[Face]]:
    file = find_table(path, "data file")
    if not file.is_file():
        raise MisuseError(f"data file {one_line(file)} is not a file; it is read more than once, so a pipe cannot be used")
    table = read_table(file, ["file", *(["label"] if labelled else []), *columns, *COLUMNS], "data file")
    folder = picture_folders(table.folder)[0]
    faces = [_face(table, folder, line, row, labelled) for line, row in table.rows]
    if not faces:
        raise MisuseError(f"{table.name} has no rows")
    return table.name, faces


def _with_pictures(path: PathLike, table: str, faces: Sequence[Face]) -> List[Face]:
    """The faces with the files that their names stand for; MisuseError when any do not exist."""
    places = picture_folders(find_table(path, "data file").parent)
    found, absent = list(faces), []
    for row, face in enumerate(faces):
        if os.path.isfile(face.file):  # of names that are too long for files, too
            continue
        inside = face.file.parts[: len(places[0].parts)] == places[0].parts
        name = str(face.file.relative_to(places[0])) if inside else str(face.file)
        found[row] = replace(face, file=own_picture(places, name))
        if not os.path.isfile(found[row].file):
            absent.append(face.file)
    if absent:
        images = "an image that does" if len(absent) == 1 else f"{len(absent)} images that do"
        others = " and others" if len(absent) > 1 else ""
        raise MisuseError(f"{table} names {images} not exist: {absent[0]}{others}")
    return found


def read_landmarks(path: PathLike, pictures: Sequence[Path], form: str = AUTO) -> List[Face]:
    """Each picture with its landmarks, from a table with the columns file and the five landmarks, which may be a pipe.

    Which row is a picture's, `matching.rows_of` says; other rows are not looked at. form: see `landmark_formats`. Raises
    MisuseError that names the missing columns, the pictures without a row or with two that differ, the row that lacks five
    finite landmarks, or whose landmarks cannot be a face's.
    """
    table = read_table(path, ["file", *COLUMNS], "landmarks file")
    files = [row["file"] for _, row in table.rows]
    sources = [plain_cell(row.get("source", "")) for _, row in table.rows]
    try:
        matched = rows_of(pictures, files, table.folder, table.name)
    except MisuseError:
        there = {Path(file).name for file in files}
        cut = source_of(sources, [picture for picture in pictures if picture.name not in there])
        if cut is not None:
            images = table.folder / IMAGES
            raise MisuseError(
                f"the landmarks in {table.name} are those of faces cut out of {cut}; ask for {images} instead"
            ) from None
        raise
    found: List[Face] = []
    for picture, rows in zip(pictures, matched):
        face, *others = (_face(table, table.folder, *table.rows[row], labelled=False) for row in rows)
        for other in others:
            if not np.array_equal(face.landmarks, other.landmarks):
                raise MisuseError(
                    f"{table.where(other.line)}: {picture} has other landmarks in line {face.line}; keep one row"
                )
        found.append(replace(face, file=picture))
    points = to_pixels(_given(table.name, found), form)
    return [replace(face, landmarks=own) for face, own in zip(found, points)]


def _given(table: str, faces: Sequence[Face]) -> Given:
    points = np.stack([face.landmarks for face in faces]) if faces else np.zeros((0, 5, 2), np.float32)
    return Given(
        table,
        lambda row: f"{one_line(faces[row].file.name, 80)} in line {faces[row].line}",
        points,
        lambda row: faces[row].size or faces[row].file,
    )


def _face(table: Table, folder: Path, line: int, row: Dict[str, str], labelled: bool) -> Face:
    name, label, split = row["file"], plain_cell(row.get("label", "")), plain_cell(row.get("split", ""))
    if not name:
        raise MisuseError(f"{table.where(line)}: the file name is empty")
    points = []
    for column in COLUMNS:
        text, reason = row[column], ""
        try:
            value = parse_number(text)
        except ValueError as error:
            value, reason = math.nan, str(error) if "comma" in str(error) else ""
        if not abs(value) <= FARTHEST:  # true of NaN as well
            said = f"{one_line(text, 40) or 'missing'}, {reason or 'five finite points are needed'}"
            raise MisuseError(f"{table.where(line)}: landmark {column} of {one_line(name, 80)} is {said}")
        points.append(value)
    if labelled and not label:
        raise MisuseError(f"{table.where(line)}: the label of {one_line(name, 80)} is missing")
    size = _size(table.where(line), name, [row.get(column, "") for column in SIZE])
    return Face(folder / name, np.array(points, np.float32).reshape(5, 2), label, split, size, line)


def _size(where: str, name: str, cells: Sequence[str]) -> Optional[Tuple[int, int]]:
    if not any(cells):
        return None
    if not all(cell.isascii() and cell.isdigit() and int(cell[:9]) > 0 for cell in cells):
        raise MisuseError(
            f"{where}: the size of {one_line(name, 80)} is {one_line(' x '.join(cells), 40)}; whole pixels are needed"
        )
    return int(cells[0][:9]), int(cells[1][:9])


def spread(faces: Sequence[Face], most: int) -> List[Face]:
    """`most` of the faces, evenly spread over all, or all of them when there are fewer."""
    return [faces[i * len(faces) // most] for i in range(most)] if most < len(faces) else list(faces)


def load_face(face: Face) -> Tuple[np.ndarray, np.ndarray]:
    """Image uint8 [224, 224, 3] RGB and landmarks float32 [5, 2] in its pixels.

    Raises MisuseError for a picture that cannot be read, has another size than the table says, or does not hold the face.
    """
    with opened_photo(face.file) as photo:
        width, height = photo.size
        require_size(face, width, height)
        x, y = face.landmarks.mean(0)
        if not (0 <= x <= width and 0 <= y <= height):
            shown = one_line(face.file)
            raise MisuseError(f"image {shown} has {width} x {height} pixels; most of its landmarks lie outside")
        return fit_photo(photo, face.landmarks)


def require_size(face: Face, width: float, height: float) -> None:
    """MisuseError when the table says that the face's picture has another size; NaN is an unknown one."""
    if face.size is not None and face.size != (width, height) and not math.isnan(width):
        raise MisuseError(
            f"image {one_line(face.file)} has {width:.0f} x {height:.0f} pixels; its landmarks are those of a picture of "
            f"{face.size[0]} x {face.size[1]}"
        )


def load_batches(faces: Sequence[Face], size: int) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """Images uint8 [n, 224, 224, 3] and landmarks float32 [n, 5, 2] of `size` faces at a time, the last being the rest."""
    for start in range(0, len(faces), size):
        loaded = [load_face(face) for face in faces[start : start + size]]
        yield np.stack([image for image, _ in loaded]), np.stack([points for _, points in loaded])


def fit(image: np.ndarray, landmarks: np.ndarray, size: Optional[Tuple[int, int]] = None) -> Tuple[np.ndarray, np.ndarray]:
    """Scale an image [height, width, 3] to 224 x 224, aspect kept, black borders; its landmarks [5, 2] go with it.

    size: (width, height) of the picture that the landmarks are in pixels of, when the image is a scaled down copy of it.
    """
    if image.shape[:2] == (IMAGE_SIDE, IMAGE_SIDE) and size in (None, (IMAGE_SIDE, IMAGE_SIDE)):
        return image, landmarks
    return fit_photo(Photo(Image.fromarray(image), size or (image.shape[1], image.shape[0])), landmarks)


def fit_photo(photo: Photo, landmarks: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """As `fit`, of a picture that was just opened."""
    width, height = photo.size
    if (height, width) == (IMAGE_SIDE, IMAGE_SIDE):
        return np.asarray(photo.image), landmarks
    scale = IMAGE_SIDE / max(height, width)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (IMAGE_SIDE - new_width) // 2, (IMAGE_SIDE - new_height) // 2
    canvas = np.zeros((IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
    resized = photo.image.resize((new_width, new_height), Image.Resampling.BILINEAR)
    canvas[top : top + new_height, left : left + new_width] = np.asarray(resized)
    factor = np.array([new_width / width, new_height / height], np.float32)
    return canvas, (landmarks * factor + np.array([left, top], np.float32)).astype(np.float32)


def fingerprint(faces: Sequence[Face]) -> str:
    """SHA-256 over every image's bytes and landmarks, in order: equal for equal data, wherever it lies."""
    digest = hashlib.sha256()
    for face in faces:
        digest.update(sha256(face.file).encode())
        digest.update(np.ascontiguousarray(face.landmarks, "<f4").tobytes())
    return digest.hexdigest()


def identity(face: Face) -> str:
    """16 hexadecimal digits that a face shares with its copies alone: of its picture's bytes and its landmarks."""
    return fingerprint([face])[:16]
