"""A benchmark as tables and sentences for a terminal of 100 columns. Python 3.8."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Optional, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ampnet_opt.benchmarks.bench import Bench, Verdict
from ampnet_opt.benchmarks.bench_layers import LayerTime
from ampnet_opt.benchmarks.bench_pipeline import PipelineBench
from ampnet_opt.benchmarks.regression import SLOWER, Change
from ampnet_opt.benchmarks.report import megabytes, milliseconds
from ampnet_opt.core.console import new_table
from ampnet_opt.core.plot import load_figure
from ampnet_opt.core.text import count, printable
from ampnet_opt.pipeline.frames import STAGES

UNTRAINED = "Untrained (seeded) weights: {}; their speed is that of trained ones."
LISTED = 20  # layers shown; the file has all


def render_benchmark(bench: Bench) -> Group:
    """Where it was measured, a table for each batch with its verdicts, what a reader must know, and the slowest layers."""
    place = bench.environment
    parts: List[RenderableType] = [
        Text(f"{bench.gpu or place.cpu}, {count(place.cores, 'core')}; {place.system}; {place.date}"),
        Text(", ".join(f"{name} {version}" for name, version in place.versions.items())),
    ]
    for number, batch in enumerate(bench.batches):
        parts.append(_table(bench, number))
        unsteady = [engine.name for engine in bench.engines if engine.timings[number].unsteady]
        parts += _verdicts(bench, batch, unsteady)
    if any(engine.many for engine in bench.engines):
        parts.append(_many(bench))
        unsteady = [engine.name for engine in bench.engines if engine.many and engine.many.unsteady]
        parts += _verdicts(bench, None, unsteady)
    untrained = [engine.name for engine in bench.engines if not engine.trained]
    if untrained:
        parts.append(Text(f"* {UNTRAINED.format(', '.join(untrained))}"))
    parts += [Text(f"* {note}") for note in bench.notes]
    parts += [_layers(name, bench.batches[0], layers) for name, layers in bench.layers.items()]
    return Group(*parts)


def _verdicts(bench: Bench, batch: Optional[int], unsteady: Sequence[str]) -> List[RenderableType]:
    found = [Text(sentence(verdict)) for verdict in bench.verdicts if verdict.batch == batch]
    return [*found, Text(f"unsteady: {', '.join(unsteady)}\n" if unsteady else "")]


def sentence(verdict: Verdict) -> str:
    if verdict.shown:
        return f"{verdict.faster} is {verdict.ratio:.2f}x faster than {verdict.slower}"
    return f"{verdict.faster} and {verdict.slower}: no difference shown (medians {verdict.ratio:.2f}x apart, within noise)"


def _table(bench: Bench, number: int) -> Table:
    timings = [engine.timings[number] for engine in bench.engines]
    batch, threads = bench.batches[number], count(bench.threads, "thread")
    powered = any(timing.power and timing.power.joules_per_image is not None for timing in timings)
    # Engines have their backend and precision for a name, unless they were renamed.
    told = all(engine.name == f"{engine.backend}-{engine.precision}" for engine in bench.engines)
    right = ["p50 ms", "±", "p90", "p99", "img/s", "first s", "peak MB"]
    right += ["mJ/img"] * powered + ["top-1 %"] * bool(bench.accuracy)
    title = f"Batch {batch}, {threads}, {count(timings[0].latency.runs, 'run')}"
    table = new_table(title, ["", "runs as"][: 1 if told else 2], right)
    table.padding = (0, 1, 0, 0)  # all columns at once are wide
    for engine, timing in zip(bench.engines, timings):
        took = timing.latency
        cells = [milliseconds(took.p50), f"{timing.p50.half_width(took.p50):.0%}"]
        cells += map(milliseconds, (took.p90, took.p99, took.images_per_second, timing.first_seconds))
        cells.append(megabytes(timing.peak_memory))
        if powered:
            joules = None if timing.power is None else timing.power.joules_per_image
            cells.append("-" if joules is None else f"{1e3 * joules:.3g}")
        if bench.accuracy:
            scored = bench.accuracy.get(engine.name)
            cells.append("-" if scored is None else f"{100 * scored.value:.1f}")
        names = [Text(engine.name), Text(f"{engine.backend} {engine.precision}")][: 1 if told else 2]
        table.add_row(*names, *cells)
    return table


def _many(bench: Bench) -> Table:
    """Throughput mode."""
    title = f"Many faces, {count(bench.threads, 'thread')}"
    table = new_table(title, [""], ["img/s", "±", "ms/img", "faces a turn", "peak MB"])
    for engine in bench.engines:
        if engine.many:
            took = engine.many
            rate = (
                milliseconds(took.images_per_second),
                f"{took.interval.half_width(took.p50):.0%}",
                milliseconds(took.p50),
            )
            table.add_row(Text(engine.name), *rate, str(took.faces), megabytes(took.peak_memory))
    return table


def render_changes(found: Sequence[Change], notes: Sequence[str], before: str) -> Group:
    """Against an older benchmark: a row for each engine and batch, the worst first."""
    table = new_table(f"Against {before}", [""], ["batch", "then ms", "now ms", "now / then"])
    table.add_column("", no_wrap=True)
    for change in found:
        style = "bold red" if change.verdict == SLOWER else ""
        numbers = (milliseconds(change.before), milliseconds(change.after), f"{change.ratio:.2f}")
        batch = "many" if change.batch is None else str(change.batch)
        table.add_row(Text(change.name), batch, *numbers, Text(change.verdict, style))
    compared: List[RenderableType] = [table if found else Text(f"Against {before}: nothing to compare")]
    return Group(*compared, *(Text(f"* {note}") for note in notes))


def render_pipeline(bench: PipelineBench) -> Group:
    """Where it was measured, each engine's rate, where the time of a frame goes, and what a reader must know."""
    place, asked, first = bench.environment, bench.request, bench.engines[0]
    title = f"{printable(asked.source)}: {first.faces:.1f} faces a frame; {bench.detector}"
    right = ["frames/s", "of passes", "CPU ms", "p50 ms", "p99 ms", "no network %", "peak MB"]
    made = f"{first.passes} x {count(first.frames, 'frame')}"
    rates = new_table(f"Pipeline, {count(bench.threads, 'thread')}, {made}", [""], right)
    known = [name for name in STAGES if name in first.stages]
    stages = new_table("Where the time of a frame goes, mean ms", [""], [*known, "all"])
    for engine in bench.engines:
        rates.add_row(
            Text(engine.name),
            milliseconds(engine.rate),
            f"{milliseconds(engine.slowest)}-{milliseconds(engine.fastest)}",
            *map(milliseconds, (engine.processor, engine.p50, engine.p99)),
            f"{100 * engine.no_network:.0f}",
            megabytes(engine.peak_memory),
        )
        cells = {name: milliseconds(engine.stages[name]) for name in known}
        cells["detect"] += f" (network {milliseconds(engine.detector_network)})"
        stages.add_row(Text(engine.name), *cells.values(), milliseconds(sum(engine.stages.values())))
    untrained = [engine.name for engine in bench.engines if not engine.trained]
    notes = [UNTRAINED.format(", ".join(untrained))] if untrained else []
    return Group(
        Text(f"{place.cpu}, {count(place.cores, 'core')}; {place.system}; {place.date}"),
        Text(", ".join(f"{name} {version}" for name, version in place.versions.items())),
        Text(title),
        rates,
        stages,
        *(Text(f"* {note}") for note in [*notes, *bench.notes]),
    )


def _layers(name: str, batch: int, layers: Sequence[LayerTime]) -> Table:
    """The slowest layers of one engine."""
    shown = layers[:LISTED]
    part = sum(layer.share for layer in shown)
    table = new_table(
        f"{name} at batch {batch}: the slowest {len(shown)} of {count(len(layers), 'layer')}, {part:.0%} of the time",
        [],
        ["ms", "%", "sum %"],
    )
    table.add_column("layer", overflow="fold")
    table.add_column("kernel", overflow="fold")
    reached = 0.0
    for layer in shown:
        reached += layer.share
        shares = (f"{100 * layer.share:.1f}", f"{100 * reached:.0f}")
        table.add_row(f"{1e3 * layer.seconds:.3f}", *shares, Text(short_name(layer.name)), Text(layer.kernel))
    return table


def short_name(layer: str) -> str:
    """Without what the exporter puts before every layer's name, and OpenVINO behind every convolution's."""
    for ending in ("/WithoutBiases", "/conv/Conv"):
        layer = layer[: -len(ending)] if layer.endswith(ending) else layer
    return layer[len("/model/") :] if layer.startswith("/model/") else layer


TASK = "the picture is drawn"
MARKERS = "osD^vP*X"


def require_matplotlib() -> None:
    """AmpnetError where it is missing: asked before anything is measured."""
    load_figure(TASK)


def draw_benchmark(path: Path, bench: Bench) -> None:
    """PNG. Bars are the intervals of the medians, and Wilson's of top-1. AmpnetError without matplotlib."""
    scored = [engine for engine in bench.engines if engine.name in bench.accuracy]
    figure = load_figure(TASK)(figsize=(10 if scored else 6, 4.2), layout="constrained")
    axes = figure.subplots(1, 2 if scored else 1, squeeze=False)[0]
    _latency(axes[0], bench)
    if scored:
        _accuracy(axes[1], bench)
    place = bench.environment
    threads = "" if bench.gpu else f", {bench.threads} of {place.cores} cores"
    figure.suptitle(f"{bench.gpu or place.cpu}{threads}; {place.date[:10]}", fontsize=9)
    # One legend for both panels, beside neither curve.
    columns = min(4, len(bench.engines))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=columns, fontsize=8)
    figure.savefig(path, dpi=120, format="png")


def _latency(axes: Any, bench: Bench) -> None:
    for i, engine in enumerate(bench.engines):
        middle = [timing.latency.p50 / timing.batch for timing in engine.timings]
        low = [(timing.latency.p50 - timing.p50.low) / timing.batch for timing in engine.timings]
        high = [(timing.p50.high - timing.latency.p50) / timing.batch for timing in engine.timings]
        axes.errorbar(bench.batches, middle, yerr=[low, high], label=engine.name, capsize=3, **_style(i))
        hollow = [(batch, y) for batch, y, timing in zip(bench.batches, middle, engine.timings) if timing.unsteady]
        for batch, y in hollow:
            axes.plot([batch], [y], **_style(i), markerfacecolor="white", zorder=3)
        if engine.many:
            axes.axhline(engine.many.p50, color=_style(i)["color"], linestyle=":")
    axes.set_xscale("log", base=2)
    axes.set_xticks(bench.batches, [str(batch) for batch in bench.batches])
    axes.minorticks_off()
    dotted = "; dotted: many faces" if any(engine.many for engine in bench.engines) else ""
    marked = "; hollow: unsteady" if any(timing.unsteady for engine in bench.engines for timing in engine.timings) else ""
    axes.set(xlabel=f"batch{dotted}{marked}", ylabel="ms an image (median)")
    axes.grid(alpha=0.3)


def _accuracy(axes: Any, bench: Bench) -> None:
    for i, engine in enumerate(bench.engines):
        if engine.name not in bench.accuracy:
            continue
        timing, top1 = engine.timings[0], bench.accuracy[engine.name]
        across = [[timing.latency.p50 - timing.p50.low], [timing.p50.high - timing.latency.p50]]
        along = [[100 * (top1.value - top1.low)], [100 * (top1.high - top1.value)]]
        style = {**_style(i), **({"markerfacecolor": "white"} if timing.unsteady else {})}
        axes.errorbar([timing.latency.p50], [100 * top1.value], xerr=across, yerr=along, capsize=3, **style)
    axes.set(xlabel=f"latency at batch {bench.batches[0]}, ms", ylabel="top-1, %")
    axes.grid(alpha=0.3)


def _style(number: int) -> dict[str, str]:
    return {"marker": MARKERS[number % len(MARKERS)], "color": f"C{number % 10}"}
