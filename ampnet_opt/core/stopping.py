"""SIGTERM and SIGHUP end a command as Ctrl-C does: what was begun is undone. Standard library only."""

from __future__ import annotations

import contextlib
import signal
import time
from types import FrameType
from typing import Iterator, List, Optional

REPEATED = 1.0  # seconds: a closing terminal sends SIGHUP more than once, which must not interrupt the clearing up


class Stopped:
    """exit_code: as a shell gives it to a program that was ended by the signal; 130, Ctrl-C's, while none came."""

    exit_code = 128 + signal.SIGINT


@contextlib.contextmanager
def signals_stop() -> Iterator[Stopped]:
    """In this block they raise KeyboardInterrupt in the main thread. One that is ignored, as under nohup, or that the caller
    handles, stays so; nothing changes when the block runs in another thread, where Python sets no handlers."""
    stopped, last = Stopped(), -REPEATED

    def stop(number: int, frame: Optional[FrameType]) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before >= REPEATED:
            stopped.exit_code = 128 + number
            raise KeyboardInterrupt

    taken: List[int] = []
    try:
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                with contextlib.suppress(ValueError):  # of another thread
                    signal.signal(number, stop)
                    taken.append(number)
        yield stopped
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
