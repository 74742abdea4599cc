"""From a prepared graph to an engine directory: what a build from a checkpoint and one from a bundle have in common."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ampnet_opt import __version__
from ampnet_opt.errors import AmpnetError
from ampnet_opt.files import new_directory, sha256
from ampnet_opt.runtime.accuracy import require_close
from ampnet_opt.runtime.builder_options import BuilderOptions, require_options
from ampnet_opt.runtime.cpu import ARITHMETIC, require_precision
from ampnet_opt.runtime.engine import BACKENDS
from ampnet_opt.runtime.golden import Proof, require_right
from ampnet_opt.runtime.inspector import list_layers
from ampnet_opt.runtime.ir import build_ir
from ampnet_opt.runtime.plan import DEFAULTS, build_plan, needs_typed_graph, require_library
from ampnet_opt.runtime.sidecar import BatchRange, Sidecar
from ampnet_opt.runtime.trt import PLAN
from ampnet_opt.runtime.watch import Progress

TABLE = "calibration.json"
# Forms of a graph: for OpenVINO with UINT8 where nothing is negative; for TensorRT whose own types say what is computed in
# FP16, or float32 with float weights, for versions that are told by flags.
UNSIGNED, TYPED, WEAK = "unsigned", "typed", "weak"


@dataclass(frozen=True)
class Machine:
    """What an engine is built for, and how. backend: cpu, tensorrt or tensorrt-rtx. compute_capabilities, options: as of
    `build_plan`."""

    backend: str
    batch: BatchRange = BatchRange()  # noqa: RUF009 (frozen)
    compute_capabilities: Sequence[str] = ()
    options: BuilderOptions = DEFAULTS


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
    """

    precision: str
    graph: bytes
    mixed_precision: Optional[Dict[str, Any]] = None
    float32_layers: Optional[List[str]] = None
    expected: Dict[str, List[str]] = field(default_factory=dict)
    table: Optional[bytes] = None


def engine_name(backend: str, precision: str) -> str:
    return f"{backend}-{precision}"


def form_for(backend: str, options: BuilderOptions = DEFAULTS) -> str:
    """The form of graph that this machine's `backend` takes. Raises AmpnetError when its module is missing."""
    if backend == "cpu":
        return UNSIGNED
    return TYPED if needs_typed_graph(backend, options) else WEAK


def require_possible(backend: str, precisions: Sequence[str], options: BuilderOptions, batch: BatchRange) -> None:
    """What can be known to fail on this machine is said before minutes of work; errors as of what is asked."""
    if backend == "cpu":
        for precision in precisions:
            require_precision(precision)
    else:
        require_library(backend)
    require_options(backend, options, precisions, batch)


def build_engine(
    target: Path,
    machine: Machine,
    origin: Origin,
    prepared: Prepared,
    proof: Proof,
    progress: Optional[Progress] = None,
    seconds_before: float = 0.0,
    force: bool = False,
) -> str:
    """Build an engine and, where it runs here, compare it with its graph; returns why it was not run, or "".

    progress: called with the share done. seconds_before: what preparing the graph took. force: replace what stands at
    `target`. Raises AmpnetError when the backend is missing or refuses, or when the engine computes something else than its
    graph. It appears whole, at `target`, or not at all.
    """
    require_close(proof.accuracy, origin.trained)
    with new_directory(target, force) as directory:
        sidecar = write_engine(directory, machine, origin, prepared, progress, seconds_before)
        reason, accuracy = not_runnable(sidecar), list(proof.accuracy)
        if not reason:
            logits = require_right(directory, proof.golden, proof.graph_error)
            if prepared.precision == "int8":
                measured = proof.measure(logits, engine=True)
                require_close(measured, origin.trained)
                accuracy = [*measured, *(kept for kept in accuracy if kept.on not in {new.on for new in measured})]
        if accuracy:
            replace(sidecar, accuracy=[asdict(found) for found in accuracy]).write(directory)
    return reason


def not_runnable(sidecar: Sidecar) -> str:
    """Why this machine cannot run an engine, or ""."""
    try:
        import_module(BACKENDS[sidecar.backend]).check(sidecar)
    except AmpnetError as error:
        return str(error)
    return ""


def write_engine(
    directory: Path,
    machine: Machine,
    origin: Origin,
    prepared: Prepared,
    progress: Optional[Progress] = None,
    seconds_before: float = 0.0,
) -> Sidecar:
    """Compile a graph of the form `form_for(backend, options)` into `directory`, list the engine's layers, and write the
    sidecar, which is returned. For errors and arguments see `build_engine`, which compares the engine as well.
    """
    started = time.monotonic()
    version, target, files = _compile(directory, machine, prepared, progress)
    if prepared.table is not None:
        (directory / TABLE).write_bytes(prepared.table)
        files.append(TABLE)
    hashes = {name: sha256(directory / name) for name in files}
    sidecar = Sidecar(
        backend=machine.backend,
        backend_version=version,
        precision=prepared.precision,
        batch=machine.batch,
        files=hashes,
        calibration_sha256=hashes.get(TABLE),
        mixed_precision=prepared.mixed_precision,
        target=target,
        built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        build_seconds=round(seconds_before + time.monotonic() - started, 1),
        ampnet_opt_version=__version__,
        **asdict(origin),
    )
    kept = (prepared.float32_layers or []) if prepared.precision == "fp16" else []
    expected = {node: names for node, names in prepared.expected.items() if node not in kept}
    sidecar = replace(sidecar, layers=list_layers(directory, sidecar, expected))
    sidecar.write(directory)
    return sidecar


def _compile(
    directory: Path, machine: Machine, prepared: Prepared, progress: Optional[Progress]
) -> Tuple[str, Dict[str, Any], List[str]]:
    """Write the backend's own files; returns its version, what the engine is for, and the names of the files."""
    if machine.backend == "cpu":
        files, version = build_ir(prepared.graph, prepared.precision, directory)
        return version, {"arithmetic_of_float_layers": ARITHMETIC[prepared.precision]}, files
    asked = (progress, machine.compute_capabilities, machine.options)
    plan = build_plan(machine.backend, prepared.graph, prepared.precision, machine.batch, *asked)
    (directory / PLAN).write_bytes(plan.data)
    kept = {} if prepared.float32_layers is None else {"float32_layers": prepared.float32_layers}
    return plan.version, {**plan.target, **kept}, [PLAN]
