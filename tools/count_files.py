"""Counts the files of ours that a command runs through, for whoever wants to follow it in the code.

    python tools/count_files.py run ENGINE picture.png --landmarks faces.csv
    python tools/count_files.py build --int8 --backend cpu -o engines

Runs the command in this process and lists the modules of the package that were imported by then, with their lines. Left out
are `__init__.py` files, `core`, and `cli.options`, which declares the options that commands share: these are read once, and
are not on the way of anything. A command loads what it needs when it runs, so what it does not use is not counted; what runs
in child processes is not counted either.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from ampnet_opt.cli.main import main

LEFT_OUT = ("ampnet_opt.core.", "ampnet_opt.cli.main", "ampnet_opt.cli.options")


def files() -> dict[str, int]:
    """Module -> its lines."""
    found = {}
    for name, module in sorted(sys.modules.items()):
        place = getattr(module, "__file__", None)
        if name.startswith("ampnet_opt.") and not name.startswith(LEFT_OUT) and place and not place.endswith("__init__.py"):
            found[name] = len(Path(place).read_text(encoding="utf-8").splitlines())
    return found


if __name__ == "__main__":
    with contextlib.suppress(SystemExit):
        main()
    counted = files()
    for name, lines in counted.items():
        print(f"{lines:5}  {name}")
    print(f"{sum(counted.values()):5}  lines in {len(counted)} files")
