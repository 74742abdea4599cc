"""The picture of a sensitivity analysis."""

from __future__ import annotations

from pathlib import Path

from ampnet_opt.core.plot import load_figure
from ampnet_opt.sensitivity.analysis import Sensitivity

SHOWN = 30
SMALLEST = 1e-12  # nats: rounding of the measurement itself; a logarithmic axis has no zero


def draw_ranking(path: Path, found: Sensitivity) -> None:
    """Divergence and SQNR of the costliest units, the worst on top, as PNG."""
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
    figure.suptitle(f"{what}: the costliest {len(rows)} of {len(found.rows)}", fontsize=10)
    figure.savefig(path, dpi=120, format="png")
