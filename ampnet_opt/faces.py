"""Faces on disk: a CSV of labels and landmarks, images beside it. numpy and Pillow only."""

from __future__ import annotations

import csv
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ampnet_opt.errors import MisuseError
from ampnet_opt.files import PathLike, require_file, sha256

SIDE = 224
SMALLEST_SIDE = 16  # pixels; a smaller picture holds no face that could be read
POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
COLUMNS = [f"{point}_{axis}" for point in POINTS for axis in "xy"]
# A palette may hold transparency and CMYK needs a colour profile: the first is handled, the second refused.
SIXTEEN_BIT = {"I;16", "I;16B", "I;16L", "I;16N", "I"}


@dataclass(frozen=True)
class Face:
    """One row: an image file, its five landmarks float32 [5, 2] in pixels of that file, its label and split ("" if none)."""

    file: Path
    landmarks: np.ndarray
    label: str = ""
    split: str = ""


def read_faces(path: PathLike, split: Optional[str] = None, labelled: bool = True) -> List[Face]:
    """Rows of a CSV with the columns file, label, split and the five landmarks; images in `images/` beside it.

    split: only the rows of that split. labelled: whether label and split must be there. Raises MisuseError that names
    the missing columns or files, or the row whose landmarks are missing or not finite.
    """
    table = require_file(path, "data file")
    try:
        with open(table, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [
                c
                for c in ["file", *(["label", "split"] if labelled else []), *COLUMNS]
                if c not in (reader.fieldnames or [])
            ]
            if missing:
                raise MisuseError(f"{table} has no column {', '.join(missing)}")
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise MisuseError(f"{table} is not a readable CSV file: {error}") from error
    if labelled and split is not None:
        found = sorted({row["split"] for _, row in rows})
        rows = [(line, row) for line, row in rows if row["split"] == split]
        if not rows:
            raise MisuseError(f"{table} has no rows of split {split!r}; it has {', '.join(found) or 'none'}")
    if not rows:
        raise MisuseError(f"{table} has no rows")
    folder = table.parent / "images"
    faces = [_face(table, line, row, folder if folder.is_dir() else table.parent) for line, row in rows]
    absent = [face.file for face in faces if not face.file.is_file()]
    if absent:
        raise MisuseError(f"{table} names {len(absent)} images that do not exist, the first being {absent[0]}")
    return faces


def _face(table: Path, line: int, row: Dict[str, str], folder: Path) -> Face:
    where = f"{table}, line {line}"
    if not row["file"]:
        raise MisuseError(f"{where}: the file name is empty")
    values = []
    for column in COLUMNS:
        try:
            value = float(row[column] or "")
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise MisuseError(
                f"{where}: landmark {column} of {row['file']} is {row[column] or 'missing'!s}; five finite points are needed"
            )
        values.append(value)
    points = np.array(values, np.float32).reshape(5, 2)
    return Face(folder / row["file"], points, (row.get("label") or "").strip(), (row.get("split") or "").strip())


def load_face(face: Face) -> Tuple[np.ndarray, np.ndarray]:
    """Image uint8 [224, 224, 3] RGB and landmarks float32 [5, 2] in its pixels."""
    return fit(read_image(face.file), face.landmarks)


def load_batches(faces: Sequence[Face], size: int) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """Images uint8 [n, 224, 224, 3] and landmarks float32 [n, 5, 2] of `size` faces at a time, the last being the rest."""
    for start in range(0, len(faces), size):
        loaded = [load_face(face) for face in faces[start : start + size]]
        yield np.stack([image for image, _ in loaded]), np.stack([points for _, points in loaded])


def read_image(path: PathLike) -> np.ndarray:
    """A picture as uint8 [height, width, 3] RGB, turned upright by its EXIF orientation.

    Grey, palette and 16-bit pictures are converted, transparency is laid over black. Raises MisuseError for a file that
    is missing, empty, damaged, CMYK or smaller than 16 pixels a side.
    """
    file = require_file(path, "image")
    if file.stat().st_size == 0:
        raise MisuseError(f"image {file} is empty")
    try:
        with Image.open(file) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened) or opened
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        reason = "it is no picture" if isinstance(error, UnidentifiedImageError) else str(error)
        raise MisuseError(f"image {file} cannot be read: {reason}") from error
    if picture.mode in {"CMYK", "YCCK", "LAB"}:
        raise MisuseError(f"image {file} is {picture.mode}, whose colours depend on a profile; convert it to RGB first")
    if min(picture.size) < SMALLEST_SIDE:
        raise MisuseError(
            f"image {file} is {picture.width} x {picture.height} pixels; at least {SMALLEST_SIDE} a side are needed"
        )
    return np.asarray(_to_rgb(picture))


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in SIXTEEN_BIT:
        return Image.fromarray((np.asarray(picture, np.float64) / 257).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        return Image.fromarray(np.asarray(picture).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in {"LA", "RGBA", "PA", "La", "RGBa"} or "transparency" in picture.info:
        coloured = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", coloured.size, (0, 0, 0, 255)), coloured).convert("RGB")
    return picture.convert("RGB")


def fit(image: np.ndarray, landmarks: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Scale an image [height, width, 3] to 224 x 224, aspect kept, black borders; its landmarks [5, 2] go with it."""
    height, width = image.shape[:2]
    if (height, width) == (SIDE, SIDE):
        return image, landmarks
    scale = SIDE / max(height, width)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (SIDE - new_width) // 2, (SIDE - new_height) // 2
    canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
    resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
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
