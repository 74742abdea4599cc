"""`python -m ampnet_opt.benchmarks.speed CKPT engines/*`: PyTorch, ONNX Runtime and engines timed in one interleaved run.

Batch 1, seeded random faces: what a network computes does not depend on them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import onnx
from rich.table import Table
from rich.text import Text

from ampnet_opt.benchmarks.bench import measure_engines as time_subjects
from ampnet_opt.benchmarks.compare import REFERENCE, engine_subjects, environment, require_positive
from ampnet_opt.benchmarks.report import megabytes, milliseconds, ratio
from ampnet_opt.benchmarks.workers import Subject
from ampnet_opt.convert.export import export
from ampnet_opt.core.console import console, new_table
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import size_on_disk
from ampnet_opt.core.messages import fail
from ampnet_opt.core.processor import available_cores
from ampnet_opt.core.text import count
from ampnet_opt.network.checkpoint import read_checkpoint


def measure_speed(checkpoint: Path, engines: list[Path], runs: int, threads: int) -> tuple[Table, str]:
    """The table of p50, sizes and peak memories, and one line on where it was measured."""
    require_positive(runs=runs, threads=threads)
    with ExitStack() as stack:
        graph = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "float.onnx"
        onnx.save(export(read_checkpoint(checkpoint), "uint8"), graph)
        subjects = [
            Subject(REFERENCE, "torch", checkpoint, threads),
            Subject("ONNX Runtime FP32", "onnxruntime", graph, threads),
            *engine_subjects(engines, threads),
        ]
        workers, timings = time_subjects(stack, subjects, 1, runs)
        right = ["p50 ms", "±", "vs PyTorch", "vs ONNX Runtime", "size MB", "peak MB"]
        made = count(timings[0].latency.runs, "run")
        table = new_table(f"Batch 1, {count(threads, 'thread')}, {made}", ["", "precision"], right)
        base = [timing.latency.p50 for timing in timings[:2]]
        for worker, timing in zip(workers, timings, strict=True):
            p50 = timing.latency.p50
            table.add_row(
                Text(worker.subject.name),
                worker.loaded.precision,
                milliseconds(p50),
                f"{timing.p50.half_width(p50):.0%}",
                *(ratio(against, p50) for against in base),
                megabytes(size_on_disk(worker.subject.path)),
                megabytes(timing.peak_memory),
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
        table, place = measure_speed(options.checkpoint, options.engines, options.runs, options.threads)
    except AmpnetError as error:
        return fail(error)
    except KeyboardInterrupt:
        return 130
    console().print(Text(place), table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
