"""Cameras of this machine, by OpenCV."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import Any, Iterator, List, Optional

import numpy as np

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.text import listed
from ampnet_opt.pipeline.sources.source import LiveSource, believed_rate

INSTALL = "pip install opencv-python-headless"
NAME = re.compile(r"camera:(\d{1,4})|(/dev/video\d{1,4})")
SILENCE = 3.0  # seconds of failed reads that mean that the camera is gone


class Camera(LiveSource[np.ndarray]):
    """A camera that the system knows: `camera:0`, or `/dev/video0` on Linux."""

    patience = 15.0

    def __init__(self, text: str) -> None:
        """Raises MisuseError when there is no such camera, AmpnetError when OpenCV is missing or cannot open it."""
        super().__init__(text)
        place = device(text)
        assert place is not None
        if sys.platform.startswith("linux") and not os.path.exists(f"/dev/video{place}"):
            there = listed(cameras(), 8) or "none"
            raise MisuseError(f"there is no camera {text}; there are: {there}")
        cv2 = load_opencv()
        kind = cv2.CAP_V4L2 if sys.platform.startswith("linux") else cv2.CAP_ANY
        self._capture = cv2.VideoCapture(place, kind)
        if not self._capture.isOpened():
            raise AmpnetError(f"camera {text} cannot be opened: another program may use it, or this user may not")
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self.size = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        self.rate = believed_rate(self._capture.get(cv2.CAP_PROP_FPS))

    def read(self) -> Iterator[np.ndarray]:
        seen = time.monotonic()
        while not self.closing.is_set():
            there, image = self._capture.read()
            if there:
                seen = time.monotonic()
                yield image
            elif time.monotonic() - seen > SILENCE:
                raise AmpnetError(f"camera {self.name} gives no more pictures: is it still plugged in?")
            else:
                self.closing.wait(0.05)  # a camera that is gone says so at once, again and again

    def image(self, raw: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(raw[..., ::-1])

    def release(self) -> None:
        self._capture.release()


def device(text: str) -> Optional[int]:
    """The number of the camera that a text names, None if it names none."""
    matched = NAME.fullmatch(text)
    return None if matched is None else int(matched[1] or matched[2][len("/dev/video") :])


def cameras() -> List[str]:
    """The video devices of this machine, where it is a Linux one."""
    names = os.listdir("/dev") if os.path.isdir("/dev") else []
    return sorted(f"/dev/{name}" for name in names if re.fullmatch(r"video\d+", name))


def load_opencv() -> Any:
    """The module cv2, any build of it. Raises AmpnetError that says how to get it."""
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "2")  # seconds, not 10, that a silent camera keeps `close`
    try:
        import cv2
    except ImportError as error:
        raise AmpnetError(f"cameras need OpenCV, which cannot be imported ({error}): {INSTALL}") from error
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it prints to stderr; what fails is raised
    return cv2
