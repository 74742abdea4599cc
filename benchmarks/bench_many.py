"""The rate of many faces one after another, as `run` takes a folder, without reading pictures. Python 3.8."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import List, Optional, Sequence

import numpy as np

from ampnet_opt.benchmarks.bench_noise import FEWEST_TURNS, WIDEST, Interval, median_interval
from ampnet_opt.benchmarks.workers import Progress, Subject, Worker, started

WARM_UP = 64  # faces
TURN_SECONDS = 1.0  # so long, at least, that the first and last batches, of which fewer run at once, weigh little


@dataclass(frozen=True)
class ManyTiming:
    """Throughput mode of one engine. faces: of one turn; p50: ms an image, median over turns, with its interval.

    peak_memory: bytes; None where the system does not tell. turns: ms an image of each turn, in the order of the rounds.
    """

    faces: int
    p50: float
    interval: Interval
    unsteady: bool
    peak_memory: Optional[int]
    turns: List[float] = field(default_factory=list)

    @property
    def images_per_second(self) -> float:
        return 1e3 / self.p50


def time_many(subjects: Sequence[Subject], seconds: float, progress: Optional[Progress] = None) -> List[ManyTiming]:
    """Time engines at `infer_each`, in turns of a second or more, in processes of their own.

    seconds: at least so long for all of them together, and at least as many turns as an interval needs.
    """
    with ExitStack() as stack:
        workers: List[Worker] = []
        for worker in started(stack, subjects, progress):
            worker.time_many(WARM_UP)
            workers.append(worker)
        faces = [_faces_of_a_turn(worker) for worker in workers]
        per_image: List[List[float]] = [[] for _ in workers]  # ms
        order = list(range(len(workers)))
        begun, turns = time.perf_counter(), 0
        while turns < FEWEST_TURNS or time.perf_counter() - begun < seconds:
            for i in order:
                per_image[i].append(1e3 * workers[i].time_many(faces[i]) / faces[i])
            order.reverse()
            turns += 1
            if progress:
                progress("timing", turns, max(turns, FEWEST_TURNS))
        return [_timing(worker, count, values) for worker, count, values in zip(workers, faces, per_image)]


def _faces_of_a_turn(worker: Worker) -> int:
    return max(WARM_UP, round(WARM_UP * TURN_SECONDS / worker.time_many(WARM_UP)))


def _timing(worker: Worker, faces: int, per_image: Sequence[float]) -> ManyTiming:
    p50, interval = float(np.median(per_image)), median_interval(per_image, 1)
    return ManyTiming(faces, p50, interval, interval.half_width(p50) > WIDEST, worker.peak_memory(), list(per_image))
