"""Which landmarks can be a face, and the square of a picture that is cut out round it. numpy and Pillow only."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ampnet_opt.core.graph_interface import IMAGE_SIDE
from ampnet_opt.core.pictures import SMALLEST_SIDE
from ampnet_opt.faces.detection import Detection
from ampnet_opt.faces.landmark_checks import impossible, upright_fault

# The detectors' boxes run from the hairline to the chin, the eyes 0.36 of the longer side apart. A tenth more keeps chin,
# cheeks and a slightly short box whole, and stays near the tight crops that expression data sets are published as
# (0.33 against the median of 0.36 in 5,981 labelled faces; 1.3 would give 0.28).
MARGIN = 1.1


def implausible(face: Detection) -> str:
    """What keeps the landmarks from being an upright face's, "" if nothing does.

    The points are those of an upright face (`upright_fault`); all of them lie within the box and half of its longer side
    around it; the face is not under 16 pixels; tables accept it once it is cut out (`cut_fault`).
    """
    points = face.landmarks.astype(np.float64)
    x, y, width, height = face.box
    if not (np.isfinite(points).all() and np.isfinite(face.box).all()):
        return "landmarks are not finite"
    if face.side < SMALLEST_SIDE:
        return f"the face is smaller than {SMALLEST_SIDE} pixels"
    fault = upright_fault(points)
    rim = face.side / 2
    low, high = (x - rim, y - rim), (x + width + rim, y + height + rim)
    if not fault and ((points < low).any() or (points > high).any()):
        return "landmarks lie outside the face"
    return fault or cut_fault(_in_cut(face.box, points))


def cut_fault(landmarks: np.ndarray) -> str:
    """Why tables refuse landmarks [5, 2] in pixels of a picture of 224 x 224, "" if they do not.

    Tables hold hundredths of a pixel.
    """
    return impossible(landmarks.round(2)[None], np.full((1, 2), float(IMAGE_SIDE)))[0]


def square_of(box: tuple[float, float, float, float]) -> tuple[int, int, int]:
    """Left, top and side of the square round a box (x, y, width, height), in whole pixels; it may reach out of the picture.

    It has 1.1 times the box's longer side and the box's centre.
    """
    x, y, width, height = box
    side = max(1, round(MARGIN * max(width, height)))
    return round(x + (width - side) / 2), round(y + (height - side) / 2), side


def crop(image: np.ndarray, box: tuple[float, float, float, float], landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The square round a face's box, scaled to 224 x 224, and the landmarks in its pixels.

    image: uint8 [height, width, 3]; box: (x, y, width, height); landmarks: float32 [5, 2]; both in pixels of the image,
    (0, 0) being the outer corner of the top left pixel. What lies outside the image is black.
    """
    left, top, side = square_of(box)
    # The square alone becomes a picture of Pillow's, which copies what it is given: of a photo, hundreds of megabytes.
    inside = image[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)]
    square = Image.fromarray(np.ascontiguousarray(inside)) if inside.size else Image.new("RGB", (1, 1))
    if square.size != (side, side):  # Pillow fills what is outside with black
        square = square.crop((min(0, left), min(0, top), min(0, left) + side, min(0, top) + side))
    # It averages all pixels under each new one when it scales down.
    scaled = square.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(scaled), _in_cut(box, landmarks)


def _in_cut(box: tuple[float, float, float, float], landmarks: np.ndarray) -> np.ndarray:
    """Landmarks float32 [5, 2] in pixels of what `crop` cuts out."""
    left, top, side = square_of(box)
    return np.asarray((landmarks - np.array([left, top])) * (IMAGE_SIDE / side), np.float32)
