"""A face that a detector found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import numpy as np

Box = Tuple[float, float, float, float]  # x, y, width, height


@dataclass(frozen=True)
class Detection:
    """box: (x, y, width, height); landmarks: float32 [5, 2], (x, y), image-left eye first; all in pixels. score: 0 to 1."""

    box: Box
    score: float
    landmarks: np.ndarray

    @property
    def side(self) -> float:
        """The longer side of the box in pixels."""
        return max(self.box[2:])

    def moved(self, scale: float, border: float) -> Detection:
        """The same face in the picture that was scaled by `scale`, then given `border` pixels at its left and top."""
        x, y, width, height = self.box
        box = ((x - border) / scale, (y - border) / scale, width / scale, height / scale)
        return Detection(box, self.score, ((self.landmarks - border) / scale).astype(np.float32))

    def shifted(self, right: float, down: float) -> Detection:
        """The same face in an image that has so many more pixels at its left and top."""
        x, y, width, height = self.box
        shift = np.array([right, down], np.float32)
        return Detection((x + right, y + down, width, height), self.score, self.landmarks + shift)

    def stretched(self, across: float, down: float) -> Detection:
        """The same face in an image that is `across` times as wide and `down` times as high."""
        x, y, width, height = self.box
        box = (x * across, y * down, width * across, height * down)
        return Detection(box, self.score, self.landmarks * np.array([across, down], np.float32))


def overlap(one: Tuple[float, ...], other: Tuple[float, ...]) -> float:
    """Intersection over union of two boxes (x, y, width, height)."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / max(one[2] * one[3] + other[2] * other[3] - shared, 1e-9)
