"""A sensitivity analysis as a table for a terminal of 100 columns."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group
from rich.text import Text

from ampnet_opt.core.console import new_table
from ampnet_opt.core.plot import load_figure
from ampnet_opt.core.text import count
from ampnet_opt.sensitivity.analysis import Sensitivity
from ampnet_opt.sensitivity.effect import Effect


def render_sensitivity(found: Sensitivity, most: int) -> Group:
    """The `most` worst units, between the figures of the float network and of INT8 everywhere."""
    what = "INT8 in one unit alone" if found.mode == "only" else "INT8 everywhere but in one unit"
    title = f"{what}, the most sensitive first; {count(found.faces, 'face')}, {found.method} calibration"
    table = new_table(title, ["unit"], ["KL, nats", "same top-1 %", "top-1 %", "SQNR dB"])
    table.add_row("(float)", "0", "100.0", f"{100 * found.reference_top1:.1f}", "")
    table.add_row("(all in INT8)", *_figures(found.int8), end_section=True)
    for row in found.rows[:most]:
        table.add_row(Text(row.name), *_figures(row.effect))
    left = len(found.rows) - most
    return Group(table, Text(f"and {left} more" if left > 0 else ""))


def _figures(found: Effect) -> list[str]:
    return [f"{found.kl:.2e}", f"{100 * found.agreement:.1f}", f"{100 * found.top1:.1f}", f"{found.sqnr_db:.1f}"]


SHOWN = 30
SMALLEST = 1e-12  # nats: rounding of the measurement itself; a logarithmic axis has no zero


def draw_ranking(path: Path, found: Sensitivity) -> None:
    """Divergence and SQNR of the most sensitive units, the worst on top, as PNG."""
    rows = found.rows[:SHOWN]
    figure = load_figure("the picture is drawn")(figsize=(8, 1.6 + 0.22 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(rows))
    left.plot([max(row.effect.kl, SMALLEST) for row in rows], places, "o", color="tab:blue")
    left.axvline(max(found.int8.kl, SMALLEST), color="0.4", linestyle="--", label="INT8 everywhere")
    left.set(xscale="log", xlabel="KL divergence of the answers, nats", yticks=places)
    left.set_yticklabels([row.name for row in rows], fontsize=8)
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.grid(alpha=0.3)
    left.legend(loc="lower right")
    right.plot([row.effect.sqnr_db for row in rows], places, "o", color="tab:orange")
    right.axvline(found.int8.sqnr_db, color="0.4", linestyle="--")
    right.set(xlabel="SQNR of the logits, dB")
    right.grid(alpha=0.3)
    what = "INT8 in one unit alone" if found.mode == "only" else "INT8 everywhere but in one unit"
    figure.suptitle(f"{what}: the most sensitive {len(rows)} of {len(found.rows)}", fontsize=10)
    figure.savefig(path, dpi=120, format="png")
