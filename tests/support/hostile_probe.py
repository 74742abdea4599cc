"""Reads each file of a folder as the product does, in a process of its own: what came of it, and what it cost.

Usage: hostile_probe.py FOLDER. Prints a line of JSON for each: name, error (class and message), seconds of CPU time, and
bytes beyond those of the process with everything imported.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.datasets.npy import load_npy
from ampnet_opt.network.checkpoint import read_checkpoint
from ampnet_opt.runtime.bundle import is_bundle, open_bundle

CPU_LIMIT = 20  # seconds, after which the system ends the process


def read(path: Path) -> None:
    if path.suffix == ".npy":
        load_npy(path, "landmarks file")
    elif path.suffix in {".tar", ".gz"}:
        is_bundle(path)
        with open_bundle(path) as bundle:
            if bundle.contents.parts:
                bundle.golden()
    else:
        read_checkpoint(path)


def probe(path: Path) -> dict[str, object]:
    before, start = peak(), cpu()
    try:
        read(path)
        error = ["", ""]
    except AmpnetError as caught:
        error = ["AmpnetError", str(caught)]
    except BaseException as caught:
        error = [type(caught).__name__, str(caught)]
    return {"name": path.name, "error": error, "seconds": cpu() - start, "bytes": peak() - before}


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    for path in sorted(Path(sys.argv[1]).iterdir()):
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT, CPU_LIMIT))
            print(json.dumps(probe(path)), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            killed = {"name": path.name, "error": ["Killed", str(status)], "seconds": CPU_LIMIT, "bytes": 0}
            print(json.dumps(killed), flush=True)


if __name__ == "__main__":
    main()
