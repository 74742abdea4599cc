"""Where `--json FILE` goes: to a file, which appears whole, or with "-" to stdout, which then holds nothing else."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

STDOUT = Path("-")


def write_json(place: Path, text: str) -> None:
    """Write what is JSON already. A file that stands there is replaced."""
    from ampnet_opt.core.files import write_text

    if place == STDOUT:
        print(text, end="", flush=True)
    else:
        write_text(place, text)


@contextmanager
def json_lines(place: Path) -> Iterator[Callable[[Any], None]]:
    """Writes each object that it is called with as a line: on stdout at once, to a file when the block ends well."""
    from ampnet_opt.core.files import new_file

    if place == STDOUT:
        yield lambda content: print(json.dumps(content), flush=True)
        return
    with new_file(place) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        yield lambda content: print(json.dumps(content), file=stream)
