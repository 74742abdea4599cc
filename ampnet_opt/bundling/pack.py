"""The tar of a bundle, and bundles of finished engines. Standard library only."""

from __future__ import annotations

import csv
import json
import tarfile
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from shutil import copyfile
from typing import Iterator, List, Optional

from ampnet_opt import __version__
from ampnet_opt.bundling.targets import EXAMPLE, EXAMPLE_TABLE, TARGETS, Target, readme
from ampnet_opt.bundling.wheel import write_wheel
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.files import PathLike, new_file, require_new, scratch_directory, sha256
from ampnet_opt.core.row_matching import IMAGES
from ampnet_opt.core.tables import NAME as TABLE
from ampnet_opt.runtime.backend import find_backend
from ampnet_opt.runtime.build import Origin, engine_name
from ampnet_opt.runtime.bundle import FORMAT, NAME, BundlePart, Contents
from ampnet_opt.runtime.sidecar import NAME as SIDECAR
from ampnet_opt.runtime.sidecar import read_sidecar
from ampnet_opt.shipped import GOLDEN_FACES

README = "README.txt"


class Pack:
    """A bundle in the making. folder: what lies there when it ends goes into the tar, beside what this class adds."""

    def __init__(self, folder: Path, target: Target) -> None:
        self.folder = folder
        self.target = target
        self.origin: Optional[Origin] = None
        self.parts: Optional[List[BundlePart]] = None
        self.engine_precision: Optional[str] = None
        self.engine_files: Optional[List[str]] = None
        self.drawn_faces: Optional[bool] = None  # of those that it carries to choose by
        self.built_with = ""  # version of the library that built the engine
        self.built_on = ""  # GPU and board of an engine that runs on no other


@contextmanager
def new_bundle(path: PathLike, target: Target) -> Iterator[Pack]:
    """Collects a bundle's members; the tar is written when the block ends well, and is whole or not there.

    Raises MisuseError when `path` is no place for a file, AmpnetError when it cannot be written.
    """
    file = Path(path)
    with new_file(file) as temporary, scratch_directory(file) as folder:
        pack = Pack(folder, target)
        yield pack
        wheel = write_wheel(pack.folder)
        held = [part.precision for part in pack.parts] if pack.parts is not None else [str(pack.engine_precision)]
        engines = [engine_name(target.backend, precision) for precision in held]
        built = {"built_with": pack.built_with, "built_on": pack.built_on}
        text = readme(target, file.name, wheel.name, engines, drawn_faces=pack.drawn_faces, **built)
        (pack.folder / README).write_text(text, encoding="utf-8")
        _add_example(pack.folder)
        members = {member.name: sha256(member) for member in sorted(pack.folder.iterdir())}
        contents = Contents(
            target=target.name,
            backend=target.backend,
            ampnet_opt_version=__version__,
            members=members,
            origin=pack.origin,
            parts=pack.parts,
            engine_precision=pack.engine_precision,
            engine_files=pack.engine_files,
            drawn_faces=pack.drawn_faces,
        )
        text = json.dumps({"format": FORMAT, **asdict(contents)}, indent=2) + "\n"
        (pack.folder / NAME).write_text(text, encoding="utf-8")
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            # The table of contents first: a copy that was cut off is still known as a bundle.
            for member in [NAME, README, *(name for name in members if name != README)]:
                tar.add(pack.folder / member, member, filter=_anonymous)


def _add_example(folder: Path) -> None:
    with open(GOLDEN_FACES / TABLE, encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream)
        row = next(row for row in rows if row["label"] == "happiness")
    copyfile(GOLDEN_FACES / IMAGES / row["file"], folder / EXAMPLE)
    with open(folder / EXAMPLE_TABLE, "w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, list(row))
        table.writeheader()
        table.writerow({**row, "file": EXAMPLE})


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without whose file it was."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    member.mtime = int(member.mtime)  # a fraction of a second would need a pax header
    return member


def bundle_engine(engine: PathLike, target: Target, output: PathLike, force: bool = False) -> Path:
    """Write a bundle that holds a finished engine.

    Engines of cpu and tensorrt-rtx run on other machines, those of tensorrt on identical ones. An engine does not hold its
    graph: nothing can be built from it. Raises MisuseError when the engine is not one of `target`.
    """
    path, folder = require_new(output, force), Path(engine)
    sidecar = read_sidecar(folder)
    board = sidecar.target.get("board")
    alike = [other.name for other in TARGETS.values() if other.backend == sidecar.backend]
    if sidecar.backend == "tensorrt":
        alike = [name for name in alike if TARGETS[name].is_jetson == bool(board)]
    if target.name not in alike:
        where = f", built on {board or 'no Jetson'}" if sidecar.backend == target.backend else ""
        raise MisuseError(
            f"engine {folder} is for the backend {sidecar.backend}{where}: take --target {' or '.join(alike)}, or bundle "
            "its checkpoint"
        )
    with new_bundle(path, target) as pack:
        pack.engine_precision, pack.built_with = sidecar.precision, sidecar.backend_version
        if not find_backend(sidecar.backend).portable:
            pack.built_on = " on ".join(filter(None, (sidecar.target.get("gpu"), board)))
        pack.engine_files = [SIDECAR, *sidecar.files]
        for name in pack.engine_files:
            copyfile(folder / name, pack.folder / name)
    return path
