"""An INT8 network whose worst layers stay in floating point, chosen on one set of faces and proved on another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime

from ampnet_opt.convert.build import MixedPrecision, Options, in_form, origin_of
from ampnet_opt.convert.placement import place
from ampnet_opt.convert.source import Int8, Source
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.labels import label_indices
from ampnet_opt.core.onnx_session import graph_logits
from ampnet_opt.core.progress import Steps
from ampnet_opt.faces.face import Face, fingerprint
from ampnet_opt.network.checkpoint import Checkpoint
from ampnet_opt.runtime.backend import Backend, LoadOptions, find_backend
from ampnet_opt.runtime.build import EngineRequest, Origin, compile_engine
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.sidecar import BatchRange
from ampnet_opt.sensitivity.analysis import Batches, Sensitivity, analyse
from ampnet_opt.sensitivity.effect import Effect, effect
from ampnet_opt.sensitivity.search import Budget, Limit, search

BATCH = 16
# Logits float32 [N, classes] of a Q/DQ graph on batches of images and landmarks as it takes them.
Answers = Callable[[onnx.ModelProto, Batches], np.ndarray]


@dataclass(frozen=True)
class LayerSearch:
    """The fewest layers of int8 in floating point that hold `budget` on the labelled faces `held_out`: a `LayerChoice`.

    ranking: of an analysis made before; without one it is made here, on the labelled calibration faces.
    """

    budget: Budget
    held_out: Sequence[Face]
    ranking: Sensitivity | None = None

    def choose(self, checkpoint: Checkpoint, source: Source, int8: Int8, options: Options, step: Steps) -> MixedPrecision:
        """Raises as `choose_layers`."""
        ranking = self.ranking or rank(checkpoint, source, int8, options.faces, step)
        labels = np.array(label_indices(checkpoint.classes, [face.label for face in self.held_out]))
        backend = find_backend(options.backend)
        by_engine = backend.device == "cpu"  # others run on a GPU, which may not be here
        answers = engine_answers(backend, origin_of(checkpoint, source)) if by_engine else graph_logits
        with step("choosing layers", 0) as progress:
            batches = source.batches(self.held_out, BATCH)
            chosen = choose_layers(
                source.graph,
                int8,
                ranking,
                self.budget,
                answers=answers,
                judged_in=f"an engine of {backend.name}" if by_engine else f"ONNX Runtime {onnxruntime.__version__}",
                batches=batches,
                labels=labels,
                progress=progress,
            )
        return replace(chosen, record={**chosen.record, "held_out_fingerprint": fingerprint(self.held_out)})


def rank(checkpoint: Checkpoint, source: Source, int8: Int8, faces: Sequence[Face], step: Steps) -> Sensitivity:
    """`analyse` of every layer alone on labelled faces."""
    labels = np.array(label_indices(checkpoint.classes, [face.label for face in faces]))
    with step("measuring each layer", len(source.placement.layers)) as progress, TemporaryDirectory() as folder:
        return analyse(
            source.graph,
            int8,
            checkpoint_sha256=checkpoint.sha256,
            batches=source.batches(faces, BATCH),
            labels=labels,
            kind="layer",
            mode="only",
            state=Path(folder) / "state.json",
            progress=lambda done, total: progress(done),
        )


def choose_layers(
    graph: onnx.ModelProto,
    int8: Int8,
    ranking: Sensitivity,
    budget: Limit,
    *,
    answers: Answers,
    judged_in: str,
    batches: Batches,
    labels: np.ndarray,
    trimmed: int | None = None,
    progress: Callable[[int], None] = lambda judged: None,
) -> MixedPrecision:
    """The fewest layers of a float graph that have to stay in floating point for the INT8 network to hold `budget`.

    answers: give the logits of a Q/DQ graph. judged_in: what computes them, for the record. batches: (image, landmarks) of
    held-out faces as the graph takes them; labels: int64 [N]. trimmed: as of
    `search`. progress: called with the number of networks judged. Raises
    MisuseError when the ranking is of another graph or calibration, AmpnetError when the budget cannot be held.
    """
    table = int8.table
    if (ranking.graph_sha256, ranking.method, ranking.mode) != (table.graph_sha256, table.method, "only"):
        raise MisuseError(
            f"the sensitivity analysis is of another graph, calibration ({ranking.method}) or mode ({ranking.mode}); "
            f"needed is one of this checkpoint, its --input, {table.method} and the mode only: run ampnet-opt sensitivity"
        )
    if ranking.data_fingerprint != table.data_fingerprint:
        raise MisuseError(
            f"the sensitivity analysis is of a calibration on other faces ({ranking.faces}; here {table.faces}): run "
            "ampnet-opt sensitivity with this --data, --split and --faces"
        )
    reference = graph_logits(graph, batches)
    judged = 0

    def judge(kept: Collection[str]) -> Effect:
        nonlocal judged
        model = int8.quantize(graph, place(graph, kept))
        logits = answers(model, batches)
        judged += 1
        progress(judged)
        return effect(logits, reference, labels)

    reference_top1 = float((reference.argmax(1) == labels).mean())
    choice = search(ranking.rows, judge, reference_top1, budget, trimmed)
    record = {
        **budget.record(),
        "held_out_faces": len(labels),
        "judged_in": judged_in,
        "float_top1": reference_top1,
        **choice.measured.record(),
        "float_layers": [{"name": row.name, "alone_in_int8": row.effect.record()} for row in choice.kept],
    }
    return MixedPrecision(tuple(layer for row in choice.kept for layer in row.layers), record)


def engine_answers(backend: Backend, origin: Origin) -> Answers:
    """The answers of an engine of `backend`, compiled for each graph by the steps of `build` and forgotten afterwards."""

    def answers(model: onnx.ModelProto, batches: Batches) -> np.ndarray:
        size = max(len(images) for images, _ in batches)
        options = CompileOptions(BatchRange(1, size, size))
        ready = in_form(model, "int8", backend.graph_form(), {})
        with TemporaryDirectory() as folder:
            sidecar, _ = compile_engine(EngineRequest(backend, options, origin, ready, None), Path(folder))
            executor = backend.open(Path(folder), sidecar, LoadOptions())
            try:
                return np.concatenate([executor.run(images, landmarks) for images, landmarks in batches])
            finally:
                executor.close()

    return answers
