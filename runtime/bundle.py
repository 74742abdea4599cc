"""Bundles: a tar of what a board needs to make engines, or of an engine that runs where it comes. Read and checked here.

One that was unpacked into a folder, compressed with gzip or packed again is read as well: each member has its hash.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import tempfile
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Callable, Dict, Iterator, List, Optional

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.field_types import require_types
from ampnet_opt.core.files import PathLike
from ampnet_opt.core.json_files import parse_json
from ampnet_opt.core.tar import BLOCK as HEADER
from ampnet_opt.core.tar import looks_like_tar, members, plain_names
from ampnet_opt.core.text import listed, one_line
from ampnet_opt.runtime.backend import REGISTERED, TYPED, TYPED_FORMS, WEAK
from ampnet_opt.runtime.build import TABLE, Origin, Prepared
from ampnet_opt.runtime.golden import Golden, Proof
from ampnet_opt.runtime.sidecar import NAME as SIDECAR
from ampnet_opt.runtime.sidecar import PRECISIONS, Accuracy

NAME = "bundle.json"
FORMAT = "ampnet-opt-bundle/1"
GOLDEN = "golden.npz"
BLOCK = 1 << 20
LARGEST_CONTENTS = 2 << 20  # bytes of bundle.json; the largest has 0.1 million
GZIP = b"\x1f\x8b"
# What a compressed bundle may unpack to: weights hardly shrink, so what grows much more is none.
MOST_GROWTH, SPARE = 20, 64 << 20


@dataclass(frozen=True)
class BundlePart:
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

    A bundle of a checkpoint has `origin` and `parts`; one of an engine has its precision, and names its files. drawn_faces:
    whether the faces that it carries to choose by (`bundling.carried_faces`) are drawn, not the user's; None without any.
    """

    target: str
    backend: str
    ampnet_opt_version: str
    members: Dict[str, str]
    origin: Optional[Origin] = None
    parts: Optional[List[BundlePart]] = None
    engine_precision: Optional[str] = None
    engine_files: Optional[List[str]] = None
    drawn_faces: Optional[bool] = None


@dataclass(frozen=True)
class _Files:
    """The files of a bundle, wherever they lie. sizes: name -> bytes. pieces(name): a file's bytes, a block at a time."""

    sizes: Dict[str, int]
    pieces: Callable[[str], Iterator[bytes]]


class Bundle:
    """An open bundle whose members are known to be plain files of its own; `open_bundle` makes one."""

    def __init__(self, path: Path, files: _Files) -> None:
        self.path = path
        self._files = files
        if NAME not in files.sizes:
            raise ValueError(f"it has no {NAME}")
        if files.sizes[NAME] > LARGEST_CONTENTS:
            raise ValueError(f"its {NAME} is too large")
        self.contents = _parse(path, b"".join(files.pieces(NAME)))
        expected = {NAME, *self.contents.members}
        unlisted = sorted(set(files.sizes) - expected)
        if unlisted and path.is_file():  # into a folder, other files may come
            raise ValueError(f"it holds {listed(unlisted)}, which {NAME} does not list")
        missing = sorted(expected - set(files.sizes))
        if missing:
            raise ValueError(f"{listed(missing)} is missing")

    def blocks(self, name: str) -> Iterator[bytes]:
        """A member, piece by piece; AmpnetError at its end when it does not match its hash."""
        with _damage(self.path):
            digest = hashlib.sha256()
            for block in self._files.pieces(name):
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

    def prepared(self, part: BundlePart, form: str) -> Prepared:
        """The graph of `form`. Raises AmpnetError when the bundle was made for boards that take another."""
        if form not in part.graphs:
            raise AmpnetError(
                f"bundle {self.path} was made for {self.contents.target}, and has no graph for the version of "
                f"{self.contents.backend} that is installed here: make one for this machine with --target (see doctor)"
            )
        graph = self.read(part.graphs[form])
        # Without FP16 written into the graph, its engine keeps nothing out of it.
        kept = part.float32_layers if form in TYPED_FORMS else None
        table = self.read(TABLE) if part.precision == "int8" else None
        # Bundles hold float32 scales for older versions alone: where those are of the target, they are at hand.
        spare = part.graphs.get(WEAK) if form == TYPED and table is not None else None
        float32_scales = None if spare is None else self.read(spare)
        return Prepared(part.precision, graph, part.mixed_precision, kept, part.expected, table, float32_scales)

    def proof(self, part: BundlePart) -> Proof:
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
    """Whether `path` is a tar that has a bundle.json, whole or not, a compressed tar, or a folder with a bundle.json."""
    file = Path(path)
    if file.is_dir():
        return (file / NAME).is_file()
    if not file.is_file():
        return False
    try:
        with open(file, "rb") as stream:
            if stream.read(2) == GZIP:
                stream.seek(0)
                return looks_like_tar(gzip.GzipFile(fileobj=stream).read(HEADER))
            return any(member.name.rpartition("/")[2] == NAME for member in members(stream))
    except (ValueError, EOFError, OSError, zlib.error):
        return False


@contextmanager
def open_bundle(path: PathLike) -> Iterator[Bundle]:
    """Raises MisuseError when there is no such file, AmpnetError when it is no bundle, incomplete or of another format.

    Members are checked against their hashes when they are read.
    """
    file = Path(path)
    if not file.exists():
        raise MisuseError(f"bundle {file} does not exist")
    if file.is_dir() and not (file / NAME).is_file():
        raise MisuseError(f"bundle {file} is a directory without a {NAME}")
    if not file.is_dir() and not file.is_file():
        raise MisuseError(f"bundle {file} is no regular file")
    with ExitStack() as stack:
        with _damage(file):
            if file.is_dir():
                files = _in_folder(file)
            else:
                stream: IO[bytes] = stack.enter_context(open(file, "rb"))
                if stream.read(2) == GZIP:
                    stream = stack.enter_context(_unpacked(stream))
                files = _in_tar(stream)
            bundle = Bundle(file, files)
        yield bundle


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error) as error:
        reason = one_line(error, 160)
        raise AmpnetError(f"bundle {path} is damaged ({reason}); copy it again, or make another") from error


def _in_tar(stream: IO[bytes]) -> _Files:
    """The files of a tar. Raises ValueError when a member is anything but a plain file with a plain name."""
    places = plain_names(members(stream), NAME)

    def pieces(name: str) -> Iterator[bytes]:
        start, size = places[name]
        for place in range(start, start + size, BLOCK):
            stream.seek(place)
            yield stream.read(min(BLOCK, start + size - place))

    return _Files({name: size for name, (_, size) in places.items()}, pieces)


def _in_folder(folder: Path) -> _Files:
    """The plain files of a folder; those that are links out of it cannot be read (ValueError)."""
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()}

    def pieces(name: str) -> Iterator[bytes]:
        if (folder / name).resolve().parent != folder.resolve():
            raise ValueError(f"{name} is a link that leads out of it")
        with open(folder / name, "rb") as stream:
            yield from iter(lambda: stream.read(BLOCK), b"")

    return _Files(sizes, pieces)


@contextmanager
def _unpacked(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """A temporary file of what a gzip file unpacks to. Raises ValueError when that is out of all proportion."""
    stream.seek(0)
    with tempfile.TemporaryFile() as plain:
        try:
            zipped = gzip.GzipFile(fileobj=stream)
            for block in iter(lambda: zipped.read(BLOCK), b""):
                plain.write(block)
                if plain.tell() > MOST_GROWTH * stream.tell() + SPARE:
                    raise ValueError("it unpacks to far more than a bundle does")
        except gzip.BadGzipFile as error:
            raise ValueError(str(error)) from error
        yield plain


def _parse(path: Path, text: bytes) -> Contents:
    content = parse_json(text)
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
    if contents.backend not in REGISTERED or not precisions <= {*PRECISIONS}:  # both become names of directories
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


def _part(content: Dict[str, Any]) -> BundlePart:
    return BundlePart(**{**content, "accuracy": [Accuracy(**found) for found in content.get("accuracy", [])]})
