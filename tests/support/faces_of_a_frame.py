"""Faces on a frame, as the pipeline would give them."""

from __future__ import annotations

import numpy as np

from ampnet_opt.faces.detection import Detection
from ampnet_opt.pipeline.frames import Frame, FrameResult, TrackedFace

CLASSES = ["anger", "fear", "happiness", "neutral"]


def face(x: float, y: float, side: float, track: int | None = 1, label: int = 2) -> TrackedFace:
    points = [(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)]
    landmarks = np.array([(x + across * side, y + down * side) for across, down in points], np.float32)
    shares = np.full(len(CLASSES), 0.1, np.float32)
    shares[label] = 0.7
    return TrackedFace(Detection((x, y, side, side), 0.9, landmarks), shares, shares, label, track)


def result(image: np.ndarray, *faces: TrackedFace, time: float = 0.0, name: str = "", index: int = 0) -> FrameResult:
    return FrameResult(Frame(image, index, time, name), list(faces))
