"""Which landmarks can be a face, and the square of a picture that is cut out round it. numpy and Pillow only."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ampnet_opt.detector import Detection
from ampnet_opt.faces import SIDE
from ampnet_opt.pictures import SMALLEST_SIDE

# The detectors' boxes run from the hairline to the chin, the eyes 0.36 of the longer side apart. A tenth more keeps chin,
# cheeks and a slightly short box whole, and stays near the tight crops that expression data sets are published as
# (0.33 against the median of 0.36 in 5,981 labelled faces; 1.3 would give 0.28).
MARGIN = 1.1


def implausible(face: Detection) -> str:
    """What keeps the landmarks from being an upright face's, "" if nothing does.

    Left of each pair lies left of right; mouth below eyes; the nose between eyes and mouth in height, and in width not
    farther outside eyes and mouth than half the distance between their outermost points (0.4 is the most of 5,981 real
    faces, in profile); all points within the box and half of its longer side around it; the face not under 16 pixels.
    """
    points = face.landmarks.astype(np.float64)
    (left_eye, right_eye, nose, left_mouth, right_mouth), outer = points, points[[0, 1, 3, 4], 0]
    x, y, width, height = face.box
    if not (np.isfinite(points).all() and np.isfinite(face.box).all()):
        return "landmarks are not finite"
    if face.side < SMALLEST_SIDE:
        return f"the face is smaller than {SMALLEST_SIDE} pixels"
    if left_eye[0] >= right_eye[0] or left_mouth[0] >= right_mouth[0]:
        return "left and right are swapped"
    if not (left_eye[1] + right_eye[1]) / 2 < nose[1] < (left_mouth[1] + right_mouth[1]) / 2:
        return "eyes, nose and mouth do not follow from top to bottom"
    reach = (outer.max() - outer.min()) / 2
    if not outer.min() - reach <= nose[0] <= outer.max() + reach:
        return "the nose lies beside the face"
    rim = face.side / 2
    low, high = (x - rim, y - rim), (x + width + rim, y + height + rim)
    if (points < low).any() or (points > high).any():
        return "landmarks lie outside the face"
    return ""


def crop(image: np.ndarray, box: tuple[float, float, float, float], landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The square round a face's box, scaled to 224 x 224, and the landmarks in its pixels.

    image: uint8 [height, width, 3]; box: (x, y, width, height); landmarks: float32 [5, 2]; both in pixels of the image,
    (0, 0) being the outer corner of the top left pixel. The square has 1.1 times the box's longer side and its centre, both
    rounded to whole pixels; what lies outside the image is black.
    """
    x, y, width, height = box
    side = max(1, round(MARGIN * max(width, height)))
    left, top = round(x + (width - side) / 2), round(y + (height - side) / 2)
    # Pillow fills what is outside with black; it averages all pixels under each new one when it scales down.
    square = Image.fromarray(image).crop((left, top, left + side, top + side))
    scaled = square.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(scaled), ((landmarks - np.array([left, top])) * (SIDE / side)).astype(np.float32)
