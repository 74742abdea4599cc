"""What goes through the pipeline: frames of a source, and the faces on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Dict, List, Optional, Tuple

import numpy as np

from ampnet_opt.faces.detection import Detection

STAGES = ("capture", "detect", "cut", "infer", "draw", "encode")  # what a frame goes through, in this order


def with_square_pixels(size: Tuple[int, int], pixel_aspect: Optional[Fraction]) -> Tuple[int, int]:
    """(width, height) that shows frames of a size as they are meant, with none of their pixels lost.

    pixel_aspect: width of a pixel by its height, None for 1.
    """
    aspect = pixel_aspect or Fraction(1)
    return round(size[0] * max(aspect, Fraction(1))), round(size[1] / min(aspect, Fraction(1)))


@dataclass(frozen=True)
class Frame:
    """One picture of a source.

    Attributes:
        image: uint8 [height, width, 3], RGB, upright.
        index: its number in the source, from 0; frames that were dropped count.
        time: seconds since the source's first frame.
        name: the file of a picture, "" for a frame of a video or camera.
        captured: `time.monotonic()` when it was in memory.
        scale: pixels of the source per pixel of `image`; above 1 where a large picture was scaled down as it was read.
    """

    image: np.ndarray
    index: int = 0
    time: float = 0.0
    name: str = ""
    captured: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class TrackedFace:
    """A face on a frame and its expression.

    Attributes:
        detection: box, score and landmarks, in pixels of the frame.
        probabilities: float32 [classes], softmax of this frame's logits.
        smoothed: float32 [classes], probabilities over the face's track; equal to `probabilities` without smoothing.
        label: index of the class that is shown, by `smoothed` with hysteresis.
        track: the same number for the same person while in view, from 1; None in pictures.
    """

    detection: Detection
    probabilities: np.ndarray
    smoothed: np.ndarray
    label: int
    track: Optional[int] = None


@dataclass(frozen=True)
class FrameResult:
    """What the pipeline found in a frame.

    Attributes:
        frame: the frame.
        faces: that were classified, largest first.
        rejected: faces whose landmarks cannot be a face's, or that are too small, with the reason; not classified.
        seconds: that each of `STAGES` took for the frame. capture is reading and decoding; of a live source, waiting for
            the frame as well. draw and encode are there only where an output asked for them.
    """

    frame: Frame
    faces: List[TrackedFace]
    rejected: List[Tuple[Detection, str]] = field(default_factory=list)
    seconds: Dict[str, float] = field(default_factory=dict)
