"""Bundles: a tar of what a board needs to make engines, or of an engine that runs where it comes. Read and checked here."""

from __future__ import annotations

import hashlib
import json
import math
import tarfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Optional

from ampnet_opt.errors import AmpnetError
from ampnet_opt.files import PathLike, require_file
from ampnet_opt.runtime.accuracy import Accuracy
from ampnet_opt.runtime.build import TABLE, TYPED, Origin, Prepared
from ampnet_opt.runtime.engine import BACKENDS
from ampnet_opt.runtime.golden import Golden, Proof
from ampnet_opt.runtime.sidecar import NAME as SIDECAR
from ampnet_opt.runtime.sidecar import PRECISIONS
from ampnet_opt.runtime.typed import require_types

NAME = "bundle.json"
FORMAT = "ampnet-opt-bundle/1"
GOLDEN = "golden.npz"
BLOCK = 1 << 20


@dataclass(frozen=True)
class Part:
    """One engine that can be built from a bundle. graphs: form (of runtime.build) -> member.

    graph_error: of the graph on the golden faces, as of `Golden.error`. float32_layers: of the typed graph, as of
    `Prepared`. mixed_precision: as of `Sidecar`. accuracy: of the graph of int8, as of `Proof`.
    """

    precision: str
    graphs: Dict[str, str]
    graph_error: float
    float32_layers: Optional[List[str]] = None
    mixed_precision: Optional[Dict[str, Any]] = None
    expected: Dict[str, List[str]] = field(default_factory=dict)
    accuracy: List[Accuracy] = field(default_factory=list)


@dataclass(frozen=True)
class Contents:
    """The contents of `bundle.json`. members: name -> SHA-256 of every other member of the tar.

    A bundle of a checkpoint has `origin` and `parts`; one of an engine has its precision, and names its files.
    """

    target: str
    backend: str
    ampnet_opt_version: str
    members: Dict[str, str]
    origin: Optional[Origin] = None
    parts: Optional[List[Part]] = None
    engine_precision: Optional[str] = None
    engine_files: Optional[List[str]] = None


class Bundle:
    """An open bundle whose members are known to be plain files of its own; `open_bundle` makes one."""

    def __init__(self, path: Path, tar: tarfile.TarFile) -> None:
        self.path = path
        self._tar = tar
        self._members = {member.name: member for member in _safe(tar)}
        if NAME not in self._members:
            raise ValueError(f"it has no {NAME}")
        self.contents = _parse(path, _stream(tar, self._members[NAME]).read())
        listed = {NAME, *self.contents.members}
        unlisted = sorted(set(self._members) - listed)
        if unlisted:
            raise ValueError(f"it holds {unlisted[0]}, which {NAME} does not list")
        missing = sorted(listed - set(self._members))
        if missing:
            raise ValueError(f"{missing[0]} is missing")

    def blocks(self, name: str) -> Iterator[bytes]:
        """A member, piece by piece; AmpnetError at its end when it does not match its hash."""
        with _damage(self.path):
            digest = hashlib.sha256()
            with _stream(self._tar, self._members[name]) as stream:
                for block in iter(lambda: stream.read(BLOCK), b""):
                    digest.update(block)
                    yield block
            if digest.hexdigest() != self.contents.members[name]:
                raise ValueError(f"{name} does not match {NAME}")

    def read(self, name: str) -> bytes:
        return b"".join(self.blocks(name))

    def copy(self, name: str, directory: Path) -> None:
        with open(directory / name, "wb") as stream:
            for block in self.blocks(name):
                stream.write(block)

    def prepared(self, part: Part, form: str) -> Prepared:
        """The graph of `form`. Raises AmpnetError when the bundle was made for boards that take another."""
        if form not in part.graphs:
            raise AmpnetError(
                f"bundle {self.path} was made for {self.contents.target}, and has no graph for the version of "
                f"{self.contents.backend} that is installed here: make one for this machine with --target (see doctor)"
            )
        graph = self.read(part.graphs[form])
        # Without FP16 written into the graph, its engine keeps nothing out of it.
        kept = part.float32_layers if form == TYPED else None
        table = self.read(TABLE) if part.precision == "int8" else None
        return Prepared(part.precision, graph, part.mixed_precision, kept, part.expected, table)

    def proof(self, part: Part) -> Proof:
        return Proof(self.golden(), part.graph_error, part.accuracy)

    def golden(self) -> Golden:
        with _damage(self.path):
            golden = Golden.from_bytes(self.read(GOLDEN))
            assert self.contents.origin is not None  # as of a bundle with parts
            if golden.logits.shape[1] != len(self.contents.origin.classes):
                raise ValueError("its faces have logits of another number of classes")
            if str(golden.images.dtype) != self.contents.origin.image_input:
                raise ValueError(f"its faces are {golden.images.dtype}, its graphs take {self.contents.origin.image_input}")
            return golden


def is_bundle(path: PathLike) -> bool:
    """Whether `path` is a tar that has a bundle.json, whole or not."""
    file = Path(path)
    if not file.is_file():
        return False
    try:
        with tarfile.open(file, "r:") as tar:
            return any(member.name == NAME for member in tar)
    except (tarfile.TarError, EOFError):
        return False


@contextmanager
def open_bundle(path: PathLike) -> Iterator[Bundle]:
    """Raises MisuseError when there is no such file, AmpnetError when it is no bundle, incomplete or of another format.

    Members are checked against their hashes when they are read.
    """
    file = require_file(path, "bundle")
    with ExitStack() as stack:
        with _damage(file):
            bundle = Bundle(file, stack.enter_context(tarfile.open(file, "r:")))
        yield bundle


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AmpnetError(f"bundle {path} is damaged ({error}); copy it again, or make another") from error


def _safe(tar: tarfile.TarFile) -> List[tarfile.TarInfo]:
    """All members, or ValueError when one is anything but a plain file with a plain name."""
    members, seen = tar.getmembers(), set()
    for member in members:
        if not member.isreg() or member.issparse():
            raise ValueError(f"{member.name} is no plain file")
        if member.name in {"", ".", ".."} or set(member.name) & set("/\\:\0"):
            raise ValueError(f"it names a file outside itself: {member.name}")
        if member.name in seen:
            raise ValueError(f"it holds {member.name} twice")
        seen.add(member.name)
    return members


def _stream(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(member)
    assert stream is not None  # of a plain file there is one
    return stream


def _parse(path: Path, text: bytes) -> Contents:
    content = json.loads(text.decode("utf-8"))
    if content.pop("format") != FORMAT:
        raise AmpnetError(
            f"bundle {path} is of another version of ampnet-opt: install the wheel that it holds, and try again"
        )
    if content.get("origin") is not None:
        content["origin"] = Origin(**content["origin"])
    if content.get("parts") is not None:
        content["parts"] = [_part(part) for part in content["parts"]]
    contents = Contents(**content)
    require_types(contents, Contents)
    for part in contents.parts or []:
        if not 0 <= part.graph_error < math.inf:
            raise ValueError(f"the error of its graph is {part.graph_error}")
        if not all(name.endswith(".onnx") for name in part.graphs.values()):
            raise ValueError(f"one of its graphs is no .onnx: {', '.join(part.graphs.values())}")
    if contents.parts is None and contents.engine_files is None:
        raise ValueError("it has neither graphs nor an engine")
    precisions = {contents.engine_precision} if contents.parts is None else {part.precision for part in contents.parts}
    if contents.backend not in BACKENDS or not precisions <= {*PRECISIONS}:  # both become names of directories
        raise ValueError(f"it is for {contents.backend}, {', '.join(map(str, precisions))}")
    if (contents.origin is None) != (contents.parts is None):
        raise ValueError("it says nothing of its checkpoint" if contents.origin is None else "it has no graphs")
    used = [name for part in contents.parts or [] for name in part.graphs.values()]
    used += [GOLDEN] if contents.parts else [SIDECAR, *(contents.engine_files or [])]
    used += [TABLE] if any(part.precision == "int8" for part in contents.parts or []) else []
    unknown = sorted(set(used) - set(contents.members))
    if unknown:
        raise ValueError(f"{unknown[0]} is missing")
    return contents


def _part(content: Dict[str, Any]) -> Part:
    return Part(**{**content, "accuracy": [Accuracy(**found) for found in content.get("accuracy", [])]})
