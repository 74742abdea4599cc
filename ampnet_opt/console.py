"""Where tables are printed."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console

WIDTH = 100  # columns of a file or a pipe, which say nothing of theirs; each table fits


def console(**options: Any) -> Console:
    """rich's Console of standard output, as wide as the terminal or as COLUMNS says. options: as it takes them."""
    found = Console(**options)
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = WIDTH
    return found
