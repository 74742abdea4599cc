"""What a run on a video tells while it goes: frames a second, faces in view. A line on stderr that is written over."""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType
from typing import Deque, Optional, Sequence, Type

from ampnet_opt.core.text import one_line
from ampnet_opt.pipeline.frames import FrameResult
from ampnet_opt.pipeline.sources import Source

WINDOW = 2.0  # seconds over which the rate is measured
SHOWN_EVERY = 0.2  # seconds on a terminal
LOGGED_EVERY = 10.0  # seconds where stderr is a file
WIDEST = 110


class Rate:
    """The line of a run. On a terminal it is written over; elsewhere a line comes every ten seconds, and one at the end."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._taken: Deque[float] = deque()
        self._frames, self._faces = 0, 0
        self._begun = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def show(self, result: FrameResult, faces: Sequence[str]) -> None:
        """Count a frame, and say what it holds if it is time to."""
        now = time.monotonic()
        self._taken.append(now)
        while now - self._taken[0] > WINDOW:
            self._taken.popleft()
        self._frames += 1
        self._faces += len(result.faces)
        if now - self._shown < (SHOWN_EVERY if self._terminal else LOGGED_EVERY):
            return
        self._shown = now
        span = max(1e-9, now - self._taken[0])
        total = "" if self._source.count is None else f"/{self._source.count}"
        rate = f"{(len(self._taken) - 1) / span:.1f} frames/s{self._dropped()}"
        self._print(f"frame {result.frame.index + 1}{total}  {rate}  {', '.join(faces) or 'no face in view'}")

    def _dropped(self) -> str:
        return f", {self._source.dropped} dropped" if self._source.live else ""

    def _print(self, text: str, end: str = "") -> None:
        line = one_line(text, WIDEST)
        if self._terminal:
            print(f"\r{line:<{WIDEST}}", end=end, file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> Rate:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._frames:
            seconds = max(1e-9, time.monotonic() - self._begun)
            rate = f"{self._frames / seconds:.1f} frames/s"
            self._print(f"{self._frames} frames{self._dropped()}, {self._faces} faces, {rate}", "\n")
