"""The sizes at which a detector searches an image.

Measured on 16 real faces, both networks miss least and place landmarks best when a face is about 100 to 320 pixels wide: at
768, YuNet misses 1 in 5 and is 11 pixels of 224 off instead of 3.
"""

from __future__ import annotations

import math
from typing import List, NamedTuple, Sequence, Tuple

import numpy as np

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.pictures import SMALLEST_SIDE
from ampnet_opt.faces.detection import Detection, overlap

SMALL, LARGE = 320, 1280  # pixels, longest side of what pictures are searched at
BORDER = 0.25  # of the longest side
BEST = 200.0  # pixels
OVERLAP = 0.4
LARGEST = 4096  # pixels, longest side of one pass, which bounds its memory
GRID = 32  # pixels; both networks' largest cell


class Scale(NamedTuple):
    """size: (width, height) that the image is scaled to, by `factor`; `rim`: black pixels ((above, below), (left, right))
    round it, `border` of them above and left."""

    size: Tuple[int, int]
    factor: float
    border: int
    rim: Tuple[Tuple[int, int], Tuple[int, int]]


def two_passes(size: Tuple[int, int]) -> List[Scale]:
    """For pictures, whose faces have any size.

    Every picture is searched at a longest side of 320 pixels, scaled down or up, where a face that fills a photo or a 48
    pixel picture has that size; and larger ones also at their own size, up to 1280, for the small faces. The black border
    round the small one is for faces that fill the picture: YuNet's landmarks are 4 pixels off with it at 128 pixels, 7
    without.
    """
    longest = max(size)
    scales = [_scaled(size, SMALL / longest, round(SMALL * BORDER))]
    return [*scales, _scaled(size, min(longest, LARGE) / longest, 0)] if longest > SMALL else scales


def one_pass(size: Tuple[int, int], min_face: float, smallest: int) -> Scale:
    """For video: the scale at which a face of `min_face` pixels has the `smallest` that the network finds.

    The black rim makes both sides multiples of 32. Raises MisuseError for faces that are too small for the image.
    """
    if not min_face >= SMALLEST_SIDE:  # NaN, too
        raise MisuseError(
            f"faces of {min_face:g} pixels are too small; the smallest to find must be {SMALLEST_SIDE} or more"
        )
    factor = smallest / min_face
    if max(size) * factor > LARGEST:
        least = math.ceil(max(size) * smallest / LARGEST)
        raise MisuseError(
            f"faces of {min_face:g} pixels are too small to be found in an image of {size[0]} x {size[1]}: the smallest to "
            f"find must be {least} pixels or more"
        )
    scaled = _scaled(size, factor, 0)
    width, height = scaled.size
    return scaled._replace(rim=((0, -height % GRID), (0, -width % GRID)))


def _scaled(size: Tuple[int, int], factor: float, border: int) -> Scale:
    width, height = (max(1, round(side * factor)) for side in size)
    return Scale((width, height), factor, border, ((border, border), (border, border)))


def distinct(found: Sequence[Tuple[float, Detection]]) -> List[Detection]:
    """One of each face that was found at two scales: the one whose size, given first, suited the network better."""
    suited = [(abs(float(np.log(max(side, 1.0) / BEST))), face) for side, face in found]
    kept: List[Detection] = []
    for _, face in sorted(suited, key=lambda item: (item[0], item[1].box)):
        if all(overlap(face.box, other.box) < OVERLAP for other in kept):
            kept.append(face)
    return kept
