"""From what a tensor held to the range that INT8 should cover."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ampnet_opt.calibration.histogram import Histogram

LEVELS = 128  # magnitudes of symmetric INT8: 0..127
STARTING_BIN = LEVELS


def minmax(histogram: Histogram) -> float:
    """The largest magnitude seen: nothing is clipped."""
    return histogram.amax


def entropy(histogram: Histogram) -> float:
    """The range that loses least information: S. Migacz, "8-bit Inference with TensorRT", GTC 2017.

    For every candidate threshold (a number of bins, from 128 up, in steps of 8) the reference distribution P is the
    histogram up to it, with all that lies beyond added to its last bin; Q is the unclipped part, reduced to 128 levels
    and spread evenly over each level's bins that are not empty. The threshold with the smallest KL divergence
    D(P || Q) = sum P log(P / Q) wins. Zeros say nothing of the scale and would outweigh all else after a ReLU, so the
    first bin counts like the second.
    """
    counts = histogram.counts.astype(np.float64)
    counts[0] = counts[1]
    used = int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else 0
    if used <= STARTING_BIN:
        return histogram.amax
    candidates = range(STARTING_BIN, used + 1, 8)
    divergences = [_divergence(counts, bins) for bins in candidates]
    best = candidates[int(np.argmin(divergences))]
    return min((best + 0.5) * histogram.width, histogram.amax)


def _divergence(counts: np.ndarray, bins: int) -> float:
    """KL divergence in nats between the clipped histogram of `bins` bins and its 128-level version."""
    kept = counts[:bins]
    reference = kept.copy()
    reference[-1] += counts[bins:].sum()
    level = np.arange(bins) * LEVELS // bins
    occupied = kept > 0
    totals = np.bincount(level, kept, LEVELS)
    sizes = np.bincount(level, occupied, LEVELS)
    spread = np.where(occupied, (totals / np.maximum(sizes, 1))[level], 0)
    p, q = reference / reference.sum(), spread / max(spread.sum(), 1)
    # A bin of P without any of Q: the divergence would be infinite; a tiny share keeps candidates comparable.
    q = np.where((p > 0) & (q == 0), 1e-10, q)
    present = p > 0
    return float(np.sum(p[present] * np.log(p[present] / q[present])))


METHODS: dict[str, Callable[[Histogram], float]] = {"entropy": entropy, "minmax": minmax}
