"""FER-2013 as published: one table, `fer2013.csv` or `icml_face_data.csv`, with the pixels of every picture.

Goodfellow et al., "Challenges in Representation Learning", ICONIP 2013. Columns emotion (0 to 6: anger, disgust, fear,
happiness, sadness, surprise, neutral), pixels (48 x 48 grey values of 0 to 255, separated by spaces) and Usage (Training,
PublicTest or PrivateTest: read as train, val and test), in any order, with or without spaces round the names. Pictures are
named by their row, counted from 0.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.datasets.labelled_picture import Dataset, Picture
from ampnet_opt.datasets.listing import first_file, read_table, whole_number

CLASSES = PRESETS["fer2013"]
TABLE = "fer2013.csv"
TABLES = (TABLE, "icml_face_data.csv")  # the second: of the contest's page at Kaggle
SIDE = 48
USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}


def recognises(path: Path) -> bool:
    return path.name in TABLES if path.is_file() else any((path / name).is_file() for name in TABLES)


def read(path: Path) -> Dataset:
    """Raises MisuseError for a missing table or column, and for a row whose label, pixels or usage are malformed."""
    table = path if path.is_file() else first_file([path / name for name in TABLES], "FER-2013", path)
    return Dataset("fer2013", CLASSES, read_rows(table))


def read_rows(table: Path) -> list[Picture]:
    pictures: list[Picture] = []
    for where, row in read_table(table, ["emotion", "pixels", "Usage"]):
        label = CLASSES[whole_number(row["emotion"], range(len(CLASSES)), "emotion", where)]
        name = f"fer2013-{len(pictures):05d}"
        pictures.append(Picture(name, label, split_of(row["Usage"], where), pixels=_pixels(row["pixels"], where)))
    if not pictures:
        raise MisuseError(f"{table} has no rows")
    return pictures


def split_of(usage: str, where: str) -> str:
    if usage.strip() not in USAGES:
        raise MisuseError(f"{where}: Usage is {usage[:80]!r}, allowed are {', '.join(USAGES)}")
    return USAGES[usage.strip()]


def _pixels(text: str, where: str) -> np.ndarray:
    """uint8 [48, 48]"""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # older numpy only warns when it stops at what is no number
            values = np.fromstring(text, np.int64, sep=" ")  # five times as fast as int() of every word
    except (DeprecationWarning, ValueError):
        values = np.array([-1])
    if len(values) and not 0 <= values.min() <= values.max() <= 255:
        raise MisuseError(f"{where}: pixels are not all whole numbers of 0 to 255")
    if len(values) != SIDE * SIDE:
        raise MisuseError(f"{where}: there are {len(values)} pixels, {SIDE} x {SIDE} = {SIDE * SIDE} are needed")
    return values.astype(np.uint8).reshape(SIDE, SIDE)
