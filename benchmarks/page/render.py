"""A comparison as one HTML page that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ampnet_opt.benchmarks.compare import METHOD, Report
from ampnet_opt.benchmarks.page.data import Page
from ampnet_opt.benchmarks.page.details import activations, moved, sensitivity
from ampnet_opt.benchmarks.page.html import Html, document, element, join
from ampnet_opt.benchmarks.page.scores import accuracy, confusions, speed
from ampnet_opt.benchmarks.report import DRAWN, faces_of, megabytes
from ampnet_opt.core.text import count


def render_page(page: Page) -> str:
    """The whole page. What was not measured has no section."""
    sections = [
        ("accuracy", "Accuracy", accuracy(page)),
        ("confusion", "Confusion matrices", confusions(page)),
        ("speed", "Speed and size", speed(page.report)),
        ("sensitivity", "Sensitivity to INT8", None if page.sensitivity is None else sensitivity(page.sensitivity)),
        ("activations", "Activations of the most sensitive layers", activations(page.activations)),
        ("faces", "Faces that moved most", moved(page)),
        ("method", "How it was measured", notes(METHOD)),
    ]
    shown = [(name, title, content) for name, title, content in sections if content]
    title = f"{Path(page.report.checkpoint).name}: INT8 against FP32{' on drawn faces' if page.report.drawn else ''}"
    return document(
        title,
        element(
            "header",
            element("h1", title),
            findings(page.report),
            warnings(page.report),
            facts(page.report),
            element("nav", *[element("a", title, href=f"#{name}") for name, title, _ in shown], aria_label="Sections"),
        ),
        element(
            "main",
            *[element("section", element("h2", title), content, id=name) for name, title, content in shown],
        ),
    )


def findings(report: Report) -> Html:
    """A sentence for each engine."""
    base, *engines = report.results
    lines = []
    for engine in engines:
        top1, before, same = (e.value for e in (engine.accuracy.top1, base.accuracy.top1, engine.agreement.same_top1))
        lines.append(
            element(
                "li",
                element("b", engine.name),
                f": top-1 {100 * top1:.1f} % ({base.name}: {100 * before:.1f} %), the same answer on {100 * same:.1f} % of "
                f"{faces_of(report)}, {base.latency.p50 / engine.latency.p50:.2f} times as fast at batch {report.batch}"
                f"{' (unsteady times)' if base.unsteady or engine.unsteady else ''}, {megabytes(engine.size)} MB.",
            )
        )
    return element("ul", *lines, class_="findings") if lines else join()


def warnings(report: Report) -> Html | None:
    found = [*([DRAWN] if report.drawn else []), *(note for note in report.notes if note not in METHOD)]
    return element("ul", *[element("li", note) for note in found], class_="warnings") if found else None


def facts(report: Report) -> Html:
    place = report.environment
    pairs = [
        ("Checkpoint", report.checkpoint),
        ("SHA-256", element("code", report.checkpoint_sha256)),
        (
            "Measured",
            f"{faces_of(report)}, batch {report.batch}, {count(report.threads, 'thread')}, {place.date}",
        ),
        ("Machine", f"{place.cpu}, {count(place.cores, 'core')}; {place.system}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in place.versions.items())),
    ]
    return element("dl", *[join(element("dt", name), element("dd", value)) for name, value in pairs], class_="facts")


def notes(lines: Sequence[str]) -> Html:
    return element("ul", *[element("li", line) for line in lines], class_="notes")
