"""`python -m ampnet_opt.benchmarks.speed CKPT engines/*`: PyTorch, ONNX Runtime and engines timed in one interleaved run.

Batch 1, seeded random faces: what a network computes does not depend on them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ampnet_opt.benchmarks.compare import REFERENCE, engine_subjects, environment, require_positive
from ampnet_opt.benchmarks.metrics import latency
from ampnet_opt.benchmarks.report import count, megabytes, milliseconds, new_table, ratio
from ampnet_opt.benchmarks.workers import Subject, Worker, time_in_turns
from ampnet_opt.checkpoint import read_checkpoint
from ampnet_opt.convert.export import export
from ampnet_opt.errors import AmpnetError
from ampnet_opt.faces import SIDE
from ampnet_opt.files import size_on_disk
from ampnet_opt.machine import available_cores


def measure(checkpoint: Path, engines: list[Path], runs: int, threads: int) -> tuple[Table, str]:
    """The table of p50, sizes and peak memories, and one line on where it was measured."""
    require_positive(runs=runs, threads=threads)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
    landmarks = rng.uniform(0.25 * SIDE, 0.75 * SIDE, (1, 5, 2)).astype(np.float32)
    with ExitStack() as stack:
        graph = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "float.onnx"
        onnx.save(export(read_checkpoint(checkpoint), "uint8"), graph)
        subjects = [
            Subject(REFERENCE, "torch", checkpoint, threads),
            Subject("ONNX Runtime FP32", "onnxruntime", graph, threads),
            *engine_subjects(engines, threads),
        ]
        workers = [stack.enter_context(Worker(subject)) for subject in subjects]
        times = [latency(seconds, 1) for seconds in time_in_turns(workers, images, landmarks, runs)]
        right = ["p50 ms", "vs PyTorch", "vs ONNX Runtime", "size MB", "peak MB"]
        table = new_table(f"Batch 1, {count(threads, 'thread')}, {count(runs, 'run')}", ["", "precision"], right)
        for worker, took in zip(workers, times, strict=True):
            table.add_row(
                Text(worker.subject.name),
                worker.loaded.precision,
                milliseconds(took.p50),
                ratio(times[0].p50, took.p50),
                ratio(times[1].p50, took.p50),
                megabytes(size_on_disk(worker.subject.path)),
                megabytes(worker.peak_memory()),
            )
        place = environment(workers)
        versions = ", ".join(f"{name} {version}" for name, version in place.versions.items())
        return table, f"{place.cpu}, {count(place.cores, 'core')}; {place.date}; {versions}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Latency of PyTorch, ONNX Runtime and engines, in one interleaved run")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("engines", type=Path, nargs="*")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--threads", type=int, default=available_cores())
    options = parser.parse_args()
    try:
        table, place = measure(options.checkpoint, options.engines, options.runs, options.threads)
    except AmpnetError as error:
        Console(stderr=True).print(Text(f"error: {error}"))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    console = Console()
    console.print(Text(place), table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
