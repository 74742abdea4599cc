"""A sensitivity analysis as a table for a terminal of 100 columns."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from ampnet_opt.core.console import new_table
from ampnet_opt.core.text import count
from ampnet_opt.sensitivity.analysis import Sensitivity
from ampnet_opt.sensitivity.effect import Effect


def render(found: Sensitivity, most: int) -> Group:
    """The `most` worst units, between the figures of the float network and of INT8 everywhere."""
    what = "INT8 in one unit alone" if found.mode == "only" else "INT8 everywhere but in one unit"
    title = f"{what}, the costliest first; {count(found.faces, 'face')}, {found.method} calibration"
    table = new_table(title, ["unit"], ["KL, nats", "same top-1 %", "top-1 %", "SQNR dB"])
    table.add_row("(float)", "0", "100.0", f"{100 * found.reference_top1:.1f}", "")
    table.add_row("(all in INT8)", *_figures(found.int8), end_section=True)
    for row in found.rows[:most]:
        table.add_row(Text(row.name), *_figures(row.effect))
    left = len(found.rows) - most
    return Group(table, Text(f"and {left} more" if left > 0 else ""))


def _figures(found: Effect) -> list[str]:
    return [f"{found.kl:.2e}", f"{100 * found.agreement:.1f}", f"{100 * found.top1:.1f}", f"{found.sqnr_db:.1f}"]
