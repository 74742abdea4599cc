"""From a checkpoint to engine directories: the order of the steps, and nothing of how each is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from hashlib import sha256 as digest_of
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from ampnet_opt import __version__
from ampnet_opt.calibration.collect import collect
from ampnet_opt.calibration.ranges import METHODS
from ampnet_opt.calibration.table import CalibrationTable, shared_scales
from ampnet_opt.checkpoint import Checkpoint
from ampnet_opt.convert import cpu, tensorrt
from ampnet_opt.convert.export import ImageInput, export, random_faces
from ampnet_opt.convert.half import to_half
from ampnet_opt.convert.placement import Placement, place
from ampnet_opt.convert.quantize import quantize
from ampnet_opt.convert.verify import verify
from ampnet_opt.errors import MisuseError
from ampnet_opt.faces import Face, fingerprint, load_batches
from ampnet_opt.files import PathLike, new_directory, require_new, sha256
from ampnet_opt.runtime.cpu import ARITHMETIC, require_precision
from ampnet_opt.runtime.engine import prepare
from ampnet_opt.runtime.sidecar import BatchRange, Sidecar
from ampnet_opt.runtime.trt import PLAN

Backend = Literal["cpu", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
TABLE = "calibration.json"
VERIFYING_FACES = 8
TYPED = {"fp16", "int8"}  # precisions whose float part is FP16, where the backend takes its types from the graph
# Says what is being done: `step("exporting", total)` opens a step of `total` units (0: unknown); the function that it
# gives is called with the units done.
Steps = Callable[[str, int], AbstractContextManager[Callable[[float], None]]]


@dataclass(frozen=True)
class Options:
    """What to build. faces: for the calibration of int8, and to look for overflow in fp16. method: of calibration.

    compute_capabilities: of the GPUs that a tensorrt-rtx engine is for; by default all from 8.0 on that it knows.
    """

    backend: Backend
    precisions: Sequence[Precision]
    image_input: ImageInput = "uint8"
    batch: BatchRange = field(default_factory=BatchRange)
    faces: Sequence[Face] = ()
    method: str = "entropy"
    compute_capabilities: Sequence[str] = ()


def engine_name(backend: str, precision: str) -> str:
    return f"{backend}-{precision}"


def build(checkpoint: Checkpoint, options: Options, output: PathLike, step: Steps, force: bool = False) -> list[Path]:
    """Build an engine per precision in `output`, each a directory named backend-precision; returns their paths.

    Raises MisuseError when one stands there already and `force` is not given, or int8 is asked for without faces;
    AmpnetError when a step fails. An engine appears whole or not at all.
    """
    targets = {p: require_new(Path(output) / engine_name(options.backend, p), force) for p in options.precisions}
    _require_possible(options)
    started = time.monotonic()
    with step("exporting the graph", 0):
        graph = export(checkpoint, options.image_input)
    graph_sha256 = digest_of(graph.SerializeToString(deterministic=True)).hexdigest()
    placement = place(graph)
    tables: dict[str, CalibrationTable] = {}
    if "int8" in options.precisions:
        tables["int8"] = _calibrate(graph, graph_sha256, placement, options, step)
    ranges = _ranges(graph, options) if _needs_ranges(options) else {}
    shared_seconds = time.monotonic() - started

    for precision, target in targets.items():
        started = time.monotonic()
        table = tables.get(precision)
        with step(f"building {target.name}", 1) as progress, new_directory(target) as directory:
            model = graph if table is None else quantize(graph, placement, table.scales)
            version, details, files = _compile(model, ranges, precision, options, directory, progress)
            if table is not None:
                table.write(directory / TABLE)
                files.append(TABLE)
            Sidecar(
                backend=options.backend,
                backend_version=version,
                precision=precision,
                classes=list(checkpoint.classes),
                image_input=options.image_input,
                patch_radius=checkpoint.model.config.patch_radius,
                trained=checkpoint.trained,
                batch=options.batch,
                files={name: sha256(directory / name) for name in files},
                checkpoint_sha256=checkpoint.sha256,
                graph_sha256=graph_sha256,
                calibration_sha256=None if table is None else sha256(directory / TABLE),
                target=details,
                built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
                build_seconds=round(shared_seconds + time.monotonic() - started, 1),
                ampnet_opt_version=__version__,
            ).write(directory)
            if options.backend == "cpu":
                verify(directory, model, graph, *_verifying_inputs(options))
    return list(targets.values())


def _require_possible(options: Options) -> None:
    """What can be known to fail is said before minutes of work."""
    if "int8" in options.precisions and not options.faces:
        raise MisuseError("int8 needs faces to calibrate on")
    if "bf16" in options.precisions and options.backend != "cpu":
        raise MisuseError(f"bf16 is for the cpu backend; for {options.backend} take fp16")
    if options.backend == "cpu":
        for precision in options.precisions:
            require_precision(precision)
    else:
        tensorrt.require_library(options.backend)


def _inputs(options: Options, count: int, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    batches = load_batches(options.faces[:count], size)
    return [prepare(images, landmarks, options.image_input) for images, landmarks in batches]


def _verifying_inputs(options: Options) -> tuple[np.ndarray, np.ndarray]:
    if not options.faces:
        return random_faces(VERIFYING_FACES, options.image_input)
    return _inputs(options, VERIFYING_FACES, VERIFYING_FACES)[0]


def _calibrate(
    graph: onnx.ModelProto, graph_sha256: str, placement: Placement, options: Options, step: Steps
) -> CalibrationTable:
    faces = options.faces
    with step(f"calibrating ({options.method})", len(faces)) as progress:
        batches = (prepare(images, points, options.image_input) for images, points in load_batches(faces, 1))
        histograms = collect(graph, list(placement.tensors), batches, progress)
        amax = {name: METHODS[options.method](histogram) for name, histogram in histograms.items()}
    scales = shared_scales(amax, placement.groups())
    return CalibrationTable(options.method, len(faces), fingerprint(faces), graph_sha256, scales)


def _compile(
    model: onnx.ModelProto,
    ranges: dict[str, float],
    precision: str,
    options: Options,
    directory: Path,
    progress: Callable[[float], None],
) -> tuple[str, dict[str, object], list[str]]:
    """Write the backend's own files; returns its version, what the engine is for, and the names of the files."""
    if options.backend == "cpu":
        files, version = cpu.build(model, precision, directory)
        return version, {"arithmetic_of_float_layers": ARITHMETIC[precision]}, files
    details: dict[str, object] = {}
    if precision in TYPED and tensorrt.needs_typed_graph(options.backend):
        model, kept = to_half(model, ranges)
        details["float32_layers"] = kept
    plan = tensorrt.build_plan(options.backend, model, precision, options.batch, progress, options.compute_capabilities)
    (directory / PLAN).write_bytes(plan.data)
    return plan.version, {**plan.target, **details}, [PLAN]


def _needs_ranges(options: Options) -> bool:
    """Whether an engine is asked for whose FP16 part is written into the graph."""
    return options.backend != "cpu" and bool(TYPED & {*options.precisions}) and tensorrt.needs_typed_graph(options.backend)


def _ranges(graph: onnx.ModelProto, options: Options) -> dict[str, float]:
    """Largest magnitude of every float tensor, on a few faces (noise when there are none): what FP16 has to hold."""
    made = [name for node in graph.graph.node if node.op_type not in {"And", "Equal", "Less", "Not"} for name in node.output]
    inputs = _inputs(options, VERIFYING_FACES, 1) if options.faces else [random_faces(1, options.image_input)]
    return {name: histogram.amax for name, histogram in collect(graph, made, inputs).items()}
