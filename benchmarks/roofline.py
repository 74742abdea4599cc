"""`python -m ampnet_opt.benchmarks.roofline CKPT engines/*`: how near each engine is to what this machine can do at most.

The roofline of Williams, Waterman and Patterson (2009, CACM 52:65-76), layer by layer: a convolution or matrix product takes
at least its multiply-accumulates over the peak rate, and at least its weights and activations over the bandwidth of memory.
Both peaks are measured here, in the same run. What a cache keeps need not come from memory: the second can be beaten.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ampnet_opt.benchmarks.bench import Bench, Measured, benchmark
from ampnet_opt.benchmarks.compare import require_positive
from ampnet_opt.benchmarks.report import milliseconds
from ampnet_opt.benchmarks.roofline_count import Work, count_work
from ampnet_opt.benchmarks.roofline_peaks import Peaks, measure_peaks
from ampnet_opt.convert.export import export
from ampnet_opt.core.console import console, new_table
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.files import write_json
from ampnet_opt.core.messages import fail
from ampnet_opt.core.processor import available_cores
from ampnet_opt.core.text import count
from ampnet_opt.network.checkpoint import read_checkpoint
from ampnet_opt.runtime.sidecar import read_sidecar

ELEMENT = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}  # bytes


@dataclass(frozen=True)
class Floor:
    """The least that one engine can take for a batch. Milliseconds; bytes; macs: multiply-accumulates.

    compute, memory: of all layers, each as if the other cost nothing; floor: each layer's larger one, added up. share: of
    the floor in the median that was measured, p50; unsteady: whether that is too noisy to rely on.
    """

    engine: str
    precision: str
    batch: int
    macs: int
    weight_bytes: int
    activation_bytes: int
    compute: float
    memory: float
    floor: float
    p50: float
    share: float
    unsteady: bool


def floor_of(work: Sequence[Work], precision: str, peaks: Peaks) -> tuple[float, float, float]:
    """Milliseconds (compute, memory, floor) of layers in one precision.

    All layers count as computed in it, those too that an int8 engine keeps in floating point: what comes out is a floor.
    """
    compute = [1e3 * layer.macs / peaks.macs[precision] for layer in work]
    memory = [1e3 * ELEMENT[precision] * (layer.weights + layer.activations) / peaks.bandwidth for layer in work]
    return sum(compute), sum(memory), sum(map(max, compute, memory))


def floors(work: dict[int, list[Work]], engines: Sequence[Measured], peaks: Peaks) -> list[Floor]:
    """Of each engine at each batch; work: by batch."""
    found = []
    for engine in engines:
        for timing in engine.timings:
            layers, size, p50 = work[timing.batch], ELEMENT[engine.precision], timing.latency.p50
            compute, memory, floor = floor_of(layers, engine.precision, peaks)
            macs = sum(layer.macs for layer in layers)
            weights = size * sum(layer.weights for layer in layers)
            activations = size * sum(layer.activations for layer in layers)
            amounts = (engine.name, engine.precision, timing.batch, macs, weights, activations)
            found.append(Floor(*amounts, compute, memory, floor, p50, floor / p50, timing.unsteady))
    return found


def render_roofline(found: Sequence[Floor], peaks: Peaks, bench: Bench) -> Group:
    place = bench.environment
    rates = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in peaks.macs.items())
    head = [
        f"{place.cpu}, {count(bench.threads, 'thread')}; {place.date}",
        f"peaks measured: G multiply-accumulates/s {rates}; memory {peaks.bandwidth / 1e9:.1f} GB/s",
    ]
    parts: list[RenderableType] = [Text(line) for line in head]
    for batch in bench.batches:
        rows = [row for row in found if row.batch == batch]
        unsteady = [row.engine for row in rows if row.unsteady]
        parts += [_table(rows, batch), Text(f"unsteady: {', '.join(unsteady)}\n" if unsteady else "")]
    return Group(*parts)


def _table(rows: Sequence[Floor], batch: int) -> Table:
    title = f"Batch {batch}: {rows[0].macs / 1e9:.2f} G multiply-accumulates"
    right = ["weights MB", "act. MB", "compute ms", "memory ms", "floor ms", "p50 ms", "share", "GMAC/s"]
    table = new_table(title, [""], right)
    for row in rows:
        sizes = [f"{size / 1e6:.1f}" for size in (row.weight_bytes, row.activation_bytes)]
        times = [milliseconds(value) for value in (row.compute, row.memory, row.floor, row.p50)]
        reached = [f"{row.share:.0%}", f"{row.macs / row.p50 / 1e6:.0f}"]
        table.add_row(Text(row.engine), *sizes, *times, *reached)
    return table


def measure_roofline(
    checkpoint: Path, engines: Sequence[Path], batches: Sequence[int], threads: int, runs: int
) -> tuple[Group, dict[str, Any]]:
    """The tables, and everything measured, every layer included, for JSON."""
    require_positive(threads=threads)
    for engine in engines:
        backend = read_sidecar(engine).backend
        if backend != "cpu":
            raise MisuseError(f"peaks are measured for the cpu backend; engine {engine} is for {backend}: leave it out")
    graph = export(read_checkpoint(checkpoint))
    work = {batch: count_work(graph, batch) for batch in batches}
    peaks = measure_peaks(threads)
    bench = benchmark(engines, batches, threads=threads, runs=runs)
    found = floors(work, bench.engines, peaks)
    layers = {batch: [asdict(layer) for layer in work[batch]] for batch in batches}
    content = {"environment": asdict(bench.environment), "threads": threads, "peaks": asdict(peaks)}
    return render_roofline(found, peaks, bench), {**content, "floors": [asdict(row) for row in found], "layers": layers}


def main() -> int:
    parser = argparse.ArgumentParser(description="How near engines are to what this machine can do at most")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("engines", type=Path, nargs="+")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--json", type=Path, help="write everything to this file")
    options = parser.parse_args()
    try:
        tables, content = measure_roofline(
            options.checkpoint, options.engines, options.batches, options.threads, options.runs
        )
        if options.json is not None:
            write_json(options.json, content)
    except AmpnetError as error:
        return fail(error)
    except KeyboardInterrupt:
        return 130
    console().print(tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
