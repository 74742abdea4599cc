"""From a checkpoint to engine directories: the order of the steps, and nothing of how each is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import onnx

from ampnet_opt import __version__
from ampnet_opt.calibration.ranges import DEFAULT
from ampnet_opt.calibration.table import CalibrationTable
from ampnet_opt.checkpoint import Checkpoint
from ampnet_opt.convert import cpu
from ampnet_opt.convert.export import ImageInput, random_faces
from ampnet_opt.convert.half import to_half
from ampnet_opt.convert.placement import place
from ampnet_opt.convert.source import Int8, Source, calibrate, float_ranges, source_of
from ampnet_opt.convert.tensorrt import parsable
from ampnet_opt.convert.verify import verify
from ampnet_opt.errors import MisuseError
from ampnet_opt.faces import Face, fingerprint
from ampnet_opt.files import PathLike, new_directory, require_new, sha256
from ampnet_opt.labels import label_indices
from ampnet_opt.runtime.cpu import ARITHMETIC, require_precision
from ampnet_opt.runtime.plan import build_plan, needs_typed_graph, require_library
from ampnet_opt.runtime.sidecar import BatchRange, Sidecar
from ampnet_opt.runtime.trt import PLAN
from ampnet_opt.sensitivity.analysis import Sensitivity, analyse
from ampnet_opt.sensitivity.mixed import Mixed, choose
from ampnet_opt.sensitivity.search import Budget

Backend = Literal["cpu", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
TABLE = "calibration.json"
BATCH = 16
VERIFYING_FACES = 8
TYPED = {"fp16", "int8"}  # precisions whose float part is FP16, where the backend takes its types from the graph
# Says what is being done: `step("exporting", total)` opens a step of `total` units (0: unknown); the function that it
# gives is called with the units done.
Steps = Callable[[str, int], AbstractContextManager[Callable[[float], None]]]


@dataclass(frozen=True)
class Search:
    """The fewest layers of int8 in floating point that hold `budget` on the labelled faces `held_out`.

    ranking: of an analysis made before; without one it is made here, on the labelled calibration faces.
    """

    budget: Budget
    held_out: Sequence[Face]
    ranking: Sensitivity | None = None


@dataclass(frozen=True)
class Options:
    """What to build. faces: for the calibration of int8, and to look for overflow in fp16. method: of calibration.

    table: scales to take as they are, instead of a calibration. search: for int8; without it every layer is INT8.
    compute_capabilities: of the GPUs that a tensorrt-rtx engine is for; by default all from 8.0 on that it knows.
    """

    backend: Backend
    precisions: Sequence[Precision]
    image_input: ImageInput = "uint8"
    batch: BatchRange = field(default_factory=BatchRange)
    faces: Sequence[Face] = ()
    method: str = DEFAULT
    table: CalibrationTable | None = None
    search: Search | None = None
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
        source = source_of(checkpoint, options.image_input)
    int8, mixed = None, None
    if "int8" in options.precisions:
        int8 = _int8(source, options, step)
        mixed = None if options.search is None else _mixed(source, int8, checkpoint, options, options.search, step)
    ranges = _ranges(source, options) if _needs_ranges(options) else {}
    shared_seconds = time.monotonic() - started

    for precision, target in targets.items():
        started = time.monotonic()
        recipe = int8 if precision == "int8" else None
        with step(f"building {target.name}", 1) as progress, new_directory(target) as directory:
            model = source.graph if recipe is None else _quantized(source, recipe, mixed)
            version, details, files = _compile(model, ranges, precision, options, directory, progress)
            if recipe is not None:
                recipe.table.write(directory / TABLE)
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
                graph_sha256=source.sha256,
                calibration_sha256=None if recipe is None else sha256(directory / TABLE),
                mixed_precision=None if recipe is None or mixed is None else mixed.record,
                target=details,
                built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
                build_seconds=round(shared_seconds + time.monotonic() - started, 1),
                ampnet_opt_version=__version__,
            ).write(directory)
            if options.backend == "cpu":
                verify(directory, model, source.graph, *_verifying_inputs(source, options))
    return list(targets.values())


def _require_possible(options: Options) -> None:
    """What can be known to fail is said before minutes of work."""
    if "int8" in options.precisions and not options.faces and options.table is None:
        raise MisuseError("int8 needs faces to calibrate on")
    if "bf16" in options.precisions and options.backend != "cpu":
        raise MisuseError(f"bf16 is for the cpu backend; for {options.backend} take fp16")
    if options.backend == "cpu":
        for precision in options.precisions:
            require_precision(precision)
    else:
        require_library(options.backend)


def _verifying_inputs(source: Source, options: Options) -> tuple[np.ndarray, np.ndarray]:
    if not options.faces:
        return random_faces(VERIFYING_FACES, source.image_input)
    return source.batches(options.faces[:VERIFYING_FACES], VERIFYING_FACES)[0]


def _int8(source: Source, options: Options, step: Steps) -> Int8:
    if options.table is None:
        with step(f"calibrating ({options.method})", len(options.faces)) as progress:
            return calibrate(source, options.faces, options.method, progress)
    missing = [name for name in source.placement.tensors if name not in options.table.scales]
    if missing:
        raise MisuseError(f"the calibration table has no scale for {missing[0]}: it is of another network or --input")
    return Int8(options.table, None)


def _mixed(source: Source, int8: Int8, checkpoint: Checkpoint, options: Options, search: Search, step: Steps) -> Mixed:
    ranking = search.ranking or _ranking(source, int8, checkpoint, options, step)
    labels = np.array(label_indices(checkpoint.classes, [face.label for face in search.held_out]))
    with step("choosing layers", 0) as progress:
        batches = source.batches(search.held_out, BATCH)
        mixed = choose(source.graph, int8, ranking, options.backend, batches, labels, search.budget, progress)
    return replace(mixed, record={**mixed.record, "held_out_fingerprint": fingerprint(search.held_out)})


def _ranking(source: Source, int8: Int8, checkpoint: Checkpoint, options: Options, step: Steps) -> Sensitivity:
    labels = np.array(label_indices(checkpoint.classes, [face.label for face in options.faces]))
    with step("measuring each layer", len(source.placement.layers)) as progress, TemporaryDirectory() as folder:
        return analyse(
            source.graph,
            checkpoint.sha256,
            int8,
            source.batches(options.faces, BATCH),
            labels,
            "layer",
            "only",
            Path(folder) / "state.json",
            lambda done, total: progress(done),
        )


def _quantized(source: Source, int8: Int8, mixed: Mixed | None) -> onnx.ModelProto:
    placement = source.placement if mixed is None else place(source.graph, mixed.layers)
    return int8.quantize(source.graph, placement)


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
    if precision in TYPED and needs_typed_graph(options.backend):
        model, kept = to_half(model, ranges)
        details["float32_layers"] = kept
    graph = parsable(model, options.backend)
    plan = build_plan(options.backend, graph, precision, options.batch, progress, options.compute_capabilities)
    (directory / PLAN).write_bytes(plan.data)
    return plan.version, {**plan.target, **details}, [PLAN]


def _needs_ranges(options: Options) -> bool:
    """Whether an engine is asked for whose FP16 part is written into the graph."""
    return options.backend != "cpu" and bool(TYPED & {*options.precisions}) and needs_typed_graph(options.backend)


def _ranges(source: Source, options: Options) -> dict[str, float]:
    """`float_ranges` on a few faces, or on noise when there are none."""
    few = options.faces[:VERIFYING_FACES]
    return float_ranges(source.graph, source.batches(few, 1) if few else [random_faces(1, source.image_input)])
