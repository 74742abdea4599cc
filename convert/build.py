"""From a checkpoint to engine directories: the order of the steps, and nothing of how each is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import onnx

from ampnet_opt.calibration.ranges import DEFAULT
from ampnet_opt.calibration.table import CalibrationTable
from ampnet_opt.checkpoint import Checkpoint
from ampnet_opt.convert.check import require_representable
from ampnet_opt.convert.cpu import cpu_graph
from ampnet_opt.convert.expected import expected_layers
from ampnet_opt.convert.export import ImageInput, random_faces
from ampnet_opt.convert.half import to_half
from ampnet_opt.convert.placement import place
from ampnet_opt.convert.source import Int8, Source, calibrate, float_ranges, source_of
from ampnet_opt.convert.tensorrt import float_weights
from ampnet_opt.convert.verify import float_proof, proof_of
from ampnet_opt.errors import MisuseError
from ampnet_opt.faces import Face, fingerprint, spread
from ampnet_opt.files import PathLike, require_new, reserved
from ampnet_opt.labels import label_indices
from ampnet_opt.runtime.build import (
    TYPED,
    UNSIGNED,
    WEAK,
    Machine,
    Origin,
    Prepared,
    build_engine,
    engine_name,
    form_for,
    require_possible,
)
from ampnet_opt.runtime.builder_options import BuilderOptions
from ampnet_opt.runtime.golden import Proof
from ampnet_opt.runtime.sidecar import BatchRange
from ampnet_opt.sensitivity.analysis import Sensitivity, analyse
from ampnet_opt.sensitivity.mixed import Mixed, choose
from ampnet_opt.sensitivity.search import Budget

Backend = Literal["cpu", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
BATCH = 16
RANGING_FACES = 8
HALF = {"fp16", "int8"}  # precisions whose float part is FP16, where the backend takes its types from the graph
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
    builder: what else is asked of tensorrt and tensorrt-rtx.
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
    builder: BuilderOptions = field(default_factory=BuilderOptions)


@dataclass(frozen=True)
class Recipe:
    """What the engines of a checkpoint are made from.

    proof: of `float_proof`. ranges: of the float tensors, for FP16 that is written into a graph. The rest is for int8: its
    scales, and the layers that stay in floating point.
    """

    source: Source
    origin: Origin
    proof: Proof
    ranges: dict[str, float]
    int8: Int8 | None
    mixed: Mixed | None

    def model(self, precision: str) -> onnx.ModelProto:
        """The float graph, or for int8 the Q/DQ graph."""
        if precision != "int8":
            return self.source.graph
        assert self.int8 is not None
        placement = self.source.placement if self.mixed is None else place(self.source.graph, self.mixed.layers)
        return self.int8.quantize(self.source.graph, placement)


def recipe_of(checkpoint: Checkpoint, options: Options, forms: Collection[str], step: Steps) -> Recipe:
    """Export a checkpoint, calibrate it and choose its layers, as far as `options` ask for it. forms: of `prepared`."""
    with step("exporting the graph", 0):
        source = source_of(checkpoint, options.image_input)
        proof = float_proof(source, options.faces)
    int8, mixed = None, None
    if "int8" in options.precisions:
        int8 = _int8(source, options, step)
        mixed = None if options.search is None else _mixed(source, int8, checkpoint, options, options.search, step)
    radius = checkpoint.model.config.patch_radius
    origin = Origin(
        list(checkpoint.classes),
        source.image_input,
        radius,
        checkpoint.trained,
        checkpoint.sha256,
        source.sha256,
        classes_assumed=bool(checkpoint.assumed),
    )
    ranges = _ranges(source, options) if TYPED in forms and HALF & {*options.precisions} else {}
    return Recipe(source, origin, proof, ranges, int8, mixed)


def prepared(recipe: Recipe, model: onnx.ModelProto, precision: str, form: str) -> Prepared:
    """`recipe.model(precision)` in the form (of runtime.build) that a backend takes.

    Raises AmpnetError when a scale of int8 is nothing that the backend reads.
    """
    if form == UNSIGNED:
        model = cpu_graph(model, precision)
    kept, expected = None, expected_layers(model, precision)
    if form == WEAK:
        model = float_weights(model)
    elif form == TYPED and precision in HALF:
        model, kept = to_half(model, recipe.ranges)
    if precision != "int8":
        return Prepared(precision, model.SerializeToString(), None, kept, expected)
    assert recipe.int8 is not None
    require_representable(model)
    record = None if recipe.mixed is None else recipe.mixed.record
    table = recipe.int8.table.to_json().encode()
    return Prepared(precision, model.SerializeToString(), record, kept, expected, table)


def build(checkpoint: Checkpoint, options: Options, output: PathLike, step: Steps, force: bool = False) -> dict[Path, str]:
    """Build an engine per precision in `output`, each a directory named backend-precision; returns, for each, why it was
    not run here, or "".

    Raises MisuseError when one stands there already and `force` is not given, int8 is asked for without faces, or its table
    is of another checkpoint; AmpnetError when a step fails. An engine appears whole or not at all.
    """
    targets = {p: require_new(Path(output) / engine_name(options.backend, p), force) for p in options.precisions}
    require_consistent(options)
    with reserved(*targets.values()):
        return _build(checkpoint, options, targets, step, force)


def _build(
    checkpoint: Checkpoint, options: Options, targets: Mapping[Precision, Path], step: Steps, force: bool
) -> dict[Path, str]:
    require_possible(options.backend, options.precisions, options.builder, options.batch)
    started, form = time.monotonic(), form_for(options.backend, options.builder)
    recipe = recipe_of(checkpoint, options, [form], step)
    machine = Machine(options.backend, options.batch, options.compute_capabilities, options.builder)
    shared_seconds = time.monotonic() - started

    built = {}
    for precision, target in targets.items():
        started = time.monotonic()
        with step(f"building {target.name}", 1) as progress:
            model = recipe.model(precision)
            proof = proof_of(recipe.proof, model, precision)
            ready = prepared(recipe, model, precision, form)
            seconds = shared_seconds + time.monotonic() - started
            built[target] = build_engine(target, machine, recipe.origin, ready, proof, progress, seconds, force)
    return built


def require_consistent(options: Options) -> None:
    """What cannot be right on any machine is said before minutes of work."""
    if "int8" in options.precisions and not options.faces and options.table is None:
        raise MisuseError("int8 needs faces to calibrate on")
    if "bf16" in options.precisions and options.backend != "cpu":
        raise MisuseError(f"bf16 is for the cpu backend; for {options.backend} take fp16")


def _int8(source: Source, options: Options, step: Steps) -> Int8:
    if options.table is None:
        with step(f"calibrating ({options.method})", len(options.faces)) as progress:
            return calibrate(source, options.faces, options.method, progress)
    options.table.require_for(source.checkpoint_sha256, source.sha256)
    missing = [name for name in source.placement.tensors if name not in options.table.scales]
    if missing:
        raise MisuseError(f"the scales (--scales) lack {missing[0]}: they are of another --input; leave out --scales")
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


def _ranges(source: Source, options: Options) -> dict[str, float]:
    """`float_ranges` on a few faces, or on noise when there are none."""
    few = spread(options.faces, RANGING_FACES)
    return float_ranges(source.graph, source.batches(few, 1) if few else [random_faces(1, source.image_input)])
