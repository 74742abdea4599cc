"""From a checkpoint to engine directories: the order of the steps, and nothing of how each is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import onnx

from ampnet_opt.calibration.ranges import DEFAULT
from ampnet_opt.calibration.table import CalibrationTable
from ampnet_opt.convert.forms import in_form, writes_half
from ampnet_opt.convert.placement import place
from ampnet_opt.convert.source import (
    Int8,
    Source,
    calibrate,
    float_proof,
    half_ranges,
    int8_of,
    proof_of,
    source_of,
)
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.files import PathLike, require_new, reserved
from ampnet_opt.core.graph_interface import ImageInput
from ampnet_opt.core.processor import release_memory
from ampnet_opt.core.progress import Steps
from ampnet_opt.faces.face import Face
from ampnet_opt.network.checkpoint import Checkpoint
from ampnet_opt.runtime.backend import Backend, find_backend
from ampnet_opt.runtime.build import EngineRequest, Origin, Prepared, build_engine, engine_name
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.golden import Proof, WrongAnswers

__all__ = ["LayerChoice", "MixedPrecision", "Options", "Recipe", "build", "prepared", "recipe_of", "require_consistent"]

log = logging.getLogger(__name__)

Precision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True)
class MixedPrecision:
    """An INT8 network of which some layers stay in floating point.

    Attributes:
        layers: names of the graph's nodes that stay.
        record: why, and what was measured, for the sidecar.
    """

    layers: tuple[str, ...]
    record: dict[str, Any]


class LayerChoice(Protocol):
    """Says which layers of an INT8 network stay in floating point: `ampnet_opt.sensitivity` measures it."""

    def choose(self, checkpoint: Checkpoint, source: Source, int8: Int8, options: Options, step: Steps) -> MixedPrecision:
        """Choose them.

        Args:
            checkpoint: the network.
            source: its float graph.
            int8: of every layer of it.
            options: those that hold this choice.
            step: of `core.progress.steps`.
        """


@dataclass(frozen=True)
class Options:
    """What to build.

    Attributes:
        backend: by its name.
        precisions: an engine is built for each, in this order.
        image_input: dtype of the images that the engines take.
        faces: for the calibration of int8, and to look for overflow in fp16.
        method: of calibration, of `calibration.ranges.METHODS`.
        table: of a calibration before, to take as it is instead of calibrating.
        search: for int8, chooses the layers that stay in floating point; without it every layer is INT8.
        compiling: how the backend compiles the graphs.
    """

    backend: str
    precisions: Sequence[Precision]
    image_input: ImageInput = "uint8"
    faces: Sequence[Face] = ()
    method: str = DEFAULT
    table: CalibrationTable | None = None
    search: LayerChoice | None = None
    compiling: CompileOptions = field(default_factory=CompileOptions)


@dataclass(frozen=True)
class Recipe:
    """What the engines of a checkpoint are made from.

    Attributes:
        source: the float graph.
        origin: what a sidecar says of it.
        proof: of `float_proof`.
        ranges: largest magnitude of each float tensor, or of the large ones, for FP16 that is written into a graph.
        int8: scales and bias corrections, if int8 is asked for.
        mixed_precision: for int8, the layers that stay in floating point, if a choice of them is asked for.
    """

    source: Source
    origin: Origin
    proof: Proof
    ranges: dict[str, float]
    int8: Int8 | None
    mixed_precision: MixedPrecision | None

    def model(self, precision: str) -> onnx.ModelProto:
        """The float graph, or for int8 the Q/DQ graph."""
        if precision != "int8":
            return self.source.graph
        assert self.int8 is not None
        kept = () if self.mixed_precision is None else self.mixed_precision.layers
        return self.int8.quantize(self.source.graph, place(self.source.graph, kept) if kept else self.source.placement)


def float_recipe(
    checkpoint: Checkpoint,
    image_input: ImageInput,
    faces: Sequence[Face],
    *,
    half: bool,
    table: CalibrationTable | None = None,
    step: Steps,
) -> Recipe:
    """Export a checkpoint: what its float engines are made from. half: of `writes_half`, and measure what that asks for.

    faces: of the calibration; table: of an earlier one, which may know the ranges.
    """
    with step("exporting the graph", 0):
        source = source_of(checkpoint, image_input)
        proof = float_proof(source, faces)
    ranges = half_ranges(source, faces, table) if half else {}
    return Recipe(source, origin_of(checkpoint, source), proof, ranges, None, None)


def recipe_of(checkpoint: Checkpoint, options: Options, forms: Collection[str], step: Steps) -> Recipe:
    """Export a checkpoint, calibrate it and choose its layers, as far as `options` ask for it. forms: of `prepared`."""
    half, table = writes_half(forms, options.precisions), options.table
    recipe = float_recipe(checkpoint, options.image_input, options.faces, half=half, table=table, step=step)
    if "int8" not in options.precisions:
        return recipe
    int8 = _int8(recipe.source, options, step)
    if recipe.ranges and options.faces:
        int8 = int8.with_ranges(recipe.ranges)
    mixed = None if options.search is None else options.search.choose(checkpoint, recipe.source, int8, options, step)
    return replace(recipe, int8=int8, mixed_precision=mixed)


def origin_of(checkpoint: Checkpoint, source: Source) -> Origin:
    """What the sidecars of all engines of a checkpoint say of it."""
    return Origin(
        classes=list(checkpoint.classes),
        image_input=source.image_input,
        patch_radius=checkpoint.model.config.patch_radius,
        trained=checkpoint.trained,
        checkpoint_sha256=checkpoint.sha256,
        graph_sha256=source.sha256,
        classes_assumed=bool(checkpoint.assumed),
    )


def prepared(recipe: Recipe, model: onnx.ModelProto, precision: str, form: str) -> Prepared:
    """`recipe.model(precision)` in the form (of `runtime.backend`) that a backend takes.

    Raises:
        AmpnetError: a scale of int8 is nothing that the backend reads.
    """
    ready = in_form(model, precision, form, recipe.ranges)
    if precision != "int8":
        return ready
    assert recipe.int8 is not None
    record = None if recipe.mixed_precision is None else recipe.mixed_precision.record
    return replace(ready, mixed_precision=record, table=recipe.int8.table.to_json().encode())


def build(checkpoint: Checkpoint, options: Options, output: PathLike, step: Steps, force: bool = False) -> dict[Path, str]:
    """Build an engine per precision in `output`, each a directory named backend-precision, whole or not at all.

    Args:
        checkpoint: the network.
        options: what to build of it.
        output: the folder of the engines' directories.
        step: of `core.progress.steps`.
        force: replace engines that stand there.

    Returns:
        For each engine, by its directory, why it was not run here, or "".

    Raises:
        MisuseError: an engine stands there already and `force` is not given, int8 is asked for without faces, or its table
            is of another checkpoint.
        AmpnetError: a step fails.
    """
    targets = {p: require_new(Path(output) / engine_name(options.backend, p), force) for p in options.precisions}
    require_consistent(options)
    with reserved(*targets.values()):
        return _build(checkpoint, options, targets, step, force)


def _build(
    checkpoint: Checkpoint, options: Options, targets: Mapping[Precision, Path], step: Steps, force: bool
) -> dict[Path, str]:
    backend = find_backend(options.backend)
    backend.require_possible(options.compiling, options.precisions)
    started, form = time.monotonic(), backend.graph_form(options.compiling.builder)
    recipe = recipe_of(checkpoint, options, [form], step)
    shared_seconds = time.monotonic() - started

    built = {}
    for precision, target in targets.items():
        with step(f"building {target.name}", 1) as progress:
            request = request_of(recipe, precision, backend, options.compiling, shared_seconds)
            try:
                built[target] = build_engine(request, target, progress, force)
            except WrongAnswers as error:
                raise _explained(error, request, recipe, step) from error
    return built


def _explained(error: WrongAnswers, request: EngineRequest, recipe: Recipe, step: Steps) -> AmpnetError:
    """Where the engine leaves its graph; what it was refused for is a warning before that."""
    from ampnet_opt.convert.first_difference import first_difference

    log.warning("%s; looking for the layer where it begins", error)
    precision = request.prepared.precision
    # ONNX Runtime has no kernels for BF16.
    reference = recipe.source.graph if precision == "bf16" else onnx.load_from_string(request.prepared.graph)
    try:
        with step("looking for the first difference", 1) as progress:
            found = first_difference(request, reference, error.size, progress)
    except AmpnetError as failure:
        return AmpnetError(f"{error}; where it begins cannot be told: {failure}")
    if found is None:
        return AmpnetError(f"{error}; cut behind its last layer, the graph is computed rightly")
    return AmpnetError(f"{request.backend.name} computes this graph wrongly: {found}")


def request_of(
    recipe: Recipe, precision: str, backend: Backend, compiling: CompileOptions, seconds_before: float = 0.0
) -> EngineRequest:
    """What an engine of a recipe is made of. seconds_before: what the recipe took."""
    started = time.monotonic()
    model = recipe.model(precision)
    proof = proof_of(recipe.proof, model, precision)
    ready = prepared(recipe, model, precision, backend.graph_form(compiling.builder))
    release_memory()  # what preparing the graph has freed, before a library compiles it
    return EngineRequest(backend, compiling, recipe.origin, ready, proof, seconds_before + time.monotonic() - started)


def require_consistent(options: Options) -> None:
    """Refuse, before minutes of work, what cannot be right on any machine.

    Raises:
        MisuseError: int8 is asked for without faces or a table, or a precision that the backend does not have.
    """
    if "int8" in options.precisions and not options.faces and options.table is None:
        raise MisuseError("int8 needs faces to calibrate on")
    find_backend(options.backend).require_precisions(options.precisions)


def _int8(source: Source, options: Options, step: Steps) -> Int8:
    if options.table is None:
        with step(f"calibrating ({options.method})", len(options.faces)) as progress:
            return calibrate(source, options.faces, options.method, progress)
    return int8_of(source, options.table)
