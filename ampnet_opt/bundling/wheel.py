"""A wheel of this package from its installed files, editable or not: no build tools, no network. Standard library only.

It has all commands, but not the checkpoint that comes with the package, which is 20 times as large as the rest.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import PathLike

# Subpackages that lie beside the package in the repository, and in it once installed.
BESIDE = ("ampnet_opt.benchmarks", "ampnet_opt.calibration", "ampnet_opt.convert", "ampnet_opt.runtime")
SUFFIXES = {".css", ".csv", ".html", ".jpg", ".js", ".md", ".onnx", ".png", ".py", ".typed"}  # all but checkpoints
WHEEL = "Wheel-Version: 1.0\nGenerator: ampnet-opt\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_wheel(directory: PathLike) -> Path:
    """Write the wheel of the package that is running, equal bytes for equal files; returns its path.

    Raises AmpnetError when the package is not installed, OSError when the wheel cannot be written.
    """
    metadata, version, entry_points = _installed()
    info = f"ampnet_opt-{version}.dist-info"
    files = {name: file.read_bytes() for name, file in sorted(_files())}
    files[f"{info}/METADATA"] = metadata.encode()
    files[f"{info}/WHEEL"] = WHEEL.encode()
    files[f"{info}/entry_points.txt"] = entry_points.encode()
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD").encode()
    path = Path(directory) / f"ampnet_opt-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name)  # of 1980, as all
            member.external_attr = 0o644 << 16
            archive.writestr(member, data, zipfile.ZIP_DEFLATED)
    return path


def _installed() -> Tuple[str, str, str]:
    """Metadata, version and entry points that the installer of this package wrote."""
    try:
        found = distribution("ampnet-opt")
    except PackageNotFoundError as error:
        raise AmpnetError("ampnet-opt runs from its source without being installed: pip install it first") from error
    metadata = found.read_text("METADATA") or found.read_text("PKG-INFO")
    entry_points = found.read_text("entry_points.txt")
    if not metadata or not entry_points:
        raise AmpnetError("the installation of ampnet-opt is incomplete: pip install it again")
    return metadata, found.version, entry_points


def _files() -> Iterator[Tuple[str, Path]]:
    """Name in the wheel and place of every file of the package."""
    for package in ("ampnet_opt", *BESIDE):
        spec = find_spec(package)
        for place in [] if spec is None else spec.submodule_search_locations or []:
            top = Path(place)
            for file in top.rglob("*"):
                if file.suffix in SUFFIXES and file.is_file():
                    yield "/".join([*package.split("."), *file.relative_to(top).parts]), file


def _record(files: Dict[str, bytes], own: str) -> str:
    rows: List[str] = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}")
    return "\n".join([*rows, f"{own},,"]) + "\n"
