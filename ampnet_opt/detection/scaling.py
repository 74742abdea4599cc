"""An image at a scale, as the planes of colours that detectors compute on."""

from __future__ import annotations

import threading
from typing import Any, Tuple

import numpy as np
from PIL import Image

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.pyav import load_av
from ampnet_opt.detection.scales import Scale

MOST_MEANT = 16  # pixels, side of the largest square whose sum is a uint16
PLANES, OF_RED_GREEN_BLUE = "gbrp", (2, 0, 1)  # FFmpeg's format of green, blue and red planes


def scaled_planes(image: np.ndarray, scale: Scale) -> np.ndarray:
    """A picture uint8 [height, width, 3] at a scale, as planes uint8 [3, height, width] with their black rim.

    Pillow's bilinear filter, which averages all pixels under each new one.
    """
    planes, inside = _black(scale)
    if image.shape[:2] == inside.shape[1:]:
        inside[:] = image.transpose(2, 0, 1)
    else:
        _fill(inside, Image.fromarray(image).resize(scale.size, Image.Resampling.BILINEAR))
    return planes


class FrameScaler:
    """`scaled_planes` for the frames of a video, in about a third of the time; for any number of threads.

    FFmpeg's scaler takes longer to set up than to scale a frame, so it is kept for frames of the same size. From six tenths
    of the size on, its filter is Pillow's: levels differ by 1 to 3. Scaling down by a whole number is the mean of pixels,
    which takes half the time of FFmpeg's. Both find the faces that Pillow's finds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        try:
            self._av: Any = load_av()
        except AmpnetError:  # cameras need no PyAV
            self._av = None
        self._frame: Any = None  # that the pixels are copied into: a new one for each would keep 15 to 20 MB in use
        self._reformatter: Any = self._av and self._av.video.reformatter.VideoReformatter()

    def planes(self, image: np.ndarray, scale: Scale) -> np.ndarray:
        """A frame uint8 [height, width, 3] at a scale, as planes uint8 [3, height, width] with their black rim."""
        (height, width), step = image.shape[:2], image.shape[1] // scale.size[0]
        if (width, height) == scale.size:
            return scaled_planes(image, scale)
        planes, inside = _black(scale)
        if (width, height) == (step * scale.size[0], step * scale.size[1]) and step <= MOST_MEANT:
            _means(image, step, inside)
        elif self._av is None:
            _fill(inside, Image.fromarray(image).resize(scale.size, Image.Resampling.BILINEAR, reducing_gap=1.0))
        else:
            with self._lock:
                if self._frame is None or (self._frame.width, self._frame.height) != (width, height):
                    self._frame = self._av.VideoFrame(width, height, "rgb24")
                _pixels(self._frame.planes[0])[:height, : 3 * width] = image.reshape(height, 3 * width)
                scaled = self._reformatter.reformat(self._frame, *scale.size, PLANES, interpolation="BILINEAR")
            for plane, place in zip(inside, OF_RED_GREEN_BLUE):
                plane[:] = _pixels(scaled.planes[place])[: scale.size[1], : scale.size[0]]
        return planes


def _pixels(plane: Any) -> np.ndarray:
    """The memory of a plane of FFmpeg's: uint8 [height, bytes of a row]."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)


def _black(scale: Scale) -> Tuple[np.ndarray, np.ndarray]:
    """Black planes for an image at a scale, and the part within the rim."""
    (above, below), (left, right) = scale.rim
    width, height = scale.size
    planes = np.zeros((3, above + height + below, left + width + right), np.uint8)
    return planes, planes[:, above : above + height, left : left + width]


def _fill(planes: np.ndarray, picture: Image.Image) -> None:
    for plane, band in zip(planes, picture.split()):
        plane[:] = np.asarray(band)


def _means(image: np.ndarray, step: int, planes: np.ndarray) -> None:
    """The mean of each square of `step` pixels, rounded, as Pillow's `reduce`, and in less than half its time for planes."""
    rows = image[::step].astype(np.uint16)
    for row in range(1, step):
        rows += image[row::step]
    for plane, values in zip(planes, rows.transpose(2, 0, 1)):
        sums = values[:, ::step] + np.uint16(step * step // 2)
        for column in range(1, step):
            sums += values[:, column::step]
        plane[:] = sums // np.uint16(step * step)
