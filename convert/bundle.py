"""From a checkpoint to a bundle: one file to copy to the machine that will build the engines and run them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ampnet_opt.bundling.carried_faces import NAME as FACES
from ampnet_opt.bundling.carried_faces import shrunk, write_carried
from ampnet_opt.bundling.pack import new_bundle
from ampnet_opt.bundling.targets import Target, require_precisions
from ampnet_opt.convert.build import Options, Recipe, prepared, recipe_of, require_consistent
from ampnet_opt.convert.source import Source
from ampnet_opt.core.files import PathLike, require_new, reserved
from ampnet_opt.core.onnx_session import graph_logits
from ampnet_opt.core.progress import Steps
from ampnet_opt.faces.face import Face, load_batches
from ampnet_opt.network.checkpoint import Checkpoint
from ampnet_opt.runtime.backend import TYPED_FORMS
from ampnet_opt.runtime.build import TABLE
from ampnet_opt.runtime.bundle import GOLDEN, BundlePart
from ampnet_opt.runtime.engine import engine_inputs
from ampnet_opt.runtime.golden import require_close

__all__ = ["CarriedFaces", "bundle_checkpoint", "bundle_recipe"]

CARRIED_BATCH = 16


@dataclass(frozen=True)
class CarriedFaces:
    """Labelled faces that a bundle carries, so that a board can choose among its precisions.

    Attributes:
        faces: all labelled.
        drawn: whether they are drawn, and not pictures of people.
    """

    faces: Sequence[Face]
    drawn: bool


def bundle_checkpoint(
    checkpoint: Checkpoint,
    options: Options,
    target: Target,
    output: PathLike,
    step: Steps,
    *,
    carried: CarriedFaces | None = None,
    force: bool = False,
) -> Path:
    """Write a bundle from which `target` builds an engine for each of the precisions: whole, or not at all.

    Args:
        checkpoint: the network.
        options: as of `build`, for the target's backend; how it compiles is chosen on the target.
        target: the machine, of `bundling.targets.TARGETS`.
        output: the file.
        step: of `core.progress.steps`.
        carried: faces to choose by, which go into the bundle.
        force: replace a file that stands there.

    Returns:
        The bundle's path.

    Raises:
        MisuseError: the file exists and `force` is not given, or int8 is asked for without faces.
        AmpnetError: a step fails.
    """
    path = require_new(output, force)
    require_consistent(options)
    require_precisions(target, options.precisions)
    with reserved(path):
        recipe = recipe_of(checkpoint, options, target.forms, step)
        return bundle_recipe(recipe, options.precisions, target, path, step, carried=carried)


def bundle_recipe(
    recipe: Recipe,
    precisions: Sequence[str],
    target: Target,
    path: Path,
    step: Steps,
    *,
    carried: CarriedFaces | None = None,
) -> Path:
    """Write a bundle of what is calibrated already, in place of what stands at `path`; see `bundle_checkpoint`.

    Args:
        recipe: made for the target's forms, and for int8 if that is among the precisions.
        precisions: of the engines that are built from the bundle.
        target: as of `bundle_checkpoint`.
        path: of the bundle, which is returned.
        step: as of `bundle_checkpoint`.
        carried: likewise.
    """
    with new_bundle(path, target) as pack:
        # The user's own faces do not leave the house: the golden ones are drawn.
        (pack.folder / GOLDEN).write_bytes(recipe.proof.drawn().golden.to_bytes())
        if recipe.int8 is not None:
            recipe.int8.table.write(pack.folder / TABLE)
        if carried is not None:
            pack.drawn_faces = carried.drawn
            with step("faces to choose by", len(carried.faces)) as progress:
                _carry(recipe.source, carried, pack.folder / FACES, progress)
        pack.origin, pack.parts = recipe.origin, []
        stored: dict[bytes, str] = {}
        for precision in precisions:
            with step(f"preparing {precision}", 0):
                pack.parts.append(_part(recipe, precision, target, pack.folder, stored))
    return path


def _carry(source: Source, carried: CarriedFaces, path: Path, progress: Callable[[float], None]) -> None:
    """Write the faces with the float network's logits. Drawn ones are made small; pictures of people stay what they are."""
    with TemporaryDirectory(prefix="ampnet-opt-") as folder:
        faces = shrunk(carried.faces, Path(folder)) if carried.drawn else list(carried.faces)

        def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for number, (images, landmarks) in enumerate(load_batches(faces, CARRIED_BATCH)):
                progress(number * CARRIED_BATCH)
                yield engine_inputs(images, landmarks, source.image_input)

        write_carried(path, faces, graph_logits(source.graph, batches()))


def _part(recipe: Recipe, precision: str, target: Target, folder: Path, stored: dict[bytes, str]) -> BundlePart:
    """Write the graphs of a precision, one for each form that the target's versions take.

    stored: digest -> member of the graphs that were written; those of two forms, or of fp32 and fp16, may be the same.
    """
    model = recipe.model(precision)
    error, accuracy = 0.0, []
    if precision == "int8":
        golden, drawn = recipe.proof.golden, recipe.proof.drawn().golden
        logits = graph_logits(model, [(golden.images, golden.landmarks)])
        error, accuracy = drawn.error(logits[: len(drawn.logits)]), recipe.proof.measure(logits, engine=False)
        require_close(accuracy, recipe.origin.trained)
    graphs, kept, record = {}, None, None
    expected: dict[str, list[str]] = {}
    for form in target.forms:
        ready = prepared(recipe, model, precision, form)
        digest = sha256(ready.graph).digest()
        if digest not in stored:
            stored[digest] = f"{precision}-{form}.onnx"
            (folder / stored[digest]).write_bytes(ready.graph)
        graphs[form], record, expected = stored[digest], ready.mixed_precision, ready.expected
        kept = ready.float32_layers if form in TYPED_FORMS else kept
    return BundlePart(
        precision,
        graphs,
        graph_error=error,
        float32_layers=kept,
        mixed_precision=record,
        expected=expected,
        accuracy=accuracy,
    )
