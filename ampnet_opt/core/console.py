"""Where tables are printed: text as it is, without markup, and without what would steer the terminal."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any, Iterable, Optional, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ampnet_opt.core.messages import stdout_named
from ampnet_opt.core.text import printable

WIDTH = 100  # columns of a file or a pipe, which say nothing of theirs; each table fits


class _PlainConsole(Console):
    """rich's Console, all of whose text is printable: names come from files."""

    def print(self, *objects: Any, **options: Any) -> None:
        with nullcontext() if self.stderr else stdout_named():
            super().print(*map(_made_printable, objects), **options)

    def render(self, renderable: RenderableType, options: Optional[ConsoleOptions] = None) -> Iterable[Segment]:
        """What did not come by `print`, a progress bar say, is made printable here, where it may be cut to its old width."""
        for segment in super().render(renderable, options):
            if segment.control or _is_printable(segment.text):
                yield segment
            else:
                yield Segment(_printable_lines(segment.text), segment.style)


def _made_printable(renderable: Any) -> Any:
    """The same with printable text in it, before columns are measured: text, or a group or table of such."""
    if isinstance(renderable, str):
        return _printable_lines(renderable)
    if isinstance(renderable, Text):
        return renderable if _is_printable(renderable.plain) else Text(_printable_lines(renderable.plain), renderable.style)
    if isinstance(renderable, Group):
        return Group(*map(_made_printable, renderable.renderables))
    if isinstance(renderable, Table):
        renderable.title = _made_printable(renderable.title)
        for column in renderable.columns:
            column.header = _made_printable(column.header)
            column._cells[:] = map(_made_printable, column._cells)
    return renderable


def _is_printable(text: str) -> bool:
    return text.isprintable() or all(line.isprintable() for line in text.split("\n"))


def _printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def console(**options: Any) -> Console:
    """rich's Console of standard output, as wide as the terminal or as COLUMNS says. options: as it takes them.

    Square brackets and colons in strings are what they are: a class may be called "[red]" or ":smile:".
    """
    found = _PlainConsole(**{"markup": False, "emoji": False, **options})
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = WIDTH
    return found


def new_table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    """An empty table with columns set left (names) and right (numbers)."""
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in left:
        table.add_column(Text(name), no_wrap=True)
    for name in right:
        table.add_column(Text(name), justify="right")
    return table
