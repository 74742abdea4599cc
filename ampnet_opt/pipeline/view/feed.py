"""Between the pipeline's thread, which publishes frames, and the server's, which shows the newest one to browsers."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import secrets
import threading
import time
from fractions import Fraction
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

import numpy as np

from ampnet_opt.core.text import one_line
from ampnet_opt.pipeline.frames import FrameResult, with_square_pixels
from ampnet_opt.pipeline.view.numbers import Numbers

QUALITY = 80  # of the JPEGs, of Pillow's 95
LARGEST = 1280  # pixels of a picture's longer side; a larger one is halved until it fits


class Feed:
    """The newest frame, encoded only when a browser asks for it, and its numbers.

    `publish` and `end` are for any thread; all else is for the server's.
    """

    def __init__(self, classes: Sequence[str], about: Mapping[str, str], stored: Sequence[str]) -> None:
        self._start = {
            "run": secrets.token_hex(8),  # tells a browser that comes back whether this is still the run it knows
            "classes": [one_line(name, 40) for name in classes],
            "about": [[one_line(name, 40), one_line(value, 120)] for name, value in about.items()],
            "stored": [one_line(name, 120) for name in stored],
        }
        self._lock = threading.Lock()
        self._numbers = Numbers()
        self._image: Optional[np.ndarray] = None
        self._pixel_aspect: Optional[Fraction] = None
        self._jpeg: Tuple[int, bytes] = (0, b"")
        self._ended: Optional[str] = None
        self._version = 0
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._changed: Optional[asyncio.Event] = None

    def publish(self, result: FrameResult, image: np.ndarray, dropped: int, pixel_aspect: Optional[Fraction] = None) -> None:
        """Make this the newest frame."""
        with self._lock:
            self._image, self._pixel_aspect = image, pixel_aspect
            self._numbers.add(result, time.monotonic(), dropped, pixel_aspect)
            self._version += 1
        self._announce()

    def end(self, reason: str) -> None:
        """Say that no more frames will come; the first reason stands."""
        with self._lock:
            if self._ended is None:
                self._ended = one_line(reason)
                self._version += 1
        self._announce()

    def _announce(self) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the server has just gone
                loop.call_soon_threadsafe(self._wake)

    def attach(self) -> None:
        """Wake this thread's event loop from now on when a frame comes."""
        self._loop, self._changed = asyncio.get_running_loop(), asyncio.Event()

    def detach(self) -> None:
        """No longer wake it."""
        self._loop = None

    def _wake(self) -> None:
        if self._changed is not None:
            woken, self._changed = self._changed, asyncio.Event()
            woken.set()

    async def newer(self, version: int, patience: float) -> int:
        """The version of the feed when it is newer than `version`, or after `patience` seconds as it is."""
        assert self._changed is not None
        if self._version <= version:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), patience)
        return self._version

    def jpeg(self) -> bytes:
        """The newest picture; empty before the first. It is encoded once, whoever asks."""
        with self._lock:
            version, image, aspect = self._version, self._image, self._pixel_aspect
        if image is None:
            return b""
        if self._jpeg[0] != version:
            self._jpeg = (version, encode(image, aspect))
        return self._jpeg[1]

    def start(self) -> str:
        """JSON of what a browser needs at first: classes, what the run is, the probabilities of the last minute."""
        with self._lock:
            return _json({**self._start, "past": self._numbers.past()})

    def numbers(self) -> str:
        """JSON of the newest frame's numbers, and whether it was the last."""
        with self._lock:
            return _json({**self._numbers.now(time.monotonic()), "ended": self._ended})


def encode(image: np.ndarray, pixel_aspect: Optional[Fraction] = None) -> bytes:
    """A JPEG of an image uint8 [H, W, 3] RGB, halved until it is at most LARGEST pixels wide and high.

    pixel_aspect: width of a pixel by its height, None for 1; in the JPEG, pixels are square.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image))
    shrink = 1
    while max(picture.size) > LARGEST * shrink:
        shrink *= 2
    if shrink > 1:
        picture = picture.reduce(shrink)
    file = io.BytesIO()
    if pixel_aspect is not None:
        picture = picture.resize(with_square_pixels(picture.size, pixel_aspect), Image.Resampling.BILINEAR)
    picture.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _json(value: Dict[str, Any]) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))
