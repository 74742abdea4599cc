"""Faces made unrecognisable, also for a moment after they were last found."""

from __future__ import annotations

from typing import List, Tuple

import numpy as np
from PIL import Image

from ampnet_opt.faces.detection import Box, overlap
from ampnet_opt.pipeline.frames import FrameResult

CELLS, ENLARGED = 5, 1.5  # cells across a hidden face, about; its side as a multiple of the box's: hair, chin and ears too
SMALLEST_CELL = 4  # pixels
KEPT = 1.0  # seconds that a box stays hidden after the face was last found there
SAME = 0.3  # overlap from which a newer box takes the place of an older one


class Lingering:
    """The boxes of faces that were found moments ago and are not found now: a detector may miss one who is still there."""

    def __init__(self) -> None:
        self._seen: List[Tuple[float, Box]] = []

    def update(self, result: FrameResult) -> List[Box]:
        """Add a frame's faces. Returns the older boxes, in pixels of the frame, that none of them takes the place of."""
        if result.frame.name:  # pictures have nothing to do with each other
            return []
        now = result.frame.time
        boxes = [face.detection.box for face in result.faces] + [face.box for face, _ in result.rejected]
        older = [
            (time, old) for time, old in self._seen if now - time <= KEPT and all(overlap(old, box) < SAME for box in boxes)
        ]
        self._seen = older + [(now, box) for box in boxes]
        return [box for _, box in older]


def hide(image: np.ndarray, box: Box) -> None:
    """Replace a face in an image, uint8 [height, width, 3], by cells of a mosaic, each the mean of its pixels, blended.

    Cells are powers of two in size and stand at fixed places of the image. Cells that moved with the box would show other
    means in each frame of a video, from which the face could be computed.
    """
    x, y, width, height = box
    side = ENLARGED * max(width, height)
    cell = max(SMALLEST_CELL, 2 ** round(np.log2(max(1.0, max(width, height) / CELLS))))
    left, top = (max(0, int((middle - side / 2) // cell * cell)) for middle in (x + width / 2, y + height / 2))
    right = min(image.shape[1], int(-((x + width / 2 + side / 2) // -cell) * cell))
    bottom = min(image.shape[0], int(-((y + height / 2 + side / 2) // -cell) * cell))
    if right <= left or bottom <= top:
        return
    part = image[top:bottom, left:right]
    means = Image.fromarray(np.ascontiguousarray(part)).reduce(cell)
    part[:] = np.asarray(means.resize((part.shape[1], part.shape[0]), Image.Resampling.BILINEAR))
