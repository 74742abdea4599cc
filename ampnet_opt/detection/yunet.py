"""YuNet: what it takes, and how its outputs become faces.

Wu, Peng, Yu: YuNet: A Tiny Millisecond-level Face Detector (2023). Its grids have cells of 8, 16 and 32 pixels. Preparing
and decoding are those of OpenCV's FaceDetectorYN (modules/objdetect/src/face_detect.cpp), and give the same faces.
"""

from __future__ import annotations

from typing import Dict, List, Tuple

import numpy as np

from ampnet_opt.detection.suppression import suppress
from ampnet_opt.faces.detection import Detection

NAME = "YuNet"
STRIDES = (8, 16, 32)  # pixels of a cell
THRESHOLD = 0.6  # of 5,981 labelled faces all score 0.64 or more; OpenCV's 0.9 would lose some 4 % of them
WEAK = THRESHOLD  # lower scores were not tried on videos
OVERLAP = 0.3
SMALLEST = 40  # pixels; of 48 real faces it finds 48 at 48, 42 at 32, 2 at 20


def takes(outputs: Dict[str, np.ndarray], height: int, width: int) -> bool:
    """Whether these are the outputs of a YuNet for an image of that size, multiples of 32."""
    expected = {
        f"{kind}_{stride}": (1, (height // stride) * (width // stride), columns)
        for kind, columns in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
        for stride in STRIDES
    }
    return {name: values.shape for name, values in outputs.items()} == expected


def network_input(planes: np.ndarray) -> Tuple[np.ndarray, Tuple[float, float]]:
    """float32 [1, 3, height, width] of an image uint8 [3, height, width] RGB, and how many of its pixels one of these is.

    Blue, green, red, 0 to 255; black at the right and bottom makes both sides multiples of 32.
    """
    height, width = planes.shape[1:]
    padded = np.zeros((1, 3, -height % 32 + height, -width % 32 + width), np.float32)
    padded[0, :, :height, :width] = planes[::-1]
    return padded, (1.0, 1.0)


def faces(outputs: Dict[str, np.ndarray], height: int, width: int, threshold: float = THRESHOLD) -> List[Detection]:
    """The faces that the outputs for an input of that size hold, in its pixels; their scores are at least the threshold."""
    cells = (_cells(outputs, size, width, threshold) for size in STRIDES)
    boxes, scores, points = (np.concatenate(parts) for parts in zip(*cells))
    # OpenCV compares boxes of whole pixels.
    kept = suppress(np.trunc(boxes), scores, OVERLAP)
    return [Detection(_four(boxes[row]), float(scores[row]), points[row]) for row in kept]


def _cells(
    outputs: Dict[str, np.ndarray], stride: int, width: int, threshold: float
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes [N, 4], scores [N] and landmarks [N, 5, 2] of the cells of one grid whose score is high enough."""
    of_class, of_object = (outputs[f"{kind}_{stride}"][0, :, 0].clip(0, 1) for kind in ("cls", "obj"))
    scores = np.sqrt(of_class * of_object)
    cells = np.flatnonzero(scores >= threshold)
    corner = np.stack([cells % (width // stride), cells // (width // stride)], 1).astype(np.float32)
    box = outputs[f"bbox_{stride}"][0, cells]
    points = outputs[f"kps_{stride}"][0, cells].reshape(-1, 5, 2)
    size = np.exp(box[:, 2:]) * stride
    centre = (corner + box[:, :2]) * stride
    return np.concatenate([centre - size / 2, size], 1), scores[cells], (points + corner[:, None]) * stride


def _four(row: np.ndarray) -> Tuple[float, float, float, float]:
    x, y, width, height = (float(value) for value in row)
    return x, y, width, height
