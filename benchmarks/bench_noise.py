"""How far a median can be trusted when its runs were measured in turns, and when it cannot be. Python 3.8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np

from ampnet_opt.benchmarks.compare import UNSTEADY
from ampnet_opt.core.metrics import LEVEL, Latency

ONE_IN = round(2 / (1 - LEVEL))  # how often the interval may lie below the median, and as often above
FEWEST_TURNS = 6  # the range of fewer medians covers less than 95 %: 1 - 2 / 2^n
WIDEST = 0.05  # to one side, of the median; a wider interval hides the differences that one looks for


@dataclass(frozen=True)
class Interval:
    """Ends of a confidence interval, in ms."""

    low: float
    high: float

    def below(self, other: Interval) -> bool:
        """Whether all of it is below all of `other`."""
        return self.high < other.low

    def half_width(self, middle: float) -> float:
        """The wider side, as a share of `middle`, which lies within."""
        return max(self.high - middle, middle - self.low) / middle


def median_interval(values: Sequence[float], turn: int) -> Interval:
    """Interval of at least 95 % for the median of runs that were measured in turns of `turn`, FEWEST_TURNS of them or more.

    Runs within a turn share the machine's state of the moment, so turns are what counts as independent: their medians are
    sorted, and the k-th smallest and k-th largest are taken. Each median is below the true one with probability 1/2,
    whatever the distribution, so the interval covers it with probability 1 - 2 P(Binomial(n, 1/2) < k); k is the largest
    for which that is at least the level (Conover 1999, Practical Nonparametric Statistics, section 3.2). It is widened to
    hold the median of all runs, where that lies outside.
    """
    if len(values) < FEWEST_TURNS * turn:
        raise ValueError(f"{len(values)} runs are less than {FEWEST_TURNS} turns of {turn}")
    medians = sorted(float(np.median(values[start : start + turn])) for start in range(0, len(values), turn))
    middle = float(np.median(values))
    outer = depth(len(medians)) - 1
    return Interval(min(middle, medians[outer]), max(middle, medians[-1 - outer]))


def depth(count: int) -> int:
    """The largest k for which the k-th smallest and k-th largest of `count` values enclose the true median often enough."""
    ways = below = 1  # to have k values below the median, of 2^count; to have k or fewer
    k = 0
    while below * ONE_IN <= 2**count:
        ways = ways * (count - k) // (k + 1)
        k += 1
        below += ways
    return k


def unsteady(took: Latency, p50: Interval) -> bool:
    """Whether the slow runs are far from the median, or the median itself is known badly."""
    return took.p90 > UNSTEADY * took.p50 or p50.half_width(took.p50) > WIDEST
