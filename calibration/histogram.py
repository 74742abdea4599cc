"""A histogram of magnitudes that takes any number of values in fixed memory and one pass."""

from __future__ import annotations

import numpy as np

BINS = 4096
SMALLEST_LIMIT = 1e-30  # under it, 1 / width leaves float32


class Histogram:
    """Counts of |x| in equal bins over [0, limit]; the range doubles, merging bins in pairs, when a larger value comes.

    counts: int64 [BINS]. limit: upper end of the last bin, 0 before any non-zero value. amax: largest |x| seen. Values
    that are not finite raise ValueError.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.limit = 0.0
        self.amax = 0.0

    def add(self, values: np.ndarray) -> None:
        magnitudes = np.abs(values, dtype=np.float32).ravel()
        if not magnitudes.size:
            return
        largest = float(magnitudes.max())
        if not np.isfinite(largest):
            raise ValueError("values are not finite")
        self.amax = max(self.amax, largest)
        if largest > 0 and self.limit == 0:
            self.limit = max(largest, SMALLEST_LIMIT)
        while self.limit < largest:
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.concatenate([merged, np.zeros_like(merged)])
            self.limit *= 2
        scale = np.float32(BINS / self.limit) if self.limit else np.float32(0)
        bins = np.minimum((magnitudes * scale).astype(np.int32), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)

    @property
    def width(self) -> float:
        """Width of a bin."""
        return self.limit / BINS
