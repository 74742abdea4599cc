"""A comparison as tables for a terminal of 100 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ampnet_opt.benchmarks.compare import Report, Result
from ampnet_opt.core.console import new_table
from ampnet_opt.core.metrics import Estimate
from ampnet_opt.core.text import count

DRAWN = "The faces are drawn: accuracy on them is not accuracy on photographs. --data takes yours."
RECALL_COLUMNS = 4  # subjects side by side; more go to a further table


def render_comparison(report: Report) -> Group:
    """Where it was measured, what a reader must know, and the tables of accuracy, speed and recall."""
    parts: list[RenderableType] = [Text(line) for line in heading(report)]
    parts += [Text(f"* {note}") for note in report.notes]
    parts += [_accuracy(report), *_detected(report), _speed(report)]
    if any(result.power and result.power.watts is not None for result in report.results):
        parts.append(_power(report))
    parts += [
        _recall(report, report.results[start : start + RECALL_COLUMNS])
        for start in range(0, len(report.results), RECALL_COLUMNS)
    ]
    return Group(*parts)


def heading(report: Report) -> list[str]:
    place = report.environment
    return [
        f"{report.checkpoint} ({report.checkpoint_sha256[:12]}), {faces_of(report)}, batch {report.batch}, "
        f"{count(report.threads, 'thread')}",
        *([DRAWN] if report.drawn else []),
        f"{place.cpu}, {count(place.cores, 'core')}; {place.system}; {place.date}",
        ", ".join(f"{name} {version}" for name, version in place.versions.items()),
    ]


def faces_of(report: Report) -> str:
    """ "700 drawn faces", "1 face"."""
    return count(report.faces, "drawn face" if report.drawn else "face")


def percent(estimate: Estimate) -> str:
    """A share and its interval in per cent: 84.2 [80.1, 87.6]."""
    value, low, high = (100 * share for share in (estimate.value, estimate.low, estimate.high))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def milliseconds(value: float) -> str:
    """Three digits at least, and no more after the point than a clock is good for."""
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def megabytes(size: int | None) -> str:
    """MB = 1e6 bytes; a dash where the system does not tell."""
    return "-" if size is None else f"{size / 1e6:.1f}" if size < 100e6 else f"{size / 1e6:.0f}"


def ratio(base: float, value: float) -> str:
    """How many times faster than `base`: 2.41x."""
    return f"{base / value:.2f}x"


def _accuracy(report: Report) -> Table:
    right = ["top-1 %", "macro-F1 %", "same top-1 %", "largest |d|", "mean |d|"]
    table = new_table("Accuracy, and agreement with PyTorch (d: difference of a logit)", [""], right)
    for result in report.results:
        same = result.agreement
        against = [percent(same.same_top1), f"{same.largest:.2g}", f"{same.mean:.2g}"]
        scores = [percent(result.accuracy.top1), percent(result.accuracy.macro_f1)]
        table.add_row(Text(result.name), *scores, *(against if result is not report.results[0] else ["-"] * 3))
    return table


def _detected(report: Report) -> list[RenderableType]:
    """What detection costs: answers for the data set's landmarks beside those for detected faces."""
    if report.detected is None:
        return []
    faces = report.detected.faces
    right = ["top-1 %, given landmarks", "top-1 %, detected faces", "same answer %"]
    table = new_table("What detection costs, over all faces; one that is not found counts as wrong", [""], right)
    for result, scores in zip(report.results, report.detected.scores):
        same = "-" if scores.same_top1 is None else percent(scores.same_top1)
        table.add_row(Text(result.name), percent(result.accuracy.top1), percent(scores.top1), same)
    error = "" if faces.landmark_error is None else f", landmarks {faces.landmark_error:.1%} of the eye distance off"
    return [table, Text(f"{percent(faces.found)} % of the faces found{error}; {faces.detector}\n")]


def _speed(report: Report) -> Table:
    title = (
        f"Speed at batch {report.batch}, {count(report.threads, 'thread')}, {count(report.results[0].latency.runs, 'run')}"
    )
    right = ["p50 ms", "p90 ms", "p99 ms", "img/s", "ratio", "size MB", "peak MB"]
    table = new_table(title, ["", "runs as"], right)
    base = report.results[0].latency.p50
    for result in report.results:
        took = result.latency
        table.add_row(
            Text(result.name),
            f"{result.backend} {result.precision}",
            *map(milliseconds, (took.p50, took.p90, took.p99, took.images_per_second)),
            ratio(base, took.p50),
            megabytes(result.size),
            megabytes(result.peak_memory),
        )
    return table


def _power(report: Report) -> Table:
    table = new_table("Power, energy and heat", [""], ["W", "mJ/image", "hottest C", "GPU MHz", "of MHz"])
    for result in report.results:
        power = result.power
        if power is None or power.watts is None or power.joules_per_image is None:
            continue
        hottest = max(power.temperatures.values(), default=None)
        table.add_row(
            Text(result.name),
            f"{power.watts:.2f}",
            f"{1e3 * power.joules_per_image:.3g}",
            *("-" if value is None else f"{value:.0f}" for value in (hottest, power.gpu_mhz, power.gpu_mhz_max)),
        )
    return table


def _recall(report: Report, results: Sequence[Result]) -> Table:
    table = new_table("Recall of each class, %", ["class"], ["faces", *(result.name for result in results)])
    for i, row in enumerate(results[0].accuracy.recalls):
        found = [percent(result.accuracy.recalls[i].recall) for result in results]
        table.add_row(Text(row.name), str(row.faces), *found)
    return table
