"""The sections of a page about whole engines: accuracy, confusion matrices, speed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ampnet_opt.benchmarks.compare import REFERENCE, Report, Result
from ampnet_opt.benchmarks.page.charts import WHOLE, Axis, axis_over, bar, interval, scale
from ampnet_opt.benchmarks.page.data import Page
from ampnet_opt.benchmarks.page.html import Html, element, join, row, signed, table
from ampnet_opt.benchmarks.report import megabytes, milliseconds, percent, ratio
from ampnet_opt.core.metrics import Estimate
from ampnet_opt.core.text import count


def accuracy(page: Page) -> Html:
    results = page.report.results
    engines = results[1:]
    parts = [
        estimates("Top-1, %", results, [r.accuracy.top1 for r in results]),
        estimates("Macro-F1, %", results, [r.accuracy.macro_f1 for r in results]),
    ]
    if engines:
        same = [r.agreement.same_top1 for r in engines]
        parts += [estimates(f"Same answer as {REFERENCE}, %", engines, same, reference=1.0), differences(page)]
    found = [of_class.recall for r in results for of_class in r.accuracy.recalls]
    axis = axis_over(found) if found else WHOLE  # one for all classes, so that they compare
    recalls = [
        estimates(
            join(of_class.name, element("small", f" {count(of_class.faces, 'face')}")),
            results,
            [r.accuracy.recalls[i].recall for r in results],
            axis,
        )
        for i, of_class in enumerate(results[0].accuracy.recalls)
    ]
    return join(
        element("p", f"Dots: measured. Lines: 95 % intervals. Dashed: {REFERENCE}.", class_="quiet"),
        element("div", *parts, class_="grid wide"),
        element("h3", "Recall of each class, %", class_="second"),
        element("div", *recalls, class_="grid"),
    )


def estimates(
    title: str,
    results: Sequence[Result],
    values: Sequence[Estimate],
    axis: Axis | None = None,
    reference: float | None = None,
) -> Html:
    """A table of estimates, drawn over one axis. reference: where the dashed line is, by default at the first value."""
    axis = axis or axis_over(values)
    dashed = values[0].value if reference is None else reference
    rows = []
    for result, value in zip(results, values, strict=True):
        text, _, ends = percent(value).partition(" ")
        drawn = interval(value, axis, dashed, f"{result.name}: {percent(value)} %", _kind(result))
        rows.append(row(result.name, join(text, " ", element("small", ends)), element("td", drawn, class_="plot")))
    foot = element("tr", element("td", colspan=2), element("td", scale(axis), class_="plot"))
    columns = element("colgroup", element("col", class_="who"), element("col", class_="value"), element("col"))
    parts = [element("caption", title), columns, element("tbody", *rows), element("tfoot", foot)]
    return element("table", *parts, class_="estimates")


def differences(page: Page) -> Html:
    """Who is right where an engine's answer is not the reference's."""
    rows = [
        row(
            result.name,
            *map(str, (pair.only_reference, pair.only_engine, pair.neither)),
            *(f"{d:.2g}" for d in (result.agreement.largest, result.agreement.mean)),
        )
        for result, pair in zip(page.report.results[1:], page.paired[1:], strict=True)
    ]
    heads = [f"only {REFERENCE} right", "only engine right", "both wrong", "largest |d|", "mean |d|"]
    return table("Faces answered differently, and d, the difference of a logit", heads, rows, "numbers")


def confusions(page: Page) -> Html:
    """A matrix for each subject; under a count, how it differs from the reference's."""
    matrices = [
        _matrix(result, found, None if i == 0 else page.confusions[0], page.report.classes)
        for i, (result, found) in enumerate(zip(page.report.results, page.confusions, strict=True))
    ]
    return join(
        element(
            "p",
            "Rows are labels, columns answers, in faces; the tint is the share of the row. The small number is the change "
            f"from {REFERENCE}.",
            class_="quiet",
        ),
        element("div", *matrices, class_="grid"),
    )


def _matrix(result: Result, counts: np.ndarray, reference: np.ndarray | None, classes: Sequence[str]) -> Html:
    heads = [element("th", element("span", name), scope="col", title=name) for name in classes]
    rows = []
    for i, name in enumerate(classes):
        cells = []
        for j in range(len(classes)):
            number, labelled = int(counts[i, j]), int(counts[i].sum())
            share = number / max(labelled, 1)
            change = 0 if reference is None else number - int(reference[i, j])
            kinds = ["miss"] * (i != j) + ["none"] * (number == 0)
            note = element("small", signed(change, 0)) if change else None
            cells.append(element("td", str(number), note, class_=" ".join(kinds) or None, style=f"--share: {share:.3f}"))
        rows.append(element("tr", element("th", name, scope="row"), *cells))
    top = element("tr", element("td", class_="corner"), *heads)
    parts = [element("caption", result.name), element("thead", top), element("tbody", *rows)]
    return element("table", *parts, class_="confusion")


def speed(report: Report) -> Html:
    base = report.results[0].latency.p50
    longest = max(result.latency.p90 for result in report.results)
    rows = []
    for result in report.results:
        took = result.latency
        label = f"{result.name}: p50 {milliseconds(took.p50)} ms, p90 {milliseconds(took.p90)} ms"
        kind = _kind(result)
        if result.unsteady:
            label, kind = f"{label}, unsteady", f"{kind} unsteady"
        rows.append(
            row(
                result.name,
                element("td", f"{result.backend} {result.precision}", class_="left"),
                milliseconds(took.p50),
                element("td", bar(took.p50, longest, label, kind, took.p90), class_="plot"),
                *map(milliseconds, (took.p90, took.p99, took.images_per_second)),
                ratio(base, took.p50),
                megabytes(result.size),
                megabytes(result.peak_memory),
            )
        )
    left = element("th", "runs as", scope="col", class_="left")
    heads = [left, "p50 ms", "", "p90 ms", "p99 ms", "img/s", "ratio", "size MB", "peak MB"]
    runs = count(report.results[0].latency.runs, "run")
    pale = " Pale bars are unsteady: other work disturbed them." if any(r.unsteady for r in report.results) else ""
    title = f"Latency at batch {report.batch}, {count(report.threads, 'thread')}, {runs}"
    return join(
        element("p", f"Bars are p50, their lines end at p90.{pale}", class_="quiet"),
        element("div", table(title, heads, rows, "numbers speed"), class_="scroll", tabindex=0),
    )


def _kind(result: Result) -> str:
    return "base" if result.name == REFERENCE else "engine"
