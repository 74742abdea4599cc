"""Candidates of a checkpoint: exported and calibrated once, built in every backend and precision of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ampnet_opt.benchmarks.bench_layers import layer_times
from ampnet_opt.benchmarks.compare import REFERENCE
from ampnet_opt.benchmarks.workers import Subject
from ampnet_opt.calibration.ranges import DEFAULT, METHODS
from ampnet_opt.convert.build import MixedPrecision, Recipe, float_recipe, origin_of, request_of
from ampnet_opt.convert.forms import writes_half
from ampnet_opt.convert.source import Int8, Source, calibrate
from ampnet_opt.core.graph_interface import ImageInput
from ampnet_opt.core.progress import Steps
from ampnet_opt.faces.face import Face, fingerprint, spread
from ampnet_opt.network.checkpoint import Checkpoint
from ampnet_opt.optimize.candidates import PRECISIONS, Candidate, Faces
from ampnet_opt.runtime.backend import find_backend
from ampnet_opt.runtime.build import EngineRequest, engine_name
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.layers import node_of
from ampnet_opt.sensitivity.analysis import Sensitivity, read_sensitivity
from ampnet_opt.sensitivity.mixed_precision import BATCH, LayerJudge, choose_layers, rank
from ampnet_opt.sensitivity.search import Limit, NoChoice, by_gain

RANKING_FACES = 64  # the order of the layers settles with few
TRIMMED = 8  # layers that it is tried to take back into INT8
RANKING = "ranking.json"


@dataclass(frozen=True)
class NetworkFile:
    """A checkpoint as it was named. classes, patch_radius: as given for one that carries none."""

    path: Path
    classes: tuple[str, ...] | None = None
    patch_radius: int | None = None


class CheckpointMaker:
    """As `candidates.Maker`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        file: NetworkFile,
        backends: Sequence[tuple[str, tuple[str, ...]]],
        *,
        image_input: ImageInput,
        calibrating: Sequence[Face],
        choosing: Faces,
        compiling: CompileOptions,
        threads: int,
    ) -> None:
        """
        Args:
            checkpoint: what `file` holds.
            file: where it lies.
            backends: names and precisions, of `candidates.runnable`.
            image_input: dtype of the images that the engines take.
            calibrating: labelled faces for INT8.
            choosing: labelled faces that layers are chosen by.
            compiling: how the backends compile.
            threads: for PyTorch, and for what is measured on a CPU.
        """
        self.classes, self.trained = tuple(checkpoint.classes), checkpoint.trained
        self.reference: Subject | None = Subject(REFERENCE, "torch", file.path, threads, file.classes, file.patch_radius)
        self.identity = {
            "checkpoint": checkpoint.sha256,
            "classes": f"{list(checkpoint.classes)}{', assumed' if checkpoint.assumed else ''}",
            "patch_radius": str(checkpoint.model.config.patch_radius),
            "image_input": image_input,
            "calibration": fingerprint(calibrating),
            "batch": str(compiling.batch),
            **{f"{name} version": find_backend(name).availability().version for name, _ in backends},
        }
        self._checkpoint, self._backends, self._image_input = checkpoint, backends, image_input
        self._calibrating, self._choosing, self._compiling, self._threads = calibrating, choosing, compiling, threads
        self._recipe: Recipe | None = None  # of the float engines
        self._int8s: dict[str, Int8] = {}
        self._mixed: dict[Candidate, MixedPrecision] = {}

    def candidates(self) -> list[Candidate]:
        """The float engines first, which need no calibration."""
        found = [Candidate(name, p, DEFAULT if p == "int8" else "") for name, able in self._backends for p in able]
        return sorted(found, key=lambda candidate: PRECISIONS.index(candidate.precision))

    def variants(self, candidate: Candidate) -> list[Candidate]:
        return [replace(candidate, method=method) for method in METHODS if method != candidate.method]

    def request(self, candidate: Candidate, step: Steps) -> EngineRequest:
        recipe = self._float_recipe(step)
        if candidate.precision == "int8":
            int8 = self._int8(candidate.method, step)
            recipe = replace(recipe, int8=int8, mixed_precision=self._mixed.get(candidate))
        return request_of(recipe, candidate.precision, find_backend(candidate.backend), self._compiling)

    def mix(self, candidate: Candidate, engines: Path, limit: Limit, step: Steps) -> list[Candidate]:
        """As `candidates.Maker`, for two orders in which layers go back to floating point.

        Most noise for least time first keeps more layers in floating point than the noisiest first. Each then stands between
        two conversions, which its own time does not tell of. Which choice is faster is measured.
        """
        source, int8 = self._float_recipe(step).source, self._int8(candidate.method, step)
        ranking = self._ranking(source, int8, engines / RANKING, step)
        slow, layers = engines / engine_name(candidate.backend, "fp32"), source.placement.layers
        saved = saved_seconds(slow, engines / candidate.name, layers, self._threads) if slow.is_dir() else {}
        found: list[Candidate] = []
        with step("choosing layers", 0) as progress:
            judge = LayerJudge(
                source.graph,
                int8,
                find_backend(candidate.backend),
                origin_of(self._checkpoint, source),
                batches=source.batches(self._choosing.faces, BATCH),
                labels=np.asarray(self._choosing.labels),
            )
            for rows in (by_gain(ranking.rows, saved), ranking.rows) if saved else (ranking.rows,):
                try:
                    chosen = choose_layers(judge, replace(ranking, rows=rows), limit, trimmed=TRIMMED, progress=progress)
                except NoChoice:
                    continue
                mixed = replace(candidate, float_layers=len(chosen.layers))
                if mixed not in found:  # of as many layers, those that cost less time came first
                    self._mixed[mixed] = chosen
                    found.append(mixed)
        return found

    def _float_recipe(self, step: Steps) -> Recipe:
        if self._recipe is None:
            forms = [find_backend(name).graph_form(self._compiling.builder) for name, _ in self._backends]
            half = writes_half(forms, [precision for _, able in self._backends for precision in able])
            self._recipe = float_recipe(self._checkpoint, self._image_input, self._calibrating, half=half, step=step)
        return self._recipe

    def _int8(self, method: str, step: Steps) -> Int8:
        if method not in self._int8s:
            with step(f"calibrating ({method})", len(self._calibrating)) as progress:
                recipe = self._float_recipe(step)
                int8 = calibrate(recipe.source, self._calibrating, method, progress)
                self._int8s[method] = int8.with_ranges(recipe.ranges) if recipe.ranges else int8
        return self._int8s[method]

    def _ranking(self, source: Source, int8: Int8, file: Path, step: Steps) -> Sensitivity:
        """Of a few faces, but said to be of all that calibrated, whose scales it is of."""
        if file.is_file():
            return read_sensitivity(file)
        found = rank(self._checkpoint, source, int8, spread(self._calibrating, RANKING_FACES), step)
        found.write(file)
        return found


def saved_seconds(slow: Path, fast: Path, layers: Sequence[str], threads: int) -> dict[str, float]:
    """Layer -> seconds that it takes less in one engine directory than in another, by the backend's own profiler."""
    before, after = (_seconds(engine, layers, threads) for engine in (slow, fast))
    return {layer: before[layer] - after[layer] for layer in layers if layer in before and layer in after}


def _seconds(engine: Path, layers: Sequence[str], threads: int) -> dict[str, float]:
    """Seconds of each of the graph's nodes; a backend may name a part of a node by a longer name."""
    found: dict[str, float] = {}
    nodes = {layer: layer for layer in layers}
    for timed in layer_times(engine, 1, threads):
        node = node_of(timed.name, nodes)
        if node is not None:
            found[node] = found.get(node, 0.0) + timed.seconds
    return found
