"""Expressions over time: probabilities averaged over a track, and a label that does not flicker. numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Iterable, Tuple

import numpy as np

from ampnet_opt.core.errors import MisuseError

MARGIN = 0.1  # of probability, by which another class must lead


@dataclass
class _State:
    time: float
    smoothed: np.ndarray
    label: int


class Smoother:
    """Averages the probabilities of each track over time and holds its label.

    With p the probabilities of a frame that comes d seconds after the track's last one, the average s becomes
    s + (1 - exp(-d / seconds)) (p - s): an exponential average whose time constant does not depend on the frame rate. A
    track's first frame sets s = p.

    The label changes to the likeliest class by s once its lead over the current label's class is `margin` or more
    (hysteresis: Schmitt 1938).

    Attributes:
        seconds: the time constant; with 0 there is no smoothing and no hysteresis: each frame stands for itself.
        margin: the lead, in probability.
    """

    def __init__(self, seconds: float, classes: int, *, margin: float = MARGIN) -> None:
        if not (np.isfinite(seconds) and seconds >= 0):
            raise MisuseError(f"--smooth takes seconds, 0 or more, got {seconds}")
        self.seconds = seconds
        self.margin = margin
        self._classes = classes
        self._tracks: Dict[int, _State] = {}

    def update(self, track: int, time: float, probabilities: np.ndarray) -> Tuple[np.ndarray, int]:
        """The smoothed probabilities float32 [classes] of a track at a time in seconds, and the index of its label.

        A time before the track's last one starts it anew.

        Args:
            track: its number.
            time: of the frame, in seconds.
            probabilities: float32 [classes] of the frame.

        Raises:
            MisuseError: they are not as many as there are classes.
        """
        if probabilities.shape != (self._classes,):
            raise MisuseError(f"smoothing was set up for {self._classes} classes, got shape {probabilities.shape}")
        state = self._tracks.get(track)
        if self.seconds == 0:
            return probabilities, int(probabilities.argmax())
        if state is None or time < state.time:
            smoothed = probabilities.astype(np.float64)
            label = int(smoothed.argmax())
        else:
            share = -np.expm1(-(time - state.time) / self.seconds)
            smoothed = state.smoothed + share * (probabilities - state.smoothed)
            likeliest = int(smoothed.argmax())
            label = likeliest if smoothed[likeliest] - smoothed[state.label] >= self.margin else state.label
        self._tracks[track] = _State(time, smoothed, label)
        return smoothed.astype(np.float32), label

    def forget(self, tracks: Iterable[int]) -> None:
        """Drop what is kept of tracks that ended; of unknown ones nothing is kept."""
        for track in tracks:
            self._tracks.pop(track, None)
