"""The picture of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ampnet_opt.core.plot import load_figure


def draw_curve(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Loss on the left axis, top-1 and macro-F1 of the validation faces on the right, over epochs, as PNG."""
    figure = load_figure("training draws its curve")(figsize=(7, 4), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) == 1 else None
    lines = left.plot(epochs, [row["loss"] for row in rows], "0.4", marker=marker, label="training loss")
    for key, name, colour in (("top1", "top-1 (val)", "tab:blue"), ("macro_f1", "macro-F1 (val)", "tab:orange")):
        lines += right.plot(epochs, [row[key] * 100 for row in rows], colour, marker=marker, label=name)
    left.set(xlabel="epoch", ylabel="training loss")
    right.set(ylabel="%", ylim=(0, 100))
    left.legend(handles=lines, loc="center right")
    figure.savefig(path, dpi=120, format="png")
