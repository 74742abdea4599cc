"""An INT8 network whose worst layers stay in floating point, chosen on one set of faces and proved on another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime

from ampnet_opt.convert.build import MixedPrecision, Options, origin_of
from ampnet_opt.convert.forms import in_form
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

    ranking: of an analysis made before; without one it is made here, on the labelled calibration faces. faces_from: where
    the faces come from, for the record (`runtime.sidecar.FACES_FROM`).
    """

    budget: Budget
    held_out: Sequence[Face]
    ranking: Sensitivity | None = None
    faces_from: Mapping[str, Any] = field(default_factory=dict)

    def choose(self, checkpoint: Checkpoint, source: Source, int8: Int8, options: Options, step: Steps) -> MixedPrecision:
        """Raises as `choose_layers`."""
        ranking = self.ranking or rank(checkpoint, source, int8, options.faces, step)
        labels = np.array(label_indices(checkpoint.classes, [face.label for face in self.held_out]))
        with step("choosing layers", 0) as progress:
            judge = LayerJudge(
                source.graph,
                int8,
                find_backend(options.backend),
                origin_of(checkpoint, source),
                batches=source.batches(self.held_out, BATCH),
                labels=labels,
            )
            chosen = choose_layers(judge, ranking, self.budget, progress=progress)
        record = {**chosen.record, "held_out_fingerprint": fingerprint(self.held_out), **self.faces_from}
        return replace(chosen, record=record)


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


class LayerJudge:
    """Says what an INT8 network with some layers in floating point does on held-out faces: a `search.Judge`.

    For a backend on a CPU, by engines; else by ONNX Runtime, since the GPU may not be here, and each of its engines would
    take minutes.

    Attributes:
        int8: of the network.
        labels: int64 [N] of the faces.
        top1: the float network's, a share.
        judged_in: what computes the answers, for the record.
        judged: how many choices of layers were measured.
    """

    def __init__(
        self,
        graph: onnx.ModelProto,
        int8: Int8,
        backend: Backend,
        origin: Origin,
        *,
        batches: Batches,
        labels: np.ndarray,
    ) -> None:
        """
        Args:
            graph: in floating point.
            int8: what makes it INT8.
            backend: that the layers are chosen for.
            origin: of the graph, for the engines.
            batches: images and landmarks of the faces, as the graph takes them.
            labels: int64 [N].
        """
        by_engine = backend.device == "cpu"
        self.judged_in = f"an engine of {backend.name}" if by_engine else f"ONNX Runtime {onnxruntime.__version__}"
        self._answers: Answers = engine_answers(backend, origin) if by_engine else graph_logits
        self.int8, self.labels = int8, labels
        self._graph, self._batches = graph, batches
        self._found: dict[frozenset[str], Effect] = {}

    @cached_property
    def _reference(self) -> np.ndarray:
        """Logits of the float network, computed once a ranking has been found to fit."""
        return graph_logits(self._graph, self._batches)

    @property
    def top1(self) -> float:
        return float((self._reference.argmax(1) == self.labels).mean())

    @property
    def judged(self) -> int:
        return len(self._found)

    def __call__(self, kept: Collection[str]) -> Effect:
        """With the layers `kept` in floating point. Each choice is measured once, whatever asks for it."""
        key = frozenset(kept)
        if key not in self._found:
            logits = self._answers(self.int8.quantize(self._graph, place(self._graph, key)), self._batches)
            self._found[key] = effect(logits, self._reference, self.labels)
        return self._found[key]


def choose_layers(
    judge: LayerJudge,
    ranking: Sensitivity,
    budget: Limit,
    *,
    trimmed: int | None = None,
    progress: Callable[[int], None] = lambda judged: None,
) -> MixedPrecision:
    """The fewest layers that have to stay in floating point for the INT8 network to hold `budget`.

    Args:
        judge: on held-out faces. One may serve several rankings.
        ranking: of the layers, of the judge's network; their order is that in which they go back to floating point.
        budget: what has to hold.
        trimmed: as of `search`.
        progress: called with the number of choices that the judge has measured.

    Raises:
        MisuseError: the ranking is of another graph or calibration.
        NoChoice: the budget cannot be held.
    """
    table = judge.int8.table
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

    def measure(kept: Collection[str]) -> Effect:
        found = judge(kept)
        progress(judge.judged)
        return found

    choice = search(ranking.rows, measure, judge.top1, budget, trimmed)
    record = {
        **budget.record(),
        "held_out_faces": len(judge.labels),
        "judged_in": judge.judged_in,
        "float_top1": judge.top1,
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
