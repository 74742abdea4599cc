"""Frames for the page of `--view`: flat pictures with faces whose probabilities are given."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from ampnet_opt.faces.detection import Detection
from ampnet_opt.pipeline.frames import Frame, FrameResult, TrackedFace

CLASSES = ("neutral", "happiness", "sadness")


def tracked(track: int | None, probabilities: Sequence[float]) -> TrackedFace:
    row = np.asarray(probabilities, np.float32)
    detection = Detection((10.0, 10.0, 60.0, 60.0), 0.9, np.zeros((5, 2), np.float32))
    return TrackedFace(detection, row, row, int(row.argmax()), track)


def frame(index: int, *faces: TrackedFace, size: tuple[int, int] = (160, 120), **changes: Any) -> FrameResult:
    """A frame of 10 a second, grey by its index."""
    image = np.full((size[1], size[0], 3), index % 200 + 20, np.uint8)
    given: dict[str, Any] = {"index": index, "time": index / 10, **changes}
    seconds = given.pop("seconds", {"detect": 0.007, "capture": 0.004})
    return FrameResult(Frame(image, **given), list(faces), seconds=seconds)
