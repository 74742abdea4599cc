"""From what a tensor held to the range that INT8 should cover."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ampnet_opt.calibration.histogram import BINS, Histogram

LEVELS = 128  # magnitudes of symmetric INT8: 0..127
STARTING_BIN = LEVELS  # of the candidates of entropy and mse; with fewer bins a level is narrower than a bin
STRIDE = 8  # bins between two candidates: at most 1/256 of the largest magnitude
CLIPPED = 10_000  # percentile clips one value in so many
LEAST = 1e-10  # what Q has of a bin where only P has anything


def minmax(histogram: Histogram) -> float:
    """The largest magnitude seen: nothing is clipped."""
    return histogram.amax


def percentile(histogram: Histogram) -> float:
    """The range that 99.99 % of the magnitudes lie within: the upper edge of the bin where that share is reached.

    H. Wu et al., "Integer Quantization for Deep Learning Inference" (arXiv 2004.09602); 99.99 is the default of
    NVIDIA's pytorch-quantization and Model Optimizer (ONNX Runtime's is 99.999). They count zeros, unless told to skip
    them. Zeros are left out here: the sparser a tensor, the more of its real values would be clipped, and with more than
    99.99 % zeros all of them.
    """
    below = histogram.counts.cumsum()
    within = below[-1] - below[-1] // CLIPPED
    return min((int(np.searchsorted(below, within)) + 1) * histogram.width, histogram.amax)


def entropy(histogram: Histogram) -> float:
    """The range that loses least information: S. Migacz, "8-bit Inference with TensorRT", GTC 2017.

    For every candidate threshold (a number of bins, from 128 up, in steps of 8) the reference distribution P is the
    histogram up to it, with all that lies beyond added to its last bin; Q is the unclipped part, reduced to 128 levels
    and spread evenly over each level's bins that are not empty. The threshold with the smallest KL divergence
    D(P || Q) = sum P log(P / Q) wins. What is nearly zero says no more of the scale than zero does, and can outweigh all
    else, so the first bin counts like the second (as in pytorch-quantization).
    """
    counts = histogram.counts.astype(np.float64)
    counts[0] = counts[1]
    used = _used(counts)
    if used <= STARTING_BIN:
        return histogram.amax
    candidates = np.arange(STARTING_BIN, used + 1, STRIDE)
    best = int(candidates[np.argmin(_divergences(counts[:used], candidates))])
    return min((best + 0.5) * histogram.width, histogram.amax)


def _divergences(counts: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """KL divergence in nats, float64 [candidates], between the histogram clipped to so many bins and its 128-level version.

    With counts p (sum n) and q (sum m), D = (sum p log p - sum p log q) / n - log n + log m; q is one number in all bins of
    a level, so that sums over the bins of levels are all that is needed, and those are differences of running sums.
    """
    total, below, last = counts.sum(), _running(counts), counts[candidates - 1]
    kept = below[candidates]
    clipped = total - kept
    # Bin i is of level i * LEVELS // candidate: these are the first bins of every level, and the end of the last.
    starts = -(-np.arange(LEVELS + 1) * candidates[:, None] // LEVELS)
    totals = np.diff(below[starts])
    sizes = np.diff(_running(counts > 0)[starts])
    log_q = np.log(np.maximum(totals, 1) / np.maximum(sizes, 1))
    log_m = np.log(np.maximum(kept, 1))
    p_log_p = _running(_x_log_x(counts))[candidates - 1] + _x_log_x(last + clipped)
    # Where the last bin holds clipped values only, Q has nothing and D would be infinite: a tiny share keeps candidates
    # comparable.
    log_last = np.where(last > 0, log_q[:, -1], np.log(LEAST) + log_m)
    p_log_q = (totals * log_q).sum(1) + clipped * log_last
    return (p_log_p - p_log_q) / total - np.log(total) + log_m


def mse(histogram: Histogram) -> float:
    """The range with the smallest mean squared error (x - s clip(round(x / s), -127, 127))^2, s being the range / 127.

    The candidates are the centres of the bins from 128 up, in steps of 8, and the largest magnitude; every value counts as
    the centre of its bin: NVIDIA's pytorch-quantization. Zeros have no part in it, being exact in every range.
    """
    used = _used(histogram.counts)
    if used <= STARTING_BIN:
        return histogram.amax
    # In units of a bin. The magnitudes from (k - 1/2) s up become k s or more, with k up to 127: where they are N(k) and
    # their sum is S(k), the squared errors are sum x^2 - 2 s sum_k S(k) + s^2 sum_k (2 k - 1) N(k) in all.
    candidates = np.minimum(np.arange(STARTING_BIN, used + STRIDE, STRIDE) + 0.5, histogram.amax / histogram.width)
    steps, k = candidates / (LEVELS - 1), np.arange(1, LEVELS)
    first = np.ceil((k - 0.5) * steps[:, None] - 0.5).astype(np.intp)  # the bin from whose centre on it is k s or more
    numbers, sums = _running(histogram.counts), _running(histogram.counts * (np.arange(BINS) + 0.5))
    above, sums_above = numbers[-1] - numbers[first], sums[-1] - sums[first]
    errors = steps**2 * (above * (2 * k - 1)).sum(1) - 2 * steps * sums_above.sum(1)
    return min(float(candidates[np.argmin(errors)]) * histogram.width, histogram.amax)


def _used(counts: np.ndarray) -> int:
    """Bins up to the last that is not empty."""
    return int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else 0


def _running(values: np.ndarray) -> np.ndarray:
    """Sums of all values before each, and of all: [n + 1]."""
    return np.concatenate([[0], np.cumsum(values)])


def _x_log_x(counts: np.ndarray) -> np.ndarray:
    return counts * np.log(np.maximum(counts, 1))


DEFAULT = "entropy"  # as good on drawn faces as on real ones; docs/results/int8.md has the numbers
METHODS: dict[str, Callable[[Histogram], float]] = {
    "entropy": entropy,
    "percentile": percentile,
    "mse": mse,
    "minmax": minmax,
}
