"""Where tables are printed: text as it is, without markup, and without what would steer the terminal."""

from __future__ import annotations

import os
from typing import Any, Iterable, Optional

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from ampnet_opt.text import printable

WIDTH = 100  # columns of a file or a pipe, which say nothing of theirs; each table fits


class _PlainConsole(Console):
    """rich's Console, whose every piece of text is printable before it is laid out: names come from files."""

    def render(self, renderable: RenderableType, options: Optional[ConsoleOptions] = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text
            if segment.control or text.isprintable() or text == "\n":
                yield segment
            else:
                yield Segment("\n".join(map(printable, text.split("\n"))), segment.style)


def console(**options: Any) -> Console:
    """rich's Console of standard output, as wide as the terminal or as COLUMNS says. options: as it takes them.

    Square brackets and colons in strings are what they are: a class may be called "[red]" or ":smile:".
    """
    found = _PlainConsole(**{"markup": False, "emoji": False, **options})
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = WIDTH
    return found
