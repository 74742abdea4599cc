"""The face detector on a GPU, beside ONNX Runtime on the CPU: the same faces, and the time of each."""

from __future__ import annotations

import time
from contextlib import closing
from statistics import median

import numpy as np
from PIL import Image

from ampnet_opt.benchmarks.gpu_check_others import Figures, Skipped
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.detection.detector import Detector, load_detector
from ampnet_opt.synthetic.dataset import face

REFERENCE = "onnxruntime"
FRAME = (480, 640)
SIDES = ((200, 160, 120), (240, 180), (100, 100, 100, 100))  # of the drawn faces of each frame, pixels
MIN_FACE = 40.0
LIMIT = 0.5  # pixels, between the faces of both


def check_detector(backend: str, runs: int) -> Figures:
    """Faces of drawn frames as `backend` finds them, beside ONNX Runtime's. runs: that are timed, of one frame.

    Raises Skipped where the detector's weights or ONNX Runtime are missing, AmpnetError when the faces differ.
    """
    try:
        reference = load_detector(backend=REFERENCE)
    except AmpnetError as error:
        raise Skipped(str(error)) from error
    frames = [_frame(sides, seed) for seed, sides in enumerate(SIDES)]
    started = time.monotonic()
    with closing(reference), closing(load_detector(backend=backend)) as detector:
        boxes, points = zip(*(_differences(reference, detector, frame) for frame in frames))
        figures: Figures = {
            "faces": sum(map(len, SIDES)),
            "pixels_between_boxes": max(boxes),
            "pixels_between_landmarks": max(points),
            "seconds_to_first_faces": round(time.monotonic() - started, 1),
            "ms": _milliseconds(detector, frames[0], runs),
            f"ms_of_{REFERENCE}": _milliseconds(reference, frames[0], runs),
        }
    if not max(*boxes, *points) < LIMIT:
        raise AmpnetError(f"the faces are up to {max(*boxes, *points):.2f} pixels from ONNX Runtime's")
    return figures


def _frame(sides: tuple[int, ...], seed: int) -> np.ndarray:
    """uint8 [height, width, 3]: drawn faces in a row on grey."""
    frame, left = np.full((*FRAME, 3), 120, np.uint8), 0
    for number, side in enumerate(sides):
        picture, _ = face(100 * seed + number, "happiness")
        frame[:side, left : left + side] = np.asarray(Image.fromarray(picture).resize((side, side)))
        left += side
    return frame


def _differences(reference: Detector, detector: Detector, frame: np.ndarray) -> tuple[float, float]:
    """Pixels between the boxes, and between the landmarks, of the faces that both find, at most."""
    right, found = (sorted(one.detect(frame, min_face=MIN_FACE), key=lambda face: face.box) for one in (reference, detector))
    if len(right) != len(found) or not right:
        raise AmpnetError(f"it finds {len(found)} faces where ONNX Runtime finds {len(right)}")
    pairs = list(zip(right, found, strict=True))
    boxes = max(float(np.abs(np.subtract(one.box, other.box)).max()) for one, other in pairs)
    return boxes, max(float(np.abs(one.landmarks - other.landmarks).max()) for one, other in pairs)


def _milliseconds(detector: Detector, frame: np.ndarray, runs: int) -> float:
    """Of the network alone, median."""
    taken = []
    for _ in range(runs + 2):  # two untimed: new shapes, and the recording of a CUDA graph
        before = detector.network_seconds
        detector.detect(frame, min_face=MIN_FACE)
        taken.append(detector.network_seconds - before)
    return 1e3 * median(taken[2:])
