"""What `optimize` found as one HTML page: the front of accuracy against the goal, every candidate, why each lost.

Python 3.8.
"""

from __future__ import annotations

import math
from typing import Iterator, List, Optional

from ampnet_opt.benchmarks.page.html import Html, document, element, join, row, table
from ampnet_opt.benchmarks.report import milliseconds
from ampnet_opt.core.text import count
from ampnet_opt.optimize.result import METHOD, Result, missed
from ampnet_opt.optimize.speed import GOALS
from ampnet_opt.optimize.trials import Trial

TALL = 320  # height of the chart's plot, pixels


def render_page(result: Result) -> str:
    best = next((row for row in result.rows if row.name == result.best), None)
    title = "The fastest engine that is still right" if result.goal == "latency" else f"The best engine for {result.goal}"
    findings = [result.why or result.problem, *missed(result)]
    warnings = []
    if result.drawn:
        warnings.append("The faces are drawn: what holds on them need not hold on photographs. Give yours with --data.")
    if not result.trained:
        warnings.append("The weights are seeded, not trained: their answers mean nothing; agreement and speed do.")
    sections = [
        ("front", "Agreement against " + result.goal, front(result)),
        ("candidates", "Candidates", candidates(result)),
        ("proof", "What the final faces say of the best one", None if best is None else proof(best)),
        ("passed-over", "Backends that do not run here", passed_over(result)),
        ("method", "How it was measured", element("ul", *[element("li", line) for line in METHOD], class_="notes")),
    ]
    shown = [(name, heading, content) for name, heading, content in sections if content]
    return document(
        title,
        element(
            "header",
            element("h1", title),
            element("ul", *[element("li", line) for line in findings if line], class_="findings"),
            element("ul", *[element("li", line) for line in warnings], class_="warnings") if warnings else None,
            facts(result),
            element("nav", *[element("a", heading, href=f"#{name}") for name, heading, _ in shown], aria_label="Sections"),
        ),
        element("main", *[element("section", element("h2", heading), body, id=name) for name, heading, body in shown]),
    )


def facts(result: Result) -> Html:
    place = result.environment
    faces = f"{count(result.final_faces, 'face')} prove"
    if result.choosing_faces:
        faces = f"{count(result.choosing_faces, 'face')} choose, {faces}"
    margin = (
        f"top-1 may drop by {result.margin.max_drop:g} points, {result.margin.min_agreement:.1%} of the answers must agree"
    )
    pairs = [
        ("Source", result.source),
        ("Faces", faces),
        ("Allowed", margin),
        (
            "Measured",
            f"batch {result.batch}, {count(result.threads, 'thread')}, {place.date}, {result.seconds:.0f} s in all",
        ),
        ("Machine", f"{place.cpu}, {count(place.cores, 'core')}; {place.system}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in place.versions.items())),
    ]
    return element("dl", *[join(element("dt", name), element("dd", value)) for name, value in pairs], class_="facts")


def front(result: Result) -> Optional[Html]:
    """Share of equal answers, with its bound, against what a candidate takes. Those that were not scored are left out."""
    rows = [one for one in result.rows if one.speed is not None and one.evidence is not None]
    if not rows:
        return None
    lowest = min(min(map(_bound, rows)), result.margin.min_agreement)
    bottom = 1 - _round_up(1 - lowest)
    shortest, longest = 0.95 * min(map(_value, rows)), 1.05 * max(map(_value, rows))
    step = next(step for step in _round_steps() if longest - shortest <= 5 * step)
    left, right = step * math.floor(shortest / step), step * math.ceil(longest / step)

    def x(value: float) -> str:
        return f"{100 * (value - left) / (right - left):.2f}%"

    def y(share: float) -> float:
        return 12 + (TALL - 12) * (1 - share) / (1 - bottom)

    parts: List[Html] = []
    for share in (1.0, (1 + bottom) / 2, bottom):
        parts.append(element("line", x1=0, x2="100%", y1=f"{y(share):.1f}", y2=f"{y(share):.1f}", class_="grid"))
        parts.append(element("text", f"{100 * share:.2f} %", x=0, y=f"{y(share) - 4:.1f}"))
    needed = y(result.margin.min_agreement)
    parts.append(element("line", x1=0, x2="100%", y1=f"{needed:.1f}", y2=f"{needed:.1f}", class_="reference"))
    parts.append(element("text", "needed", x="100%", y=f"{needed - 4:.1f}", text_anchor="end"))
    steps = round((right - left) / step)
    for number in range(steps + 1):
        anchor = "start" if number == 0 else "end" if number == steps else "middle"
        tick = left + number * step
        parts.append(element("text", f"{tick:.6g}", x=x(tick), y=TALL + 18, text_anchor=anchor))
    taken: List[float] = []
    for one in sorted(rows, key=_value):
        found = one.evidence
        assert found is not None
        kind = "engine" if one.name == result.best else "base"
        place, middle = x(_value(one)), y(found.agreement.value)
        tail = {"y1": f"{middle:.1f}", "y2": f"{y(found.agreement.bound):.1f}", "class_": f"whisker {kind}"}
        label = f"{one.name}: {milliseconds(_value(one))} {GOALS[result.goal].unit}, {found.agreement.value:.2%}"
        parts.append(element("line", x1=place, x2=place, **tail))
        pale = " unsteady" if one.speed is not None and one.speed.unsteady else ""
        dot = element(
            "circle", element("title", label + pale), cx=place, cy=f"{middle:.1f}", r=5, class_=f"dot {kind}{pale}"
        )
        parts.append(dot)
        height = middle + 18
        while any(abs(height - other) < 14 for other in taken):  # names of neighbours stand below each other
            height += 14
        taken.append(height)
        end = _value(one) > left + 0.6 * (right - left)
        shift = {"text_anchor": "end", "dx": -8} if end else {"text_anchor": "start", "dx": 8}
        parts.append(element("text", one.name, x=place, y=f"{height:.1f}", class_="name", **shift))
    unit = GOALS[result.goal].unit
    chart = element(
        "svg",
        element("title", f"share of equal answers against {unit}"),
        *parts,
        role="img",
        width="100%",
        height=max([TALL + 24, *(height + 8 for height in taken)]),
    )
    note = f"Dots: share of PyTorch's answers. Lines end at its lower bound. Across: {unit}. Further left and up is better."
    if any(one.speed is not None and one.speed.unsteady for one in rows):
        note += " Pale dots are unsteady: other work disturbed them."
    return join(element("p", note, class_="quiet"), chart)


def _value(row: Trial) -> float:
    assert row.speed is not None
    return row.speed.value


def _bound(row: Trial) -> float:
    assert row.evidence is not None
    return row.evidence.agreement.bound


def _round_steps() -> Iterator[float]:
    for power in range(-6, 12):
        yield from (factor * 10.0**power for factor in (1, 2, 5))


def _round_up(share: float) -> float:
    return next((step for step in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if step >= share), 1.0)


def candidates(result: Result) -> Html:
    rows = []
    for found in result.rows:
        evidence, speed = found.evidence, found.speed
        cells = ["-" if speed is None else milliseconds(speed.value)]
        if result.reference is not None:
            cells.append("-" if speed is None else f"{result.reference.value / speed.value:.2f}x")
        cells.append("-" if found.sqnr_db is None else f"{found.sqnr_db:.1f}")
        cells += ["-", "-"] if evidence is None else [f"{100 * evidence.agreement.value:.2f}", f"{evidence.drop.value:.2f}"]
        what = "best" if found.name == result.best else found.fate
        rows.append(row(found.name, *cells, element("td", what, class_="left fate")))
    heads = [
        GOALS[result.goal].unit,
        *(["vs PyTorch"] if result.reference else []),
        "SQNR dB",
        "same top-1 %",
        "drop, points",
    ]
    last = element("th", "", scope="col", class_="left")
    return element(
        "div", table("Every candidate, and why it lost", [*heads, last], rows, "numbers"), class_="scroll", tabindex=0
    )


def passed_over(result: Result) -> Optional[Html]:
    lines = [element("li", element("b", name), f": {why}") for name, why in result.passed_over.items()]
    return element("ul", *lines, class_="notes") if lines else None


def proof(best: Trial) -> Optional[Html]:
    found = best.final
    if found is None:
        return None
    rows = [
        row("top-1", f"{found.drop.value:.2f}", f"{found.drop.bound:.2f}", count(int(found.counts.faces), "face")),
        row("macro-F1", f"{found.macro_f1.value:.2f}", f"{found.macro_f1.bound:.2f}", ""),
        *(
            row(f"recall of {c.name}", f"{c.drop.value:.2f}", f"{c.drop.bound:.2f}", count(c.faces, "face"))
            for c in found.recalls
        ),
    ]
    lost, won, changed = (int(n) for n in (found.counts.lost, found.counts.won, found.counts.changed))
    text = (
        f"{found.verdict}. {count(changed, 'answer')} changed: {lost} that only PyTorch has right, {won} that only the "
        f"engine has right (exact McNemar test, one-sided: p = {found.p_value:.2g})."
    )
    return join(element("p", text), table("What is lost, in points", ["drop", "at most", "over"], rows, "numbers"))
