"""What the most sensitive layers read, beside the ranges that an INT8 engine was built with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ampnet_opt.benchmarks.page.data import Activation
from ampnet_opt.calibration.histogram import collect
from ampnet_opt.calibration.table import LARGEST, read_table
from ampnet_opt.convert.source import Source
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.faces.face import Face
from ampnet_opt.runtime.build import TABLE
from ampnet_opt.sensitivity.analysis import Sensitivity

MOST_TENSORS = 6


def worst_activations(source: Source, engine: Path, sensitivity: Sensitivity, faces: Sequence[Face]) -> list[Activation]:
    """Histograms of the tensors of the most sensitive layers, at most six, on all `faces`.

    source: of the checkpoint. engine: one in INT8, whose calibration table has the ranges. Raises MisuseError when
    the table or the graph lacks a tensor.
    """
    layers: dict[str, str] = {}  # tensor -> the most sensitive layer that reads it
    for row in sensitivity.rows:
        for tensor in row.tensors:
            layers.setdefault(tensor, row.name)
    chosen = list(layers)[:MOST_TENSORS]
    scales = read_table(engine / TABLE).scales
    known = {name for node in source.graph.graph.node for name in (*node.input, *node.output)} & set(scales)
    missing = [tensor for tensor in chosen if tensor not in known]
    if missing:
        raise MisuseError(
            f"engine {engine} has no INT8 range for {missing[0]}, which the sensitivity names; build the engine and measure "
            "the sensitivity with the same version and --input"
        )
    histograms = collect(source.graph, chosen, source.batches(faces, 1))
    name = engine.resolve().name
    return [
        Activation(layers[tensor], tensor, name, len(faces), histograms[tensor], scales[tensor] * LARGEST)
        for tensor in chosen
    ]
