"""What a source of frames is, and one that is live: its newest frame counts."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from fractions import Fraction
from types import TracebackType
from typing import Generic, Iterator, List, Optional, Tuple, Type, TypeVar, Union

import numpy as np

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.picture_files import LARGEST
from ampnet_opt.pipeline.frames import Frame

Raw = TypeVar("Raw")
SLOWEST, FASTEST = 0.01, 1000.0  # frames a second that are believed
ENDING = 5.0  # seconds that a reading thread gets to see that it is over


class Source(ABC):
    """Frames in order, and what is known of them beforehand. Iterated once; a context manager.

    Attributes:
        name: for messages, without passwords.
        live: whether frames that nobody takes are lost.
        still: whether each frame is a picture of its own.
        size: (width, height) of the frames, None where they differ or nothing tells.
        rate: frames a second, None if unknown or none.
        pixel_aspect: width of a pixel by its height, None where that is unknown or 1. Known when there is a first frame.
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
        self.pixel_aspect: Optional[Fraction] = None
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
    """Reads in a thread of its own, as fast as frames come, and keeps the newest.

    Attributes:
        patience: seconds without a frame after which the source counts as dead; None where `read` sees to that itself.
        closing: set when the source is to end.
    """

    live = True
    patience: Optional[float] = None

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.closing = threading.Event()
        self._changed = threading.Condition()
        self._newest: Optional[Tuple[int, float, Raw]] = None
        self._ended = False
        self._error: Optional[BaseException] = None
        self._thread = threading.Thread(target=self._work, name="capture", daemon=True)

    @abstractmethod
    def read(self) -> Iterator[Raw]:
        """What the device gives, in the reading thread; it ends when `closing` is set."""

    @abstractmethod
    def image(self, raw: Raw) -> np.ndarray:
        """uint8 [height, width, 3], RGB, of what was read: made of frames that are taken alone."""

    @abstractmethod
    def release(self) -> None:
        """Give the device back. Called once: by the reading thread at its end, or by `close` when it never began."""

    def interrupt(self) -> None:
        """Make a `read` that waits for the device return, where that is possible; called by `close`."""

    def _work(self) -> None:
        arrived, error = 0, None
        try:
            for raw in self.read():
                with self._changed:
                    self.dropped += self._newest is not None
                    self._newest = arrived, time.monotonic(), raw
                    self._changed.notify_all()
                arrived += 1
                if self.closing.is_set():
                    break
        except BaseException as raised:
            error = raised
        try:
            self.release()
        except BaseException as raised:
            error = error or raised
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Frame]:
        with self._changed:
            if self.closing.is_set():
                return
            self._thread.start()
        first: Optional[float] = None
        while True:
            taken = self._take()
            if taken is None:
                return
            index, captured, raw = taken
            first = captured if first is None else first
            yield Frame(self.image(raw), index, captured - first, captured=captured)

    def _take(self) -> Optional[Tuple[int, float, Raw]]:
        """The newest frame as soon as there is one, None at the end. Raises what ended the reading thread."""
        asked = time.monotonic()
        with self._changed:
            while not (self._newest or self._ended or self.closing.is_set()):
                self._changed.wait(0.5)  # not for ever: Ctrl-C has to be heard on Windows too
                if self.patience is not None and time.monotonic() - asked > self.patience and self._newest is None:
                    raise AmpnetError(f"{self.name} has given no picture for {self.patience:.0f} seconds: is it connected?")
            taken, self._newest = self._newest, None
            if taken is None and self._error is not None and not self.closing.is_set():
                raise self._error
            return None if self.closing.is_set() else taken

    def close(self) -> None:
        with self._changed:
            again = self.closing.is_set()
            self.closing.set()
            self._changed.notify_all()
            begun = self._thread.ident is not None
        if not begun:
            if not again:
                self.release()
            return
        self.interrupt()
        if self._thread is not threading.current_thread():
            self._thread.join(ENDING)  # a device may keep it longer: a library's call cannot be ended from outside


def believed_rate(stated: Union[float, Fraction, None]) -> Optional[float]:
    """The rate, in frames a second, that a file or device states; None where that is none, or cannot be.

    Drivers give 0, -1 or not-a-number for what they do not know, network streams the ticks of their clock.
    """
    return float(stated) if stated is not None and SLOWEST <= stated <= FASTEST else None


def require_size(name: str, width: int, height: int) -> None:
    """MisuseError for frames larger than a picture may be."""
    if width * height > LARGEST:
        raise MisuseError(f"{name} has frames of {width} x {height} pixels; at most {LARGEST // 10**6} megapixels are read")
