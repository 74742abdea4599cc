"""One box of each face, where a network finds the same face at several places."""

from __future__ import annotations

from typing import List

import numpy as np

MOST = 5000  # candidates that are looked at, best first: OpenCV's own limit


def suppress(boxes: np.ndarray, scores: np.ndarray, most_overlap: float) -> List[int]:
    """Greedy non-maximum suppression.

    boxes: [N, 4], (x, y, width, height); scores: [N]. Returns the rows to keep, best first: those whose intersection over
    union with each better one that is kept is at most `most_overlap`.
    """
    order = np.argsort(-scores, kind="stable")[:MOST]
    left, top = boxes[:, 0], boxes[:, 1]
    right, bottom = left + boxes[:, 2], top + boxes[:, 3]
    area = boxes[:, 2] * boxes[:, 3]
    kept: List[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        width = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest])
        height = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        union = np.maximum(area[best] + area[rest] - shared, 1e-9)
        order = rest[shared / union <= most_overlap]
    return kept
