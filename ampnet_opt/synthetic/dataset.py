"""Drawn faces as data: one face of a seed, a directory of many, and the default data of this tool."""

from __future__ import annotations

import csv
import hashlib
import time
from pathlib import Path
from typing import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from ampnet_opt.core.cache import cache_or_temporary
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.files import PathLike, new_directory, new_file, sha256
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.core.locks import BusyError
from ampnet_opt.core.row_matching import IMAGES
from ampnet_opt.core.tables import NAME as TABLE
from ampnet_opt.faces.face import COLUMNS, Face, read_faces

VERSION = 3  # of the default data: raise it when a seed gives other bytes, or the counts change
SPLITS = ("train", "val", "test")
MOST = 1 << 24  # faces per class and split
DEFAULT_CLASSES = PRESETS["affectnet7"]
DEFAULT_COUNTS = {"train": 37, "val": 37, "test": 100}  # per class: 259, 259 and 700 faces


def face(seed: int, label: str) -> tuple[np.ndarray, np.ndarray]:
    """A face uint8 [224, 224, 3] RGB and its exact landmarks float32 [5, 2] (x, y) in pixels.

    The same seed (0 or more) and label give the same bytes; every pair is drawn independently of all others. Raises
    MisuseError for a label that is not in parameters.EXPRESSIONS.
    """
    from ampnet_opt.synthetic.drawing import draw, photograph
    from ampnet_opt.synthetic.geometry import landmarks
    from ampnet_opt.synthetic.parameters import require_label, sample_person, sample_pose, sample_units

    rng = np.random.default_rng([require_label(label), seed])
    person, pose, units = sample_person(rng), sample_pose(rng), sample_units(rng, label)
    return photograph(draw(person, pose, units, rng), rng), landmarks(person, pose, units)


def split_seed(seed: int, split: str, number: int) -> int:
    """The seed of face `number` of a split: no two of (seed, split, number) share one."""
    if split not in SPLITS:
        raise MisuseError(f"there is no split {split!r}; known are {', '.join(SPLITS)}")
    if not 0 <= number < MOST:
        raise MisuseError(f"a split has at most {MOST} faces of a class")
    return (seed * len(SPLITS) + SPLITS.index(split)) * MOST + number


def write(
    folder: PathLike,
    counts: Mapping[str, int],
    classes: Sequence[str],
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write `faces.csv` and `images/` to a directory that is whole or not there; returns the CSV's path.

    counts: faces per class of each split. progress: called with the number of faces written and of all faces. Raises
    MisuseError for unknown classes or splits, or when there would be no face; AmpnetError when it cannot be written.
    """
    from ampnet_opt.synthetic.parameters import require_label

    for label in classes:
        require_label(label)
    jobs = [
        (split, number, label, split_seed(seed, split, number))
        for split, count in counts.items()
        for number in range(count)
        for label in classes
    ]
    if not jobs:
        raise MisuseError("no faces to draw: name at least one class and a split of one face or more")
    with new_directory(folder) as new:
        (new / IMAGES).mkdir()
        with open(new / TABLE, "w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream)
            rows.writerow(["file", "label", "split", *COLUMNS])
            for done, (split, number, label, own_seed) in enumerate(jobs, 1):
                image, points = face(own_seed, label)
                name = f"{split}_{number:05}_{label}.jpg"
                Image.fromarray(image).save(new / IMAGES / name, quality=95, subsampling=0)
                rows.writerow([name, label, split, *(f"{value:.3f}" for value in points.ravel())])
                if progress is not None:
                    progress(done, len(jobs))
    return Path(folder) / TABLE


def default_faces(split: str | None = None, progress: Callable[[int, int], object] | None = None) -> list[Face]:
    """The default data, seven classes in the splits train and test: drawn once, then read from the user's cache, whole
    as they were drawn; drawn again where they are not.

    progress: called, while they are drawn, with the number of faces written and of all faces."""
    cache = cache_or_temporary(f"synthetic-{VERSION}")
    folder, digest = cache / "faces", cache / "faces.sha256"
    while not digest.is_file() or digest.read_bytes() != _digest(folder):  # a damaged picture is one of something else
        try:
            write(folder, DEFAULT_COUNTS, DEFAULT_CLASSES, progress=progress)
            with new_file(digest) as unfinished:
                unfinished.write_bytes(_digest(folder))
        except BusyError:  # another process draws them
            time.sleep(0.2)
    return read_faces(folder / TABLE, split)


def _digest(folder: Path) -> bytes:
    """SHA-256 of the names and hashes of all files in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256("".join(f"{sha256(path)} {path.name}\n" for path in files).encode()).digest()
