"""Engines timed against each other in one interleaved run, at several batches. Needs the runtime alone; Python 3.8."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from ampnet_opt.benchmarks.bench_layers import LayerTime
from ampnet_opt.benchmarks.bench_many import ManyTiming, time_many
from ampnet_opt.benchmarks.bench_noise import FEWEST_TURNS, Interval, median_interval, unsteady
from ampnet_opt.benchmarks.compare import Environment, engine_subjects, environment, require_memory, require_positive
from ampnet_opt.benchmarks.power import Power, device_of, measure_power, power_notes
from ampnet_opt.benchmarks.workers import TURN, Progress, Subject, Worker, random_faces, time_in_turns
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.files import size_on_disk
from ampnet_opt.core.metrics import Estimate, Latency, latency
from ampnet_opt.core.processor import available_cores
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.sidecar import read_sidecar

FORMAT = "ampnet-opt-benchmark/1"
FEWEST_RUNS = FEWEST_TURNS * TURN
METHOD = (
    "Latency is host wall clock around one inference of a batch, inputs and logits in host memory, after warm-up; each "
    f"engine runs in a process of its own, new for each batch, and has turns of {TURN} runs among the others'.",
    "± is the wider side of the median's interval, 95 % or more, over turns (order statistics of their medians): an engine "
    "is called faster only where the two intervals do not overlap.",
    "First is from the start of the process to its first logits, Python's own imports included. Peak memory is the largest "
    "resident set, host memory only.",
)


@dataclass(frozen=True)
class Timing:
    """One engine at one batch. p50: of a run, in ms, with its interval. unsteady: too noisy to rely on.

    first_seconds: from the start of a process to its first logits. peak_memory: bytes; None where the system does not tell.
    power: of a section of its own. turns: medians of its turns, ms, in the order of the rounds.
    """

    batch: int
    latency: Latency
    p50: Interval
    unsteady: bool
    first_seconds: float
    peak_memory: Optional[int]
    power: Optional[Power] = None
    turns: List[float] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """Everything about one subject. size: on disk, bytes; timings: one for each batch, in the order asked for; many: of
    throughput mode, where that was asked for.
    """

    name: str
    backend: str
    precision: str
    trained: bool
    checkpoint_sha256: str
    size: int
    timings: List[Timing]
    many: Optional[ManyTiming] = None


@dataclass(frozen=True)
class Verdict:
    """At `batch`, `faster` took 1/ratio of the median time of `slower`; shown: whether their intervals do not overlap.

    batch: None for throughput mode.
    """

    batch: Optional[int]
    faster: str
    slower: str
    ratio: float
    shown: bool


@dataclass(frozen=True)
class Bench:
    """One benchmark. gpu: name, where an engine ran on one.

    accuracy: top-1 by engine, from another measurement. layers: by engine, at the first batch, the slowest first.
    """

    threads: int
    batches: List[int]
    environment: Environment
    gpu: Optional[str]
    engines: List[Measured]
    verdicts: List[Verdict]
    notes: List[str]
    accuracy: Dict[str, Estimate] = field(default_factory=dict)
    layers: Dict[str, List[LayerTime]] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"


def benchmark(
    engines: Sequence[Path],
    batches: Sequence[int],
    *,
    threads: Optional[int] = None,
    runs: int = 50,
    seconds: float = 3,
    many: bool = False,
    progress: Optional[Progress] = None,
) -> Bench:
    """Time every engine at every batch.

    threads: of the cpu backend, by default all cores. runs: at least so many timed ones of each (rounded up to whole turns);
    seconds: and at least so long for all engines of a batch together. many: throughput mode too. Raises MisuseError when
    an engine does not take a batch or the runs are too few for an interval, AmpnetError naming the engine that failed.
    """
    require_positive(runs=runs, threads=1 if threads is None else threads, **{f"batch {n}": n for n in batches})
    for engine in engines:
        profile = read_sidecar(engine).batch
        outside = [n for n in batches if not profile.min <= n <= profile.max]
        if outside:
            raise MisuseError(f"engine {engine} takes batches of {profile.min} to {profile.max}, not {outside[0]}")
    require_memory(max(batches))
    threads = threads or available_cores()
    subjects = engine_subjects(engines, threads)
    found: List[Measured] = []
    for number, batch in enumerate(batches):

        def report(stage: str, done: int, total: int, batch: int = batch) -> None:
            if progress:
                progress(f"batch {batch}: {stage}", done, total)

        with ExitStack() as stack:
            workers, timings = measure_engines(stack, subjects, batch, runs, seconds=seconds, progress=report)
            if number == 0:
                place = environment(workers)
                found = [_measured(worker) for worker in workers]
        for engine_found, timing in zip(found, timings):
            engine_found.timings.append(timing)
    if many:
        found = [replace(engine, many=timing) for engine, timing in zip(found, time_many(subjects, seconds, progress))]
    gpu = cuda.gpu().name if any(device_of(engine.backend) == "gpu" for engine in found) else None
    return Bench(threads, list(batches), place, gpu, found, _verdicts(found), _notes(found))


def measure_engines(
    stack: ExitStack,
    subjects: Sequence[Subject],
    batch: int,
    runs: int,
    *,
    seconds: float = 0,
    progress: Optional[Progress] = None,
) -> Tuple[List[Worker], List[Timing]]:
    """Start a worker for each subject, which `stack` ends, and time them in turns; arguments as of `benchmark`."""
    if runs < FEWEST_RUNS:
        raise MisuseError(f"at least {FEWEST_RUNS} runs are needed to judge noise; got {runs}")
    images, landmarks = random_faces(batch)
    workers: List[Worker] = []
    first: List[float] = []
    for subject in subjects:
        if progress:
            progress("loading", len(workers), len(subjects))
        start = time.perf_counter()
        workers.append(stack.enter_context(Worker(subject)))
        workers[-1].infer(images, landmarks)
        first.append(time.perf_counter() - start)
    whole = -(-runs // TURN) * TURN
    taken = time_in_turns(workers, images, landmarks, whole, progress=progress, at_least=seconds)
    timings = []
    for worker, times, until_first in zip(workers, taken, first):
        found = latency(times, batch)
        p50 = median_interval([1e3 * value for value in times], TURN)
        turns = [1e3 * float(np.median(times[start : start + TURN])) for start in range(0, len(times), TURN)]
        peak = worker.peak_memory()
        alone = partial(worker.time, images, landmarks, 0)  # the others wait
        power = measure_power(alone, found.p50 / 1e3, batch, device_of(worker.loaded.backend))
        timings.append(Timing(batch, found, p50, unsteady(found, p50), until_first, peak, power, turns))
    return workers, timings


def _measured(worker: Worker) -> Measured:
    made = worker.loaded
    size = size_on_disk(worker.subject.path)
    return Measured(worker.subject.name, made.backend, made.precision, made.trained, made.checkpoint_sha256, size, [])


def _verdicts(engines: Sequence[Measured]) -> List[Verdict]:
    """For each batch, and for throughput mode: the fastest engine against every other, the closest first."""
    medians: Dict[Optional[int], List[Tuple[str, float, Interval]]] = {}
    for engine in engines:
        for timing in engine.timings:
            medians.setdefault(timing.batch, []).append((engine.name, timing.latency.p50, timing.p50))
        if engine.many:
            medians.setdefault(None, []).append((engine.name, engine.many.p50, engine.many.interval))
    found = []
    for batch, times in medians.items():
        (best, best_p50, best_interval), *others = sorted(times, key=lambda time: time[1])
        for name, p50, interval in others:
            found.append(Verdict(batch, best, name, p50 / best_p50, best_interval.below(interval)))
    return found


def _notes(engines: Sequence[Measured]) -> List[str]:
    notes = []
    unsteady = [timing.unsteady for engine in engines for timing in engine.timings]
    unsteady += [engine.many.unsteady for engine in engines if engine.many]
    if any(unsteady):
        notes.append("Unsteady times: other work was probably running; measure again without it.")
    powers = [(engine.name, timing.power) for engine in engines for timing in engine.timings[:1]]
    return [*notes, *power_notes(powers), *METHOD]
