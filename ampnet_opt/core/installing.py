"""The commands that install what is missing, as this package was installed here. Standard library only."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Optional, Tuple

from ampnet_opt.core.text import command

PACKAGE = "ampnet-opt"
# Extras that need a newer Python than the package: with an older one, pip leaves parts of them out without a word. A test
# holds them to pyproject.toml.
NEWER_PYTHON = {"convert": (3, 10), "detect": (3, 10), "heif": (3, 9), "plot": (3, 10), "ray": (3, 10)}


def install_command(*extras: str) -> str:
    """A line for the shell that installs the named extras with this Python; where it is too old for one of them, a note
    in brackets behind it says so.

    The package is named by where it came from, which pip records (PEP 610): a checkout, a wheel that came with a bundle, or
    by its name alone.
    """
    needed = max((NEWER_PYTHON[extra] for extra in extras if extra in NEWER_PYTHON), default=(0,))
    note = f" (needs Python {'.'.join(map(str, needed))} or newer)" if sys.version_info < needed else ""
    return f"{_pip()} install {_subject(','.join(extras))}{note}"


def cuda_binding_command(cuda: Tuple[int, int]) -> str:
    """A line for the shell that installs what reaches a GPU, for the CUDA of its driver, (12, 6) say.

    A binding may not be of a newer CUDA than the driver's. Up to 12.8, cuda-bindings calls the driver alone, of whichever
    CUDA 12; later ones contain CUDA's own runtime library, which a Jetson's driver refuses where it is newer, by its minor
    version too. There are wheels for x86-64 and 64-bit Arm from Python 3.9 on; on 3.8, of JetPack 5, PyCUDA is compiled,
    with nvcc and Python's headers.
    """
    if sys.version_info < (3, 9):
        return f"sudo apt install python3-dev && PATH=$PATH:/usr/local/cuda/bin {_pip()} install pycuda"
    if cuda < (12, 9):
        return f"{_pip()} install 'cuda-bindings=={'11.8' if cuda < (12, 0) else '12.8'}.*'"
    return f"{_pip()} install 'cuda-bindings>={cuda[0]},<{cuda[0]}.{cuda[1] + 1}'"


def _pip() -> str:
    """pip as a shell finds it: by its path in a virtual environment that is not activated."""
    own = sys.prefix != sys.base_prefix and os.environ.get("VIRTUAL_ENV", "") != sys.prefix
    return command(Path(sys.prefix) / "bin" / "pip") if own and os.name == "posix" else "pip"


def _subject(extras: str) -> str:
    place = _origin()
    if place is None:
        return f"'{PACKAGE}[{extras}]'"
    if place.is_dir():
        shown = "." if place == Path.cwd() else str(place)
        return f"-e {command(f'{shown}[{extras}]')}"
    wheel = str(place) if place.is_file() else f"./{place.name}"  # it may have been moved or deleted since
    return command(f"{wheel}[{extras}]")


@lru_cache(maxsize=None)
def _origin() -> Optional[Path]:
    """The checkout or wheel that this package was installed from; None when pip took it from an index."""
    import json
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlsplit

    source = Path(__file__).resolve().parents[2]
    if (source / "pyproject.toml").is_file():
        return source
    try:
        record = json.loads(distribution(PACKAGE).read_text("direct_url.json") or "{}")
        parts = urlsplit(record.get("url", ""))
    except (PackageNotFoundError, ValueError, AttributeError):
        return None
    return Path(unquote(parts.path)) if parts.scheme == "file" else None
