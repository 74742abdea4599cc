"""What candidates take, for a goal, measured in interleaved rounds. Python 3.8."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import numpy as np

from ampnet_opt.benchmarks.bench import Timing, measure_engines
from ampnet_opt.benchmarks.bench_many import ManyTiming, time_many
from ampnet_opt.benchmarks.bench_noise import FEWEST_TURNS, WIDEST, median_interval
from ampnet_opt.benchmarks.compare import Environment, environment
from ampnet_opt.benchmarks.workers import Progress, Subject, started
from ampnet_opt.core.errors import AmpnetError

CLEAR = 1.02  # how many times faster something must be, beyond noise, to count as faster
RUNS = 30


@dataclass(frozen=True)
class Goal:
    """What is made small.

    Attributes:
        name: as in `--goal`.
        unit: of what is measured; all goals are better the smaller it is.
        better: how one of half the value is, in "twice as fast as the other".
        ahead: what it is then: "faster".
        behind: what the other one is: "slower".
    """

    name: str
    unit: str
    better: str
    ahead: str
    behind: str

    @property
    def is_time(self) -> bool:
        return self.ahead == "faster"


GOALS = {
    "latency": Goal("latency", "ms", "as fast", "faster", "slower"),
    "throughput": Goal("throughput", "ms/image", "as fast", "faster", "slower"),
    "energy": Goal("energy", "mJ/image", "as frugal", "more frugal", "less frugal"),
    "memory": Goal("memory", "MB", "as small", "smaller", "larger"),
}


@dataclass(frozen=True)
class Speed:
    """What one subject takes, in the goal's unit.

    Attributes:
        value: a median, for times.
        low: end of its 95 % interval; of energy and memory the value itself.
        high: the other end.
        unsteady: whether other work disturbed the measurement.
        turns: of times, the median of each turn, in the order of the rounds; () of energy and memory.
    """

    value: float
    low: float
    high: float
    unsteady: bool = False
    turns: Sequence[float] = ()

    def joined(self, more: Speed) -> Speed:
        """Both measurements of the same subject as one."""
        turns = [*self.turns, *more.turns]
        if len(turns) < FEWEST_TURNS:
            return more
        value, interval = float(np.median(turns)), median_interval(turns, 1)
        return Speed(value, interval.low, interval.high, interval.half_width(value) > WIDEST, turns)

    def beats(self, other: Speed) -> bool:
        """Whether it is smaller than `other` by more than noise and `CLEAR`.

        Times of one measurement are compared round by round: what slows down a whole round is in both. The interval of the
        median ratio is that of `bench_noise.median_interval`.
        """
        if len(self.turns) != len(other.turns) or len(self.turns) < FEWEST_TURNS:
            return self.high * CLEAR < other.low
        ratios = [theirs / own for theirs, own in zip(other.turns, self.turns)]
        return median_interval(ratios, 1).low > CLEAR


def measure(
    subjects: Sequence[Subject], goal: Goal, batch: int, seconds: float, progress: Optional[Progress] = None
) -> Tuple[List[Optional[Speed]], Environment]:
    """What each subject takes, and where that was measured. None for PyTorch where the goal is throughput.

    batch: faces of an inference. seconds: for all of them together, at least. Raises AmpnetError where there is no sensor
    for the goal, and as `bench.measure_engines`.
    """
    with ExitStack() as stack:
        if goal.name != "throughput":
            workers, timings = measure_engines(stack, subjects, batch, RUNS, seconds=seconds, progress=progress)
            return [_speed(subject, goal, timing) for subject, timing in zip(subjects, timings)], environment(workers)
        place = environment(list(started(stack, subjects, progress)))
    engines = [subject for subject in subjects if subject.kind == "engine"]
    many = iter(time_many(engines, seconds, progress))
    rates = [next(many) if subject.kind == "engine" else None for subject in subjects]
    return [None if rate is None else _rate(rate) for rate in rates], place


def _rate(many: ManyTiming) -> Speed:
    return Speed(many.p50, many.interval.low, many.interval.high, many.unsteady, many.turns)


def _speed(subject: Subject, goal: Goal, timing: Timing) -> Speed:
    if goal.name == "latency":
        return Speed(timing.latency.p50, timing.p50.low, timing.p50.high, timing.unsteady, timing.turns)
    if goal.name == "memory":
        if timing.peak_memory is None:
            raise AmpnetError("this system does not tell how much memory a process takes: choose another --goal")
        return _exact(timing.peak_memory / 1e6)
    power = timing.power
    if power is None or power.joules_per_image is None:
        why = "none was read" if power is None or power.problem is None else power.problem
        raise AmpnetError(f"the energy of {subject.name} cannot be measured here ({why}): choose another --goal")
    return _exact(1e3 * power.joules_per_image)


def _exact(value: float) -> Speed:
    return Speed(value, value, value)
