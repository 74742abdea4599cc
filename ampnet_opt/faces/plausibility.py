"""Whether five landmarks can be a face, as its shape and its place in the picture tell. numpy only."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, List, NamedTuple, Tuple

import numpy as np

# The mean of 5,981 real faces, eyes one apart: x to the right, y down, z towards the camera. Depths are those with which
# views of this one face come nearest to all of them.
MEAN_FACE = np.array(
    [[-0.5, -0.51, 0.0], [0.5, -0.51, 0.0], [0.0, 0.024, 0.55], [-0.424, 0.498, 0.14], [0.424, 0.498, 0.14]]
)
YAWS, PITCHES = range(-75, 76, 15), (-30, 0, 30)  # degrees of the views
# Of `shape_error`. The most of the 5,981 faces, profiles among them, is 0.051, of the drawn ones 0.033. Points in a wrong
# order have 0.36 to 0.7 at the median; of 5,981 faces whose points are in order, none reaches the second limit.
UNUSUAL, NO_FACE = 0.08, 0.12
SMALLEST = 4.0  # pixels; the points of a face of 16 pixels, the smallest picture, are 6 apart
TILTED = 60.0  # degrees; the most of the 5,981 faces is 45
OUTSIDE = 0.1  # of the points' extent
# The points of faces that fill their pictures, as the network was trained on: 0.19 to 0.67 of the longer side, 0.28 to
# 0.55 without the outermost thousandth; their centre from 0.2 to 0.75 of the width and from 0.38 to 0.7 of the height.
SMALL = 0.2
CENTRE = np.array([[0.15, 0.3], [0.85, 0.85]])


class Shape(NamedTuple):
    """Of each face: how far it is from a face in any view, how far its mirror image is, and its roll in degrees."""

    error: np.ndarray
    mirrored_error: np.ndarray
    roll: np.ndarray


def shape_of(points: np.ndarray) -> Shape:
    """Full Procrustes distance, squared (0: equal, 1: nothing in common), to the nearest view of the mean face.

    points: [N, 5, 2]. A view is the mean face turned by yaw and pitch, seen by an orthographic camera; place, size and roll
    are free (Dryden and Mardia, "Statistical Shape Analysis", 2016, section 4.1: of complex numbers, 1 - |<view, points>|^2
    for unit vectors). Roll is clockwise from upright, -180 to 180. Equal points have the distance 1.
    """
    complex_points = points[..., 0].astype(np.float64) + 1j * points[..., 1].astype(np.float64)
    centred = complex_points - complex_points.mean(-1, keepdims=True)
    length = np.maximum((np.abs(centred) ** 2).sum(-1, keepdims=True), 1e-12)
    views = _views()
    direct, mirrored = centred @ views.conj().T, centred @ views.T
    nearest = np.abs(direct).argmax(-1)
    return Shape(
        (1 - np.abs(direct) ** 2 / length).min(-1),
        (1 - np.abs(mirrored) ** 2 / length).min(-1),
        np.degrees(np.angle(np.take_along_axis(direct, nearest[:, None], -1)[:, 0])),
    )


def impossible(points: np.ndarray, sizes: np.ndarray) -> List[str]:
    """Why the landmarks [N, 5, 2] of each face can be no face of its picture, "" if they can.

    sizes: (width, height) of the pictures [N, 2], NaN where unknown. Turned, large, small and cut-off faces are possible.
    """
    shape, extent, centre = shape_of(points), _extent(points), points.mean(1)
    return _first_of(
        [
            (extent < SMALLEST, f"all five points lie within {SMALLEST:g} pixels"),
            (((centre < 0) | (centre > sizes)).any(1), "most of the face lies outside the picture"),
            (
                (shape.error > NO_FACE) & (shape.mirrored_error <= NO_FACE),
                "only the mirror image of the points is a face",
            ),
            (shape.error > NO_FACE, "the points are a face from no side"),
        ],
        len(points),
    )


def improbable(points: np.ndarray, sizes: np.ndarray) -> List[str]:
    """What is unusual in the landmarks of each possible face, "" if nothing is; arguments as of `impossible`."""
    shape, extent, centre = shape_of(points), _extent(points), points.mean(1)
    rim = OUTSIDE * extent[:, None, None]
    return _first_of(
        [
            (np.abs(shape.roll) > 180 - TILTED, "the face is upside down"),
            (np.abs(shape.roll) > TILTED, "the face lies on its side"),
            (shape.error > UNUSUAL, "the face has an unusual shape"),
            (((points < -rim) | (points > sizes[:, None] + rim)).any((1, 2)), "points lie outside the picture"),
            (extent < SMALL * sizes.max(1), "the face is a small part of the picture"),
            (((centre < CENTRE[0] * sizes) | (centre > CENTRE[1] * sizes)).any(1), "the face is at the picture's edge"),
        ],
        len(points),
    )


def typical(points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether nothing is impossible or improbable, bool [N]."""
    return np.array([not (a or b) for a, b in zip(impossible(points, sizes), improbable(points, sizes))], bool)


def upright_fault(points: np.ndarray) -> str:
    """What keeps landmarks [5, 2] from being an upright face's, "" if nothing does.

    Left of each pair lies left of right; mouth below eyes; the nose between eyes and mouth in height, and in width not
    farther outside eyes and mouth than half the distance between their outermost points (0.4 is the most of 5,981 real
    faces, in profile).
    """
    (left_eye, right_eye, nose, left_mouth, right_mouth), outer = points, points[[0, 1, 3, 4], 0]
    if left_eye[0] >= right_eye[0] or left_mouth[0] >= right_mouth[0]:
        return "left and right are swapped"
    if not (left_eye[1] + right_eye[1]) / 2 < nose[1] < (left_mouth[1] + right_mouth[1]) / 2:
        return "eyes, nose and mouth do not follow from top to bottom"
    reach = (outer.max() - outer.min()) / 2
    if not outer.min() - reach <= nose[0] <= outer.max() + reach:
        return "the nose lies beside the face"
    return ""


@lru_cache(maxsize=None)
def _views() -> np.ndarray:
    """Complex [views, 5], each centred and of unit length."""
    yaw, pitch = (angle.ravel()[:, None] for angle in np.radians(np.meshgrid(YAWS, PITCHES)))
    x, y, z = MEAN_FACE.T
    depth = z * np.cos(yaw) - x * np.sin(yaw)
    views = x * np.cos(yaw) + z * np.sin(yaw) + 1j * (y * np.cos(pitch) + depth * np.sin(pitch))
    views -= views.mean(-1, keepdims=True)
    return np.asarray(views / np.sqrt((np.abs(views) ** 2).sum(-1, keepdims=True)))


def _extent(points: np.ndarray) -> np.ndarray:
    """The longer side of the box round the five points, in pixels [N]."""
    return np.asarray((points.max(1) - points.min(1)).max(1))


def _first_of(rules: List[Tuple[Any, str]], count: int) -> List[str]:
    reasons = [""] * count
    for broken, words in reversed(rules):
        for row in np.flatnonzero(broken):
            reasons[row] = words
    return reasons
