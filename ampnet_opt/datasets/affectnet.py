"""AffectNet, as published with a file of annotations for each picture.

As published (Mollahosseini, Hasani and Mahoor, "AffectNet", IEEE Transactions on Affective Computing 10(1), 2019; the
download of 8 labels): `train_set/images/1.jpg`, `train_set/annotations/1_exp.npy` with the label and `1_lnd.npy` with 68
points, x and y in turn, and the same in `val_set/`. Labels 0 to 7 are neutral, happiness, sadness, surprise, fear, disgust,
anger, contempt; where no picture has 7, the data set is the one of seven classes.

Five landmarks of the 68 (the order of Multi-PIE, from 0): the eyes are the means of points 36 to 41 and 42 to 47, the nose
is 30, the corners of the mouth are 48 and 54.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.datasets.labelled_picture import Dataset, Picture
from ampnet_opt.datasets.listing import pictures_in, refuse_missing, whole_number
from ampnet_opt.datasets.naming import affectnet_classes
from ampnet_opt.datasets.npy import load_npy
from ampnet_opt.faces.face import FARTHEST

CLASSES = PRESETS["affectnet8"]
SETS = {"train_set": "train", "val_set": "val"}


def recognises(path: Path) -> bool:
    return any((path / part / "annotations").is_dir() for part in SETS)


def read(path: Path) -> Dataset:
    """Raises MisuseError for missing folders or pictures, and annotations that are damaged or out of range."""
    pictures = [picture for part in SETS if (path / part).is_dir() for picture in _read_set(path, part)]
    if not pictures:
        raise MisuseError(
            f"{path} holds no AffectNet: neither train_set/annotations nor val_set/annotations has files N_exp.npy, "
            "and there are no class folders called 0 to 7"
        )
    classes = affectnet_classes({picture.label for picture in pictures})
    return Dataset("affectnet", classes, pictures, why=lambda parts: "no annotation N_exp.npy")


def five_points(points: np.ndarray) -> np.ndarray:
    """Landmarks [5, 2] of 68 points [68, 2]: eyes' centres, tip of the nose, corners of the mouth."""
    return np.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]]).astype(np.float32)


def _read_set(path: Path, part: str) -> Iterator[Picture]:
    annotations, images = path / part / "annotations", path / part / "images"
    for folder in (annotations, images):
        if not folder.is_dir():
            raise MisuseError(f"{path} holds no AffectNet in {part}: there is no folder {folder.relative_to(path)}")
    there = {file.name for file in annotations.iterdir()}
    names = sorted(name.removesuffix("_exp.npy") for name in there if name.endswith("_exp.npy"))
    files = {file.stem: file for file in pictures_in(images)}
    refuse_missing([f"{name}.jpg" for name in names if name not in files], len(names), annotations)
    for name in names:
        points = annotations / f"{name}_lnd.npy"
        file = files[name]
        yield Picture(
            file.relative_to(path).as_posix(),
            _label(annotations / f"{name}_exp.npy"),
            SETS[part],
            file,
            landmarks=_landmarks(points) if points.name in there else None,
        )


def _label(file: Path) -> str:
    value = load_npy(file, "annotation")
    if value.size != 1:
        raise MisuseError(f"annotation {file} has the shape {list(value.shape)}; one label is needed")
    label = value.reshape(()).item()
    if not isinstance(label, (str, int, float)):
        raise MisuseError(f"annotation {file} holds no label")
    text = str(label)
    return CLASSES[whole_number(text.removesuffix(".0"), range(len(CLASSES)), "the label", str(file))]


def _landmarks(file: Path) -> np.ndarray:
    values = load_npy(file, "annotation")
    if values.shape not in {(136,), (68, 2)}:
        raise MisuseError(f"annotation {file} has the shape {list(values.shape)}; 68 points are needed, [136] or [68, 2]")
    try:
        points = values.astype(np.float64).reshape(68, 2)
    except (TypeError, ValueError):
        points = np.full((68, 2), np.nan)
    if not (np.abs(points) <= FARTHEST).all():  # false of NaN as well
        raise MisuseError(f"annotation {file} has points that are not finite numbers")
    return five_points(points)
