"""Faces on disk: a CSV of labels and landmarks, images beside it. numpy and Pillow only."""

from __future__ import annotations

import csv
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Collection, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image

from ampnet_opt.errors import MisuseError
from ampnet_opt.files import PathLike, require_file, sha256
from ampnet_opt.pictures import Photo, opened_photo
from ampnet_opt.text import plain_cell

SIDE = 224
POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
COLUMNS = [f"{point}_{axis}" for point in POINTS for axis in "xy"]
FARTHEST = 1e6  # pixels; a landmark farther out is no landmark


@dataclass(frozen=True)
class Face:
    """One row of the data file.

    landmarks: float32 [5, 2], (x, y) in pixels of the upright picture, that is after its EXIF orientation is applied; (0, 0)
    is the outer corner of the top left pixel. label, split: "" if none.
    """

    file: Path
    landmarks: np.ndarray
    label: str = ""
    split: str = ""


def read_faces(path: PathLike, split: Optional[str] = None, labelled: bool = True) -> List[Face]:
    """Rows of a CSV (UTF-8) with the columns file, label, split and the five landmarks (`COLUMNS`).

    Images lie in `images/` beside the CSV, or right beside it if there is no such folder. split: only the rows of that
    split. labelled: whether every row must have a label, and the file the columns label and split. Raises MisuseError that
    names the missing columns or files, or the row that lacks a label or five finite landmarks.
    """
    table = require_file(path, "data file")
    rows = _rows(table, [*(["label", "split"] if labelled else ["split"] if split is not None else []), *COLUMNS])
    folder = table.parent / "images"
    faces = [_face(where, row, folder if folder.is_dir() else table.parent, labelled) for where, row in rows]
    if not faces:
        raise MisuseError(f"{table} has no rows")
    if split is not None:
        found = sorted({face.split for face in faces} - {""})
        faces = [face for face in faces if face.split == split]
        if not faces:
            raise MisuseError(f"{table} has no rows of split {split!r}; it has {', '.join(found) or 'none'}")
    absent = [face.file for face in faces if not face.file.is_file()]
    if absent:
        images = "an image that does" if len(absent) == 1 else f"{len(absent)} images that do"
        raise MisuseError(f"{table} names {images} not exist: {absent[0]}{' and others' if len(absent) > 1 else ''}")
    return faces


def read_landmarks(path: PathLike, names: Collection[str]) -> Dict[str, np.ndarray]:
    """Landmarks float32 [5, 2] of the pictures called `names`, from a CSV with the columns file and the five landmarks.

    Other rows are not looked at; folders in the column file are ignored. Raises MisuseError that names the missing columns,
    the pictures without a row, or the row that lacks five finite landmarks.
    """
    table = require_file(path, "landmarks file")
    found: Dict[str, np.ndarray] = {}
    for where, row in _rows(table, COLUMNS):
        name = Path((row["file"] or "").strip()).name
        if name in names:
            found[name] = _face(where, row, table.parent, labelled=False).landmarks
    missing = sorted(set(names) - set(found))
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise MisuseError(f"{table} has no landmarks for {missing[0]}{others}")
    return found


def _rows(table: Path, columns: Sequence[str]) -> List[Tuple[str, Dict[str, str]]]:
    """Rows of a CSV with where they stand, or MisuseError when it cannot be read or lacks the column file or `columns`."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [column for column in ["file", *columns] if column not in (reader.fieldnames or [])]
            if missing:
                raise MisuseError(f"{table} has no column {', '.join(missing)}")
            return [(f"{table}, line {reader.line_num}", row) for row in reader]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise MisuseError(f"{table} is not a readable CSV file: {error}") from error


def _face(where: str, row: Dict[str, str], folder: Path, labelled: bool) -> Face:
    name, label, split = (plain_cell((row.get(column) or "").strip()) for column in ("file", "label", "split"))
    if not name:
        raise MisuseError(f"{where}: the file name is empty")
    if None in row:  # csv keeps what is over under this key
        raise MisuseError(f"{where}: the row of {name} has more values than there are columns")
    points = []
    for column in COLUMNS:
        text = (row[column] or "").strip()
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not abs(value) <= FARTHEST:  # true of NaN as well
            raise MisuseError(f"{where}: landmark {column} of {name} is {text or 'missing'}; five finite points are needed")
        points.append(value)
    if labelled and not label:
        raise MisuseError(f"{where}: the label of {name} is missing")
    return Face(folder / name, np.array(points, np.float32).reshape(5, 2), label, split)


def spread(faces: Sequence[Face], count: int) -> List[Face]:
    """`count` of the faces, evenly spread over all, or all of them when there are fewer."""
    return [faces[i * len(faces) // count] for i in range(count)] if count < len(faces) else list(faces)


def load_face(face: Face) -> Tuple[np.ndarray, np.ndarray]:
    """Image uint8 [224, 224, 3] RGB and landmarks float32 [5, 2] in its pixels."""
    with opened_photo(face.file) as photo:
        return fit_photo(photo, face.landmarks)


def load_batches(faces: Sequence[Face], size: int) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """Images uint8 [n, 224, 224, 3] and landmarks float32 [n, 5, 2] of `size` faces at a time, the last being the rest."""
    for start in range(0, len(faces), size):
        loaded = [load_face(face) for face in faces[start : start + size]]
        yield np.stack([image for image, _ in loaded]), np.stack([points for _, points in loaded])


def fit(image: np.ndarray, landmarks: np.ndarray, size: Optional[Tuple[int, int]] = None) -> Tuple[np.ndarray, np.ndarray]:
    """Scale an image [height, width, 3] to 224 x 224, aspect kept, black borders; its landmarks [5, 2] go with it.

    size: (width, height) of the picture that the landmarks are in pixels of, when the image is a scaled down copy of it.
    """
    if image.shape[:2] == (SIDE, SIDE) and size in (None, (SIDE, SIDE)):
        return image, landmarks
    return fit_photo(Photo(Image.fromarray(image), size or (image.shape[1], image.shape[0])), landmarks)


def fit_photo(photo: Photo, landmarks: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """As `fit`, of a picture that was just opened."""
    width, height = photo.size
    if (height, width) == (SIDE, SIDE):
        return np.asarray(photo.image), landmarks
    scale = SIDE / max(height, width)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (SIDE - new_width) // 2, (SIDE - new_height) // 2
    canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
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
