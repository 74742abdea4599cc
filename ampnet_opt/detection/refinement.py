"""The detectors' second stage: a small network that looks at each face once more and places its five landmarks.

A detector places landmarks on a grid that is coarse beside a face, and is wrong in the same way for one person and pose. The
second stage sees every face upright and at the same size, cut out by the landmarks of the first. How its network was made,
on what, and its limits: shipped/LANDMARKS.md.
"""

from __future__ import annotations

import hashlib
import math
import time
from typing import List, Sequence

import numpy as np
from PIL import Image

from ampnet_opt.faces.detection import Detection
from ampnet_opt.faces.landmark_checks import impossible
from ampnet_opt.runtime.backend import Backend
from ampnet_opt.runtime.onnx_interface import FlexibleGraph
from ampnet_opt.shipped import LANDMARKS

INPUT, OUTPUT = "image", "offsets"  # of the network

SIDE = 64  # pixels of the network's input
APART = 0.38  # distance between the eyes as a share of the input's side
# Where the five points lie on average over real faces, in distances between the eyes from the middle of them all.
SHAPE = np.array([[-0.5, -0.5], [0.5, -0.5], [0.0, 0.04], [-0.41, 0.5], [0.41, 0.5]])
# Eye distances, mean over the points: where the stages are farther apart, one has lost the face. Of 200 real faces they were
# in one, in which both were wrong and the first stage less; 112 drawn ones were moved by 0.18 at most, all to better places.
FARTHEST = 0.25


def placed(landmarks: np.ndarray, side: float, apart: float) -> np.ndarray:
    """The similarity (turn, scale, shift; no mirroring) from a square to a picture, float64 [2, 3], x and y in pixels.

    It takes `SHAPE` in a square of `side` pixels, with `apart` of it between the eyes, nearest to `landmarks` [5, 2] in the
    sense of least squares (Umeyama 1991, in two dimensions one division of complex numbers).
    """
    square = (SHAPE * apart + 0.5) * side
    source, goal = (points[:, 0] + 1j * points[:, 1] for points in (square, landmarks.astype(np.float64)))
    centred = source - source.mean()
    factor = np.vdot(centred, goal) / np.vdot(centred, centred).real
    shift = goal.mean() - factor * source.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def cut(image: np.ndarray, transform: np.ndarray, side: int) -> np.ndarray:
    """What lies in the square of a `transform` from it to the picture: uint8 [side, side, channels], black outside.

    Pictures of faces that are larger than the square are first scaled down by the mean of whole pixels, so that nothing is
    skipped. image: uint8 [height, width, channels].
    """
    corners = transform[:, :2] @ np.array([[0, side, 0, side], [0, 0, side, side]]) + transform[:, 2:]
    scale = max(1, int(math.hypot(*transform[:, 0])))
    low = np.maximum(np.floor(corners.min(1)).astype(int) - 2, 0)
    high = np.minimum(np.ceil(corners.max(1)).astype(int) + 2, image.shape[1::-1])
    if (high <= low).any():
        return np.zeros((side, side, image.shape[2]), np.uint8)
    part = Image.fromarray(image[low[1] : high[1], low[0] : high[0]])
    if scale > 1:
        part = part.reduce(scale)
    within = np.column_stack([transform[:, :2], transform[:, 2] - low]) / scale
    return np.asarray(part.transform((side, side), Image.Transform.AFFINE, tuple(within.ravel()), Image.Resampling.BILINEAR))


class Refiner:
    """The second stage of one detector, on the same backend; the detector opens and closes it.

    Attributes:
        identity: the SHA-256 of the network's file.
        seconds: that the network alone has taken so far.
    """

    def __init__(self, backend: Backend) -> None:
        content = LANDMARKS.read_bytes()
        self.identity = f"landmarks by SHA-256 {hashlib.sha256(content).hexdigest()}"
        self.seconds = 0.0
        # One thread: for so small a network, two take longer than one.
        self._network = backend.open_network(FlexibleGraph(content, INPUT, [OUTPUT], "landmark network"), 1)

    def refined(self, image: np.ndarray, faces: Sequence[Detection]) -> List[Detection]:
        """The faces with landmarks of the second stage.

        One keeps its own where they are a face from no side, or the new ones are none or too far off (`FARTHEST`).

        image: uint8 [height, width, 3] RGB, in whose pixels the faces are given.
        """
        own = np.array([face.landmarks for face in faces], np.float32).reshape(-1, 5, 2)
        new = own.copy()
        for row in np.flatnonzero(_are_faces(own)):
            transform = placed(own[row], SIDE, APART)
            points = self._points(image, transform)
            moved = np.linalg.norm(points - own[row], axis=1).mean()
            if moved <= FARTHEST * math.hypot(*transform[:, 0]) * SIDE * APART:
                new[row] = points
        better = (new != own).any((1, 2)) & _are_faces(new)
        return [
            Detection(face.box, face.score, points) if is_better else face
            for face, points, is_better in zip(faces, new, better)
        ]

    def _points(self, image: np.ndarray, transform: np.ndarray) -> np.ndarray:
        """Landmarks float32 [5, 2] of the face in the square of a transform, in pixels of the image."""
        pixels = cut(image, transform, SIDE).transpose(2, 0, 1)[None].astype(np.float32)
        start = time.perf_counter()
        (offsets,) = self._network.run(pixels).values()
        self.seconds += time.perf_counter() - start
        points = ((SHAPE + offsets.reshape(5, 2)) * APART + 0.5) * SIDE
        return np.asarray(points @ transform[:, :2].T + transform[:, 2], np.float32)

    def close(self) -> None:
        """Free the network. A second call does nothing."""
        self._network.close()


def _are_faces(landmarks: np.ndarray) -> np.ndarray:
    """Whether landmarks [N, 5, 2] can be faces: bool [N]."""
    known = np.isfinite(landmarks).all((1, 2), keepdims=True)
    reasons = impossible(np.where(known, landmarks, 0), np.full((len(landmarks), 2), np.nan))
    return np.array([not reason for reason in reasons], bool)
