"""The comparison of quantisers as a table for a terminal of 100 columns, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group
from rich.text import Text

from ampnet_opt.benchmarks.compare import Environment
from ampnet_opt.benchmarks.noninferiority import Counts, agreement_bound, drop_bound
from ampnet_opt.benchmarks.report import megabytes, milliseconds
from ampnet_opt.convert.build import Options
from ampnet_opt.core.console import new_table
from ampnet_opt.core.metrics import Estimate, Latency
from ampnet_opt.core.text import count

LONGEST_REASON = 10  # characters of a table's cell; the notes give all of it
LEFT = "quantiser"
RIGHT = ("same %", "at least", "top-1 %", "drop", "at most", "SQNR dB", "pairs", "s", "p50 ms", "RTX MB")
METHOD = (
    "Logits of Q/DQ graphs are ONNX Runtime's; those of NNCF and of --max-drop are their engines'.",
    "same: faces with the float graph's answer, and the one-sided 95 % bound of that share (Wilson). drop: points of top-1 "
    "that are lost, and likewise (Tango).",
    "s: seconds from the float graph to the INT8 one, nothing cached, the start of another Python included; of --max-drop, "
    "of the whole command `build`.",
    "SQNR: 10 log10 of the sum of squared float logits over that of their differences.",
    "pairs: Q/DQ pairs on activations.",
    "p50: OpenVINO engines of each graph, made and checked as `build` does (signed where our pass to UINT8 fails), batch 1, "
    "timed in turn, in rounds.",
    "RTX: size of the TensorRT-RTX plan, for the compute capabilities that `build` takes, float part in FP16.",
    "The float graph's own engine is FP32, its plan FP16.",
)


@dataclass(frozen=True)
class Result:
    """One graph, judged. A text in place of a latency, or of a plan's size in bytes, says why there is none.

    counts, sqnr (dB), seconds: None for the float graph, which the others are compared with. pairs: None where there is no
    Q/DQ graph. plan: None where there is no graph to build one from.
    """

    name: str
    top1: Estimate
    pairs: int | None
    counts: Counts | None
    sqnr: float | None
    seconds: float | None
    latency: Latency | str
    plan: int | str | None


@dataclass(frozen=True)
class QuantiserReport:
    """The first result is the float graph's. notes: what a reader must know."""

    checkpoint: str
    checkpoint_sha256: str
    trained: bool
    calibration_faces: int
    test_faces: int
    threads: int
    environment: Environment
    results: list[Result]
    notes: list[str]


def describe(results: Sequence[Result], trained: bool, python: Path | None, nncf_python: Path | None) -> list[str]:
    """The notes of a report: what is missing from the table and why, and how the rest was measured."""
    notes = [f"`build` calibrates by {Options.method} where nothing else is asked for."]
    if not trained:
        notes.append("Untrained (seeded) weights: top-1 means nothing; SQNR, latency and size do.")
    if python is None:
        notes.append("Model Optimizer's rows are left out: --modelopt-python names the Python that has it.")
    if nncf_python is None:
        notes.append("NNCF's rows are left out: --nncf-python names the Python that has it.")
    for result in results:
        missing = [(what, text) for what, text in (("CPU", result.latency), ("RTX", result.plan)) if isinstance(text, str)]
        notes += [f"{result.name}, no {what} engine: {text}" for what, text in missing]
    return [*notes, *METHOD]


def render_quantisers(report: QuantiserReport) -> Group:
    """Heading, table and notes for a terminal."""
    table = new_table("Quantisers", [LEFT], RIGHT)
    for result in report.results:
        table.add_row(Text(result.name), *map(Text, cells(result)))
    return Group(*map(Text, heading(report)), table, *(Text(f"* {note}") for note in report.notes))


def cells(result: Result) -> list[str]:
    """A row of the table, the name left out."""
    took, plan, counts = result.latency, result.plan, result.counts
    return [
        "-" if counts is None else f"{100 * (1 - counts.changed / counts.faces):.1f}",
        "-" if counts is None else f"{100 * agreement_bound(counts):.1f}",
        f"{100 * result.top1.value:.1f}",
        "-" if counts is None else f"{100 * (counts.lost - counts.won) / counts.faces:.2f}",
        "-" if counts is None else f"{100 * drop_bound(counts):.2f}",
        "-" if result.sqnr is None else f"{result.sqnr:.1f}",
        "-" if result.pairs is None else str(result.pairs),
        "-" if result.seconds is None else f"{result.seconds:.0f}",
        milliseconds(took.p50) if isinstance(took, Latency) else _short(took),
        "-" if plan is None else megabytes(plan) if isinstance(plan, int) else _short(plan),
    ]


def _short(reason: str) -> str:
    return reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 1].rstrip() + "…"


def heading(report: QuantiserReport) -> list[str]:
    place = report.environment
    return [
        f"{Path(report.checkpoint).name} ({report.checkpoint_sha256[:12]}), {count(report.calibration_faces, 'face')} to "
        f"calibrate, {report.test_faces} to score, {count(report.threads, 'thread')}",
        f"{place.cpu}, {count(place.cores, 'core')}; {place.date}",
        ", ".join(f"{name} {text}" for name, text in place.versions.items()),
    ]


def to_markdown(report: QuantiserReport) -> str:
    """Heading, table and notes for a page of documentation."""
    rows = [[LEFT, *RIGHT], ["---", *["---:"] * len(RIGHT)], *([r.name, *cells(r)] for r in report.results)]
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    return "\n\n".join(["  \n".join(heading(report)), table, "\n".join(f"* {note}" for note in report.notes)])
