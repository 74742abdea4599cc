"""A histogram of magnitudes that takes any number of values in fixed memory and one pass."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

BINS = 4096
SMALLEST_LIMIT = 1e-30  # under it, 1 / width leaves float32


@dataclass(eq=False)
class Histogram:
    """Counts of |x| in equal bins over [0, limit]; the range doubles, merging bins in pairs, when a larger value comes.

    Zeros are not counted: INT8 holds them exactly whatever the range is, and after a ReLU they would outnumber all else.

    counts: int64 [BINS]. limit: upper end of the last bin, 0 before any non-zero value. amax: largest |x| seen. Values
    that are not finite raise ValueError. These three fields are all there is to store.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    limit: float = 0.0
    amax: float = 0.0

    def add(self, values: np.ndarray) -> None:
        magnitudes = np.abs(values, dtype=np.float32).ravel()
        largest = float(magnitudes.max(initial=0))
        if not np.isfinite(largest):
            raise ValueError("values are not finite")
        if not largest:
            return
        self.amax = max(self.amax, largest)
        if not self.limit:
            self.limit = max(largest, SMALLEST_LIMIT)
        while self.limit < largest:
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.concatenate([merged, np.zeros_like(merged)])
            self.limit *= 2
        bins = np.minimum((magnitudes * np.float32(BINS / self.limit)).astype(np.int32), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)
        self.counts[0] -= magnitudes.size - np.count_nonzero(magnitudes)

    @property
    def width(self) -> float:
        """Width of a bin."""
        return self.limit / BINS
