"""What every reader makes of a data set: pictures with a label and a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ampnet_opt.core.pictures import opened_photo


@dataclass(frozen=True)
class Picture:
    """One picture of a data set, before a face was looked for in it.

    name: relative, unique within the data set, "/" between its parts; messages and resumed runs know the picture by it.
    label, split ("train", "val" or "test"): "" where the data set has none. file: where it lies, or pixels: uint8
    [height, width], for data sets that keep pictures inside a table. landmarks: float32 [5, 2] in pixels of the upright
    picture, where the data set gives them.
    """

    name: str
    label: str = ""
    split: str = ""
    file: Path | None = None
    pixels: np.ndarray | None = field(default=None, repr=False)
    landmarks: np.ndarray | None = None

    def read(self) -> tuple[np.ndarray, tuple[int, int]]:
        """uint8 [height, width, 3] RGB, upright, and the (width, height) that landmarks are in pixels of, which is larger
        where a large file is scaled down. Raises MisuseError for a picture that cannot be read."""
        if self.pixels is not None:
            return np.repeat(self.pixels[:, :, None], 3, 2), (self.pixels.shape[1], self.pixels.shape[0])
        assert self.file is not None
        with opened_photo(self.file) as photo:
            return np.asarray(photo.image), photo.size

    def image(self) -> np.ndarray:
        """The pixels of `read`."""
        return self.read()[0]


class Skipped(NamedTuple):
    """A picture that a reader leaves out. name, file: as of `Picture`; reason: the same words for all of a kind."""

    name: str
    reason: str
    detail: str = ""
    file: Path | None = None


@dataclass(frozen=True)
class Dataset:
    """format: the reader's name; classes: in the data set's own order, empty for pictures without labels.

    notes: a sentence each on what the user has to know. skipped: pictures that were left out. why: the reason for a
    picture file that the data set holds and the reader did not take, from the parts of its path in the data set.
    """

    format: str
    classes: tuple[str, ...]
    pictures: list[Picture]
    notes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    why: Callable[[tuple[str, ...]], str] = field(default=lambda parts: "not in the data set's list", compare=False)
