"""The picture of a benchmark: latency against batch, and accuracy against latency where accuracy is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ampnet_opt.benchmarks.bench import Bench
from ampnet_opt.core.plot import load_figure

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
        if engine.many:
            axes.axhline(engine.many.p50, color=_style(i)["color"], linestyle=":")
    axes.set_xscale("log", base=2)
    axes.set_xticks(bench.batches, [str(batch) for batch in bench.batches])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    dotted = "; dotted: many faces" if any(engine.many for engine in bench.engines) else ""
    axes.set(xlabel=f"batch{dotted}", ylabel="ms an image (median)")
    axes.grid(alpha=0.3)


def _accuracy(axes: Any, bench: Bench) -> None:
    for i, engine in enumerate(bench.engines):
        if engine.name not in bench.accuracy:
            continue
        timing, top1 = engine.timings[0], bench.accuracy[engine.name]
        across = [[timing.latency.p50 - timing.p50.low], [timing.p50.high - timing.latency.p50]]
        along = [[100 * (top1.value - top1.low)], [100 * (top1.high - top1.value)]]
        axes.errorbar([timing.latency.p50], [100 * top1.value], xerr=across, yerr=along, capsize=3, **_style(i))
    axes.set_xlim(left=0)
    axes.set(xlabel=f"latency at batch {bench.batches[0]}, ms", ylabel="top-1, %")
    axes.grid(alpha=0.3)


def _style(number: int) -> dict[str, str]:
    return {"marker": MARKERS[number % len(MARKERS)], "color": f"C{number % 10}"}
