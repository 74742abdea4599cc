"""Small charts as inline SVG. Places across are in per cent, so that a chart is as wide as its cell and its text stays
readable; places down are in pixels. Colours come from the style sheet, by class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ampnet_opt.benchmarks.page.html import Html, element
from ampnet_opt.core.metrics import Estimate

ROW = 28  # height of a chart in a table's row, pixels
ABOVE, TALL = 18, 150  # of a histogram: room for the range's name, height of the plot, pixels
COLUMNS = 96  # of a histogram
AFTER = "\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}"  # between a line and its name
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """Shares from `low` to `high`, with a tick every `step`."""

    low: float
    high: float
    step: float

    def at(self, share: float) -> float:
        """Place of a share, in per cent of the width."""
        return 100 * (share - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        return [self.low + i * self.step for i in range(round((self.high - self.low) / self.step) + 1)]


WHOLE = Axis(0.0, 1.0, 0.5)


def axis_over(estimates: Sequence[Estimate]) -> Axis:
    """The shortest axis of at most four round steps, within [0, 1], that holds every interval."""
    low, high = min(e.low for e in estimates), max(e.high for e in estimates)
    for step in (0.01, 0.02, 0.05, 0.1, 0.2):
        # A hair's breadth of rounding must not add a step.
        start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if end - start <= 4:
            if start == end:
                start, end = (start, end + 1) if low < 0.5 else (start - 1, end)
            return Axis(start * step, end * step, step)
    return WHOLE


def interval(estimate: Estimate, axis: Axis, reference: float, label: str, kind: str) -> Html:
    """A dot with its confidence interval, over the axis's grid and a line at the reference's value."""
    middle = ROW / 2
    return _chart(
        label,
        ROW,
        *_grid(axis, ROW),
        _upright(axis.at(reference), ROW, "reference"),
        _level(axis.at(estimate.low), axis.at(estimate.high), middle, f"whisker {kind}"),
        element("circle", cx=_percent(axis.at(estimate.value)), cy=middle, r=4, class_=f"dot {kind}"),
    )


def scale(axis: Axis) -> Html:
    """The axis's numbers, in per cent; the first and the last stay within the chart."""
    ticks = axis.ticks()
    texts = [
        _text(axis.at(tick), 12, f"{100 * tick:.0f}", "start" if i == 0 else "end" if i == len(ticks) - 1 else None)
        for i, tick in enumerate(ticks)
    ]
    label = f"axis from {100 * axis.low:.0f} to {100 * axis.high:.0f} per cent"
    return _chart(label, 16, *_grid(axis, 4), *texts)


def bar(value: float, largest: float, label: str, kind: str, whisker: float | None = None) -> Html:
    """A bar from zero, `largest` being the whole width, and a whisker on to a second value."""
    width = 100 * value / largest if largest > 0 else 0.0
    line = None
    if whisker is not None:
        line = _level(width, 100 * whisker / largest, ROW / 2, "whisker tail")
    return _chart(
        label,
        ROW,
        element("rect", x=0, y=8, width=_percent(width), height=ROW - 16, class_=f"bar {kind}"),
        line,
    )


def histogram(counts: np.ndarray, width: float, amax: float, covered: float, label: str) -> Html:
    """Counts int64 [bins] of magnitudes in bins of `width` up to `amax`, on a log scale; what is over `covered` stands out.

    Neighbouring bins are added up to at most `COLUMNS` columns. width: over 0.
    """
    used = math.ceil(max(amax, covered) / width)
    merged = -(-used // COLUMNS)
    columns = -(-used // merged)
    kept = counts[:used]
    heights = np.pad(kept, (0, columns * merged - len(kept))).reshape(columns, merged).sum(1)
    end = columns * merged * width
    top = max(1, math.ceil(math.log10(max(int(heights.max()), 1))))
    cut, largest = 100 * covered / end, 100 * amax / end
    bottom = ABOVE + TALL
    levels, names = [], []
    for power in range(0, top + 1, -(-top // 4)):
        y = bottom - TALL * _log_height(10**power, top)
        levels.append(_level(0, 100, y, "grid"))
        names.append(
            _text(100, y + 4, AFTER + "1" if power == 0 else f"{AFTER}10{str(power).translate(SUPERSCRIPT)}", "start")
        )
    return _chart(
        label,
        bottom + 18,
        *levels,
        _outline(heights, top, 0, cut, "inside"),
        _outline(heights, top, cut, 100, "beyond"),
        _upright(cut, bottom, "range"),
        _beside(cut, 11, f"range {covered:.3g}", "name"),
        *names,
        _text(0, bottom + 15, "0", "start"),
        _beside(largest, bottom + 15, f"largest {amax:.3g}"),
        kind="histogram",
    )


def _log_height(count: float, top: int) -> float:
    """Of a count, as a share of the plot's height. One value is seen: the scale begins at a half."""
    start = math.log10(0.5)
    return (math.log10(count) - start) / (top - start) if count > 0 else 0.0


def _outline(heights: np.ndarray, top: int, start: float, end: float, kind: str) -> Html:
    """The columns between two places across, as one filled step line stretched to the chart's width."""
    columns = len(heights)
    first, last = start / 100 * columns, end / 100 * columns
    steps = [f"M{first:.2f} 100"]
    for i in range(int(first), math.ceil(last)):
        y = 100 * (1 - _log_height(int(heights[i]), top))
        steps.append(f"L{max(i, first):.2f} {y:.1f}L{min(i + 1, last):.2f} {y:.1f}")
    path = element("path", d=f"{''.join(steps)}L{last:.2f} 100Z", class_=kind)
    box = f"0 0 {columns} 100"
    return element("svg", path, y=ABOVE, width="100%", height=TALL, viewBox=box, preserveAspectRatio="none")


def _chart(label: str, height: float, *parts: Html | None, kind: str | None = None) -> Html:
    content = [element("title", label), *parts]
    return element("svg", *content, role="img", aria_label=label, width="100%", height=height, class_=kind)


def _grid(axis: Axis, height: float) -> list[Html]:
    return [_upright(axis.at(tick), height, "grid") for tick in axis.ticks()]


def _upright(place: float, height: float, kind: str) -> Html:
    return element("line", x1=_percent(place), x2=_percent(place), y1=0, y2=height, class_=kind)


def _level(start: float, end: float, y: float, kind: str) -> Html:
    return element("line", x1=_percent(start), x2=_percent(end), y1=f"{y:.1f}", y2=f"{y:.1f}", class_=kind)


def _text(place: float, y: float, text: str, anchor: str | None, kind: str | None = None) -> Html:
    return element("text", text, x=_percent(place), y=f"{y:.1f}", text_anchor=anchor or "middle", class_=kind)


def _beside(place: float, y: float, text: str, kind: str | None = None) -> Html:
    """Text that ends or starts at a place, on the side where there is room."""
    return _text(place, y, text + AFTER, "end", kind) if place > 50 else _text(place, y, AFTER + text, "start", kind)


def _percent(place: float) -> str:
    return f"{place:.2f}%"
