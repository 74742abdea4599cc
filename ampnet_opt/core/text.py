"""Text for people: plurals, and what comes from files made safe to show. Standard library only."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Iterable, Sequence, Tuple

LONGEST = 300  # characters of a message
CUT = "..."
# First characters that make a spreadsheet run a cell as a formula (OWASP, "CSV Injection").
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def count(number: int, noun: str) -> str:
    """ "1 layer", "2 layers"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(text: object) -> str:
    """`text` without control characters, half characters or directions: each is written as its escape, "\\x1b" say."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in str(text))


def one_line(text: object, longest: int = LONGEST) -> str:
    """`text` on one line of at most `longest` characters, all of them printable; what is cut off ends in "..."."""
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= longest else line[: longest - len(CUT)] + CUT


def describe(error: BaseException, longest: int = 120) -> str:
    """An exception in brackets of a sentence: its kind, and what it says, cut at `longest` characters.

    Its kind makes sense of what little some say: of KeyError('rows'), "KeyError: 'rows'".
    """
    return one_line(f"{type(error).__name__}: {error}", longest)


def shown_path(path: Any) -> str:
    """A path in what is passed on: relative to the working folder where it lies in there, else its name alone."""
    whole = Path(path).absolute()
    here = Path.cwd()
    return str(whole.relative_to(here)) if here in whole.parents else whole.name


def listed(items: Iterable[object], most: int = 3) -> str:
    """The first `most` of the items, by commas, and how many there are besides: "a, b, c and 12 more"."""
    words: Sequence[str] = [printable(item) for item in items]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def command(*words: Any) -> str:
    """A command line that a POSIX shell reads as exactly these words."""
    return " ".join(shlex.quote(str(word)) for word in words)


def release(version: str) -> Tuple[int, ...]:
    """The numbers of a version: "2026.4.1-21984-abc" -> (2026, 4, 1), "10.3.0.26" -> (10, 3, 0, 26)."""
    return tuple(int(part) for part in re.split("[-+]", version)[0].split(".") if part.isdigit())


def spreadsheet_cell(text: str) -> str:
    """`text` so that no spreadsheet takes it for a formula: with an apostrophe before what would begin one.

    An apostrophe that stands before such a character already gets one as well, so that `plain_cell` gives `text` back.
    """
    return f"'{text}" if text.lstrip("'").startswith(FORMULA) else text


def plain_cell(cell: str) -> str:
    """What `spreadsheet_cell` made the cell of."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(FORMULA) else cell
