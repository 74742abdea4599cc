"""From a prepared graph to an engine directory: what a build from a checkpoint and one from a bundle have in common."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from ampnet_opt import __version__
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import new_directory, sha256
from ampnet_opt.runtime.backend import Backend, Compiled, Progress
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.golden import Proof, require_close, require_right
from ampnet_opt.runtime.layers import Layer, list_layers, summarise
from ampnet_opt.runtime.sidecar import Sidecar

log = logging.getLogger(__name__)

TABLE = "calibration.json"


@dataclass(frozen=True)
class Origin:
    """What all engines of a checkpoint say of it; fields as of `Sidecar`."""

    classes: List[str]
    image_input: str
    patch_radius: int
    trained: bool
    checkpoint_sha256: str
    graph_sha256: str
    classes_assumed: bool = False


@dataclass(frozen=True)
class Prepared:
    """A serialised ONNX graph of the form that the backend takes, and what was done to it.

    mixed_precision: as of `Sidecar`. float32_layers: names of the nodes that a typed graph of fp16 or int8 keeps in float32.
    expected: the layers that it wants in its precision, but for those. table: of int8, what goes into its file TABLE.
    float32_scales: of typed int8, the same network with float32 scales and all else in float32, for a builder that refuses
    `graph`, as TensorRT 10.16 does on Orin (its issue 4832).
    """

    precision: str
    graph: bytes
    mixed_precision: Optional[Dict[str, Any]] = None
    float32_layers: Optional[List[str]] = None
    expected: Dict[str, List[str]] = field(default_factory=dict)
    table: Optional[bytes] = None
    float32_scales: Optional[bytes] = None


def engine_name(backend: str, precision: str) -> str:
    return f"{backend}-{precision}"


@dataclass(frozen=True)
class EngineRequest:
    """What an engine is made of, and how.

    Attributes:
        backend: that compiles it. options: how. origin, prepared: its graph.
        proof: what it is compared with where it can run; None for an engine that is only tried.
        seconds_before: what preparing the graph took.
    """

    backend: Backend
    options: CompileOptions
    origin: Origin
    prepared: Prepared
    proof: Optional[Proof]
    seconds_before: float = 0.0


def build_engine(request: EngineRequest, target: Path, progress: Optional[Progress] = None, force: bool = False) -> str:
    """Build an engine and, where it runs here, compare it with its graph; returns why it was not run, or "".

    progress: called with the share done. force: replace what stands at `target`. Raises AmpnetError when the backend is
    missing or refuses, or when the engine computes something else than its graph. It appears whole, at `target`, or not at
    all.
    """
    assert request.proof is not None
    require_close(request.proof.accuracy, request.origin.trained)
    with new_directory(target, force) as directory:
        return complete_engine(request, directory, *compile_engine(request, directory, progress))


def complete_engine(request: EngineRequest, directory: Path, sidecar: Sidecar, layers: Optional[List[Layer]] = None) -> str:
    """List the layers of what was compiled into `directory`, write the sidecar, and compare the engine with its graph.

    sidecar, layers: of `compile_engine`; a sidecar that lists its layers keeps them. Returns why
    the engine was not run here, or ""; errors as of `build_engine`.
    """
    prepared, proof, trained = request.prepared, request.proof, request.origin.trained
    assert proof is not None
    if sidecar.layers is None:
        by_design = (prepared.float32_layers or []) if prepared.precision in ("fp16", "bf16") else []
        expected = {node: names for node, names in prepared.expected.items() if node not in by_design}
        told = (
            list_layers(directory, sidecar, expected) if layers is None else summarise(layers, sidecar.precision, expected)
        )
        sidecar = replace(sidecar, layers=told)
    sidecar.write(directory)
    reason, accuracy = request.backend.why_not_run(sidecar), list(proof.accuracy)
    if not reason:
        logits = require_right(directory, proof.golden, proof.graph_error)
        if prepared.precision == "int8":
            measured = proof.measure(logits, engine=True)
            require_close(measured, trained)
            accuracy = [*measured, *(kept for kept in accuracy if kept.on not in {new.on for new in measured})]
    if accuracy:
        replace(sidecar, accuracy=[asdict(found) for found in accuracy]).write(directory)
    return reason


def compile_engine(
    request: EngineRequest, directory: Path, progress: Optional[Progress] = None
) -> Tuple[Sidecar, Optional[List[Layer]]]:
    """Compile the graph into `directory`; returns a sidecar that is not written yet, and lists no layers.

    And the layers, where the library tells them as it compiles; None where its engine has to be opened for that.
    """
    prepared, started = request.prepared, time.monotonic()
    compiled, kept = _compile(request, directory, progress)
    files = list(compiled.files)
    if prepared.table is not None:
        (directory / TABLE).write_bytes(prepared.table)
        files.append(TABLE)
    hashes = {name: sha256(directory / name) for name in files}
    sidecar = Sidecar(
        backend=request.backend.name,
        backend_version=compiled.version,
        precision=prepared.precision,
        batch=request.options.batch,
        files=hashes,
        calibration_sha256=hashes.get(TABLE),
        mixed_precision=prepared.mixed_precision,
        target={**compiled.target, **kept},
        built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        build_seconds=round(request.seconds_before + time.monotonic() - started, 1),
        ampnet_opt_version=__version__,
        **asdict(request.origin),
    )
    return sidecar, compiled.layers


def _compile(request: EngineRequest, directory: Path, progress: Optional[Progress]) -> Tuple[Compiled, Dict[str, Any]]:
    """What the backend wrote, and what the sidecar's target says of the graph that it took."""
    prepared, backend = request.prepared, request.backend

    def compiled(graph: bytes) -> Compiled:
        return backend.compile(directory, graph, prepared.precision, request.options, progress)

    try:
        kept = {} if prepared.float32_layers is None else {"float32_layers": prepared.float32_layers}
        return compiled(prepared.graph), kept
    except AmpnetError as error:
        if prepared.float32_scales is None:
            raise
        log.warning("%s; built again with float32 scales, and with FP32 in place of FP16", error)
        try:
            return compiled(prepared.float32_scales), {"scales": "float32"}
        except AmpnetError as second:
            raise AmpnetError(f"{error}; with float32 scales: {second}") from second
