"""What a source of frames is, and one that is live: its newest frame counts."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Generic, Iterator, List, Optional, Tuple, Type, TypeVar

import numpy as np

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.faces.picture_files import LARGEST
from ampnet_opt.pipeline.frames import Frame

Raw = TypeVar("Raw")
ENDING = 5.0  # seconds that a reading thread gets to see that it is over


class Source(ABC):
    """Frames in order, and what is known of them beforehand. Iterated once; a context manager.

    Attributes:
        name: for messages, without passwords.
        live: whether frames that nobody takes are lost.
        still: whether each frame is a picture of its own.
        size: (width, height) of the frames, None where they differ or nothing tells.
        rate: frames a second, None if unknown or none.
        count: frames, None if unknown.
        dropped: frames that a live source gave and nobody took, so far.
        failures: what could not be read and was left out, so far.
    """

    live = False
    still = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.size: Optional[Tuple[int, int]] = None
        self.rate: Optional[float] = None
        self.count: Optional[int] = None
        self.dropped = 0
        self.failures: List[AmpnetError] = []

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """The frames. Raises AmpnetError or MisuseError when the source fails, after the frames before."""

    @abstractmethod
    def close(self) -> None:
        """End the source, from any thread; who waits for a frame gets none. A second call does nothing."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


class LiveSource(Source, Generic[Raw]):
    """Reads in a thread of its own, as fast as frames come, and keeps the newest."""

    live = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._changed = threading.Condition()
        self._newest: Optional[Tuple[int, float, Raw]] = None
        self._ended = False
        self._error: Optional[BaseException] = None
        self.closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="capture", daemon=True)

    @abstractmethod
    def read(self) -> Iterator[Raw]:
        """What the device gives, in the reading thread; it ends when `closing` is set."""

    @abstractmethod
    def image(self, raw: Raw) -> np.ndarray:
        """uint8 [height, width, 3], RGB, of what was read: made of frames that are taken alone."""

    def _work(self) -> None:
        arrived = 0
        try:
            for raw in self.read():
                with self._changed:
                    self.dropped += self._newest is not None
                    self._newest = arrived, time.monotonic(), raw
                    self._changed.notify_all()
                arrived += 1
                if self.closing.is_set():
                    break
        except BaseException as error:
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Frame]:
        self._thread.start()
        first: Optional[float] = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._ended or self.closing.is_set())
                taken, self._newest = self._newest, None
            if self.closing.is_set():
                return
            if taken is None:
                if self._error is not None:
                    raise self._error
                return
            index, captured, raw = taken
            first = captured if first is None else first
            yield Frame(self.image(raw), index, captured - first, captured=captured)

    def close(self) -> None:
        self.closing.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(ENDING)


def require_size(name: str, width: int, height: int) -> None:
    """MisuseError for frames larger than a picture may be."""
    if width * height > LARGEST:
        raise MisuseError(f"{name} has frames of {width} x {height} pixels; at most {LARGEST // 10**6} megapixels are read")


def upright(image: np.ndarray, degrees: float) -> np.ndarray:
    """The image turned counter-clockwise by the nearest quarter turns."""
    turns = round(degrees / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def listed_error(error: Any) -> str:
    """What a library says went wrong, in a few words."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)[:120]
