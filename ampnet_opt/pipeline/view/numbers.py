"""What the page says in numbers: faces of the newest frame and of the last minute, rate, delay, time of each stage."""

from __future__ import annotations

import math
from collections import deque
from fractions import Fraction
from statistics import median
from typing import Any, Deque, Dict, List, Optional, Sequence, Set, Tuple

import numpy as np

from ampnet_opt.core.text import one_line
from ampnet_opt.pipeline.frames import STAGES, FrameResult, TrackedFace, with_square_pixels

WINDOW = 3.0  # seconds that rate, delay and the stages' times are of
MINUTE = 60.0  # seconds of probabilities that are kept
STEP = 0.19  # seconds between two that are kept: five a second, with frames not quite on time
MOST_FACES = 12  # of a frame that the page shows
MOST_TRACKS = 32  # whose past is kept

Row = List[Optional[float]]


class Numbers:
    """Sums up frames as they come. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        self._newest: Optional[FrameResult] = None
        self._dropped = 0
        self._pixel_aspect: Optional[Fraction] = None
        self._frames = 0
        self._recent: Deque[Tuple[float, Optional[float], Dict[str, float]]] = deque()  # when, delay, seconds of stages
        self._first = 0.0
        self._last = 0.0
        self._past: Dict[int, Deque[Tuple[float, Row]]] = {}

    def add(self, result: FrameResult, now: float, dropped: int, pixel_aspect: Optional[Fraction] = None) -> None:
        """Take in a frame that was finished at `now` (`time.monotonic()`), before which `dropped` were left out in all.

        pixel_aspect: width of a pixel by its height, None for 1.
        """
        if self._newest is None:
            self._first = now
        self._newest, self._dropped, self._last, self._pixel_aspect = result, dropped, now, pixel_aspect
        self._frames += 1
        delay = now - result.frame.captured if result.frame.captured > 0 else None
        self._recent.append((now, delay, dict(result.seconds)))
        self._forget(now)
        for face in result.faces[:MOST_FACES]:
            self._remember(face, result.frame.time)
        self._forget_tracks(result.frame.time)
        self._mark_absent({face.track for face in result.faces}, result.frame.time)

    def _remember(self, face: TrackedFace, time: float) -> None:
        if face.track is None or not math.isfinite(time):
            return
        past = self._past.setdefault(face.track, deque())
        if past and time < past[-1][0]:  # the source started again
            past.clear()
        if not past or time - past[-1][0] >= STEP:
            past.append((round(time, 2), _row(face.smoothed)))

    def _mark_absent(self, present: Set[Optional[int]], time: float) -> None:
        for track, past in self._past.items():
            if track not in present and past[-1][1] and time >= past[-1][0]:
                past.append((round(time, 2), []))

    def _forget(self, now: float) -> None:
        while self._recent and now - self._recent[0][0] > WINDOW:
            self._recent.popleft()

    def _forget_tracks(self, time: float) -> None:
        for track, past in list(self._past.items()):
            while past and not time - MINUTE <= past[0][0] <= time:
                past.popleft()
            if not past:
                del self._past[track]
        for track in sorted(self._past, key=lambda each: self._past[each][-1][0])[:-MOST_TRACKS]:
            del self._past[track]

    def past(self) -> List[Dict[str, Any]]:
        """Each track's probabilities over the last minute: {"track", "times": [n], "rows": [n][classes]}.

        A row is empty where the face went out of view, however far apart frames are.
        """
        return [
            {"track": track, "times": [time for time, _ in past], "rows": [row for _, row in past]}
            for track, past in sorted(self._past.items())
        ]

    def now(self, now: float) -> Dict[str, Any]:
        """The newest frame and the last seconds, ready for JSON: finite numbers, rounded; None is unknown."""
        self._forget(now)
        result = self._newest
        if result is None:
            return {"frames": 0, "faces": [], "more": 0}
        return {
            "frames": self._frames,
            "index": result.frame.index,
            "time": _rounded(result.frame.time, 2),
            "name": one_line(result.frame.name, 80),
            "size": with_square_pixels((result.frame.image.shape[1], result.frame.image.shape[0]), self._pixel_aspect),
            "faces": [_face(face) for face in result.faces[:MOST_FACES]],
            "more": max(0, len(result.faces) - MOST_FACES),
            "dropped": int(self._dropped),
            "age": _rounded(now - self._last, 1),
            "rate": _rounded(self._rate(now), 1),
            "delay": _milliseconds([delay for _, delay, _ in self._recent if delay is not None]),
            "stages": self._stages(),
        }

    def _rate(self, now: float) -> Optional[float]:
        lasted = min(WINDOW, now - self._first)
        return len(self._recent) / lasted if lasted >= 0.5 else None

    def _stages(self) -> List[Dict[str, Any]]:
        names = {name: None for _, _, seconds in self._recent for name in seconds}
        known = [name for name in STAGES if name in names] + [name for name in names if name not in STAGES]
        times = ((name, [seconds[name] for _, _, seconds in self._recent if name in seconds]) for name in known)
        return [{"name": one_line(name, 40), "ms": _milliseconds(found)} for name, found in times]


def _face(face: TrackedFace) -> Dict[str, Any]:
    return {"track": face.track, "label": int(face.label), "row": _row(face.smoothed)}


def _row(probabilities: np.ndarray) -> Row:
    return [_rounded(float(each), 3) for each in probabilities]


def _milliseconds(seconds: Sequence[float]) -> Optional[float]:
    finite = [each for each in seconds if math.isfinite(each)]
    return _rounded(median(finite) * 1000, 1) if finite else None


def _rounded(number: Optional[float], digits: int) -> Optional[float]:
    return round(number, digits) if number is not None and math.isfinite(number) else None
