"""The sections of a page that look inside: sensitivity of layers, their activations, single faces."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

from ampnet_opt.benchmarks.compare import REFERENCE
from ampnet_opt.benchmarks.page.charts import bar, histogram
from ampnet_opt.benchmarks.page.data import Activation, Answer, Moved, Page
from ampnet_opt.benchmarks.page.html import Html, element, join, row, signed, table
from ampnet_opt.core.text import count
from ampnet_opt.sensitivity.analysis import Row, Sensitivity
from ampnet_opt.sensitivity.effect import Effect

SHORTEST = 1e-5  # of a divergence that is written out; smaller ones would take more room than the bar beside them
FIRST = 20  # rows of the ranking before the rest is folded away
EXPLAINED = {
    "only": "Each row is the network in FP32 with only this {kind} in INT8; the longer the bar, the more it costs.",
    "all-but": "Each row is the network in INT8 with only this {kind} in FP32; the shorter the bar, the more that helps.",
}


def sensitivity(found: Sensitivity) -> Html:
    kind = found.rows[0].kind if found.rows else "layer"
    first, rest = found.rows[:FIRST], found.rows[FIRST:]
    where = (
        f"Measured on {count(found.faces, 'face')} ({found.data_fingerprint[:12]}) with {found.method} calibration. KL is "
        "the mean divergence of the class probabilities from those of FP32, SQNR of the logits; points are of top-1, from "
        f"FP32's {100 * found.reference_top1:.1f} %."
    )
    folded = None
    if rest:
        summary = element("summary", f"{count(len(rest), 'more ' + kind)}")
        folded = element("details", summary, _ranking(found, rest, f"The other {kind}s"))
    title = f"The {len(first)} most sensitive {kind}s" if rest else f"All {kind}s, the most sensitive first"
    whole = _effect("", f"every {kind} in INT8", found.int8, found, 0)
    return join(
        element("p", EXPLAINED[found.mode].format(kind=kind), " ", where, class_="quiet"),
        _ranking(found, first, title, whole),
        folded,
    )


def nats(value: float) -> str:
    """A divergence in three digits, however small: 1.25, 0.00312, 9.9e-06."""
    if 0 < value < SHORTEST:
        return f"{value:.1e}"
    return f"{value:.{max(2, 2 - math.floor(math.log10(value)))}f}" if value else "0"


def _ranking(found: Sensitivity, rows: Sequence[Row], title: str, *before: Html) -> Html:
    largest = max(unit.effect.kl for unit in found.rows) if found.rows else 0.0
    lines = [_effect(unit.name, _path(unit.name, "."), unit.effect, found, largest) for unit in rows]
    heads = ["KL, nats", "", "SQNR dB", "same top-1 %", "points"]
    return element("div", table(title, heads, [*before, *lines], "numbers ranking"), class_="scroll", tabindex=0)


def _effect(name: str, head: str, effect: Effect, found: Sensitivity, largest: float) -> Html:
    """largest: divergence that fills the width; 0 for a row without a bar."""
    kl = nats(effect.kl)
    drawn = bar(effect.kl, largest, f"{name}: KL {kl} nats", "engine") if largest else None
    return row(
        head,
        kl,
        element("td", drawn, class_="plot"),
        f"{effect.sqnr_db:.1f}",
        f"{100 * effect.agreement:.1f}",
        signed(100 * (effect.top1 - found.reference_top1), 1),
    )


def _path(name: str, separator: str) -> Html:
    """A dotted or slashed name that may be broken behind its separators."""
    first, *rest = name.split(separator)
    broken = [join(separator, element("wbr"), part) for part in rest]
    return element("code", first, *broken)


def activations(found: Sequence[Activation]) -> Html | None:
    """A histogram for each tensor, or None when there are none."""
    if not found:
        return None
    figures = []
    for tensor in found:
        seen = tensor.histogram
        beyond = f"{100 * tensor.clipped:.2g} % beyond" if tensor.clipped else "nothing beyond"
        label = f"{tensor.layer}: magnitudes up to {seen.amax:.3g}, range {tensor.covered:.3g}, {beyond}"
        caption = element(
            "figcaption",
            element("b", tensor.layer),
            element("span", f" {beyond}", class_="quiet"),
            element("br"),
            _path(tensor.tensor, "/"),
        )
        drawn = element("p", "only zeros")
        if seen.width:
            drawn = histogram(seen.counts, seen.width, seen.amax, tensor.covered, label)
        figures.append(element("figure", caption, drawn))
    return join(
        element(
            "p",
            f"Magnitudes of what each layer reads, on {count(found[0].faces, 'face')}: how many values (log scale) have "
            f"which magnitude. The line is the range that {found[0].engine} holds in INT8; what lies beyond is clipped.",
            class_="quiet",
        ),
        element("div", *figures, class_="grid"),
    )


def moved(page: Page) -> Html | None:
    """For each INT8 engine, the faces whose probabilities moved most; None where there is no such engine."""
    if not page.moved:
        return None
    shown = "This page contains faces: pass it on only where the people in them and the terms of their data set allow it."
    hidden = "The pictures were left out; the names are those of the files."
    parts = [
        element(
            "p",
            f"Answers with their probability in per cent, and the class whose probability moved most from {REFERENCE} to "
            "INT8, in points; the largest move first.",
            class_="quiet",
        ),
        element("p", element("b", shown if page.pictures else hidden)),
    ]
    for engine, faces in page.moved.items():
        parts.append(element("h3", engine, class_="second"))
        parts.append(element("div", *[_card(face, engine) for face in faces], class_="grid cards"))
    return join(*parts)


def _card(face: Moved, engine: str) -> Html:
    picture = None
    if face.picture is not None:
        source = f"data:image/jpeg;base64,{base64.b64encode(face.picture).decode()}"
        picture = element("img", src=source, alt=f"face labelled {face.label}, file {face.name}", width=96, height=96)
    answers = element(
        "table",
        element("caption", face.name),
        element(
            "tbody",
            _line("label", face.label, ""),
            _answer(REFERENCE, face.reference, face.label),
            _answer(engine, face.engine, face.label),
            _line("moved", face.apart, signed(100 * face.difference, 1)),
        ),
    )
    return element("div", picture, answers, class_="face")


def _answer(who: str, answer: Answer, label: str) -> Html:
    name = answer.name if answer.name == label else element("span", answer.name, class_="wrong")
    return _line(who, name, f"{100 * answer.probability:.1f}")


def _line(name: str, text: str, number: str) -> Html:
    return row(name, element("td", text, class_="left"), number)
