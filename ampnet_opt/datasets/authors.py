"""The index of AMP-Net's authors for RAF-DB: `data_label.txt` and `land_marks.npy`, in a folder or in `index/` in it.

Layout: detect_torch.py and util.py of github.com/liuhw01/AMP-Net. data_label.txt is RAF-DB's list (`train_00001.jpg 5`,
labels 1 to 7). land_marks.npy is an array of objects [N, 2], a picture's name (with or without "_aligned") and its five
points (x, y) in pixels of the picture resized to 224 x 224; the pictures, so resized, lie in `dataset/`. A picture in which
the authors' detector found no face is in the list only. Beyond that, a dict of names and points is read, and plain numbers
[N, 5, 2] or [N, 10] in the order of the list; whether they are five x, then five y, their shape tells. The authors write no
classes down for other data sets than RAF-DB, so lists of others are refused.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.graph_interface import IMAGE_SIDE
from ampnet_opt.core.pictures import image_header
from ampnet_opt.datasets.labelled_picture import Dataset, Picture, Skipped
from ampnet_opt.datasets.listing import first_file, refuse_missing
from ampnet_opt.datasets.npy import few_numbers, load_npy
from ampnet_opt.datasets.rafdb import CLASSES, locate, read_list
from ampnet_opt.faces.face import FARTHEST
from ampnet_opt.faces.landmark_checks import typical
from ampnet_opt.faces.landmark_formats import CONVINCING, Form, convert

LIST, POINTS = "data_label.txt", "land_marks.npy"
OTHERWISE = 0.5  # share of pictures that have to be faces as they stand


def recognises(path: Path) -> bool:
    return any(place.is_file() for place in _places(path, LIST))


def read(path: Path) -> Dataset:
    """Raises MisuseError for a missing file or picture, a malformed line, or landmarks that are damaged or ask for code."""
    listed = first_file(_places(path, LIST), "list of AMP-Net's authors", path)
    table = first_file([listed.with_name(POINTS)], "landmarks of AMP-Net's authors", listed.parent)
    rows = read_list(listed)
    points, order = _in_order(_read_points(table, [name for name, _, _ in rows]))
    root = listed.parent.resolve()
    roots = [root, root.parent] if root.name == "index" else [root]
    folders = [root / folder for root in roots for folder in ("dataset", "Image/aligned", "aligned", "images", "")]
    files = locate([name for name, _, _ in rows], folders)
    refuse_missing([name for name, _, _ in rows if name not in files and (name in points or not files)], len(rows), listed)
    pictures = [
        Picture(name, label, split, files[name], landmarks=_fitted(points.get(name), files[name]))
        for name, label, split in rows
        if name in files
    ]
    without = sum(picture.landmarks is None for picture in pictures)
    notes = [f"{table.name} was read as five x, then five y: so read, its points are faces."] if order else []
    if without:
        notes.append(f"{table.name} has no landmarks for {without} of {len(pictures)} pictures.")
    skipped = [Skipped(name, "neither a file nor landmarks") for name, _, _ in rows if name not in files]
    return Dataset(
        "authors", CLASSES, pictures, tuple(notes), tuple(skipped), why=lambda parts: f"not among those of {LIST}"
    )


def _in_order(points: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], bool]:
    """Points (x, y) of each picture, from five x, then five y where that makes faces of what is none as it stands."""
    given = np.stack(list(points.values())) if points else np.zeros((0, 5, 2), np.float32)
    sizes = np.full((len(given), 2), float(IMAGE_SIDE))
    if typical(given, sizes).sum() >= OTHERWISE * len(given):
        return points, False
    turned = convert(given, Form(orders=("five-x-five-y",)), sizes, np.ones(len(given), int))
    if typical(turned, sizes).sum() < CONVINCING * len(given):
        return points, False
    return dict(zip(points, turned)), True


def _places(path: Path, name: str) -> list[Path]:
    return [path / name, path / "index" / name]


def _fitted(points: np.ndarray | None, file: Path) -> np.ndarray | None:
    """Points in pixels of the picture as it lies there, which may not be resized to 224 x 224."""
    if points is None:
        return None
    size = (IMAGE_SIDE, IMAGE_SIDE)
    with contextlib.suppress(AmpnetError):  # what is no picture is refused when it is used
        size = image_header(file)[0]
    return points * (np.array(size, np.float32) / IMAGE_SIDE)


def _read_points(file: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Landmarks float32 [5, 2] in pixels of 224 x 224, by the name in the list."""
    content = load_npy(file, "landmarks file")
    if not content.dtype.hasobject:
        if content.shape not in {(len(names), 5, 2), (len(names), 10)}:
            raise MisuseError(
                f"landmarks file {file} has the shape {list(content.shape)}; {LIST} has {len(names)} lines, so "
                f"[{len(names)}, 5, 2] or [{len(names)}, 10] is needed"
            )
        return {name: _five(row, name, file) for name, row in zip(names, content, strict=True)}
    found: dict[str, np.ndarray] = {}
    for name, row in _pairs(content, file):
        found.setdefault(_plain(name), _five(row, name, file))  # the first of two, as the authors look it up
    return {name: found[_plain(name)] for name in names if _plain(name) in found}


def _pairs(content: np.ndarray, file: Path) -> list[tuple[str, Any]]:
    rows: Any = content.tolist()  # of an array without dimensions, the thing itself
    pairs = [list(pair) for pair in rows.items()] if isinstance(rows, dict) else rows
    if not isinstance(pairs, list) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
    ):
        raise MisuseError(f"landmarks file {file} does not hold pairs of a picture's name and its five points")
    return [(name, row) for name, row in pairs]


def _five(row: Any, name: str, file: Path) -> np.ndarray:
    try:
        points = np.asarray(row if isinstance(row, np.ndarray) else few_numbers(row), np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.shape not in {(5, 2), (10,)} or not (np.abs(points) <= FARTHEST).all():  # false of NaN as well
        raise MisuseError(f"landmarks file {file}: {name} does not have five finite points (x, y)")
    return points.reshape(5, 2).astype(np.float32)


def _plain(name: str) -> str:
    """A name as the list writes it."""
    stem, dot, suffix = Path(name).name.rpartition(".")
    return f"{stem.removesuffix('_aligned')}{dot}{suffix}"
