"""What the most sensitive layers read, beside the ranges that an INT8 engine was built with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from ampnet_opt.benchmarks.page.data import Activation
from ampnet_opt.calibration.collect import collect
from ampnet_opt.calibration.table import LARGEST, read_table
from ampnet_opt.convert.build import TABLE
from ampnet_opt.errors import MisuseError
from ampnet_opt.faces import Face, load_batches
from ampnet_opt.runtime.engine import prepare
from ampnet_opt.sensitivity.analysis import Sensitivity

MOST_TENSORS = 6


def worst_activations(
    graph: onnx.ModelProto, engine: Path, sensitivity: Sensitivity, faces: Sequence[Face]
) -> list[Activation]:
    """Histograms of the tensors of the most sensitive layers, at most six, on all `faces`.

    graph: float, as `export` makes it. engine: one in INT8, whose calibration table has the ranges. Raises MisuseError when
    the table or the graph lacks a tensor.
    """
    layers: dict[str, str] = {}  # tensor -> the most sensitive layer that reads it
    for row in sensitivity.rows:
        for tensor in row.tensors:
            layers.setdefault(tensor, row.name)
    chosen = list(layers)[:MOST_TENSORS]
    scales = read_table(engine / TABLE).scales
    known = {name for node in graph.graph.node for name in (*node.input, *node.output)} & set(scales)
    missing = [tensor for tensor in chosen if tensor not in known]
    if missing:
        raise MisuseError(
            f"engine {engine} has no INT8 range for {missing[0]}, which the sensitivity names; build the engine and measure "
            "the sensitivity with the same version and --input"
        )
    image_input = next(entry.value for entry in graph.metadata_props if entry.key == "image_input")
    batches = (prepare(images, points, image_input) for images, points in load_batches(faces, 1))
    histograms = collect(graph, chosen, batches)
    name = engine.resolve().name
    return [
        Activation(layers[tensor], tensor, name, len(faces), histograms[tensor], scales[tensor] * LARGEST)
        for tensor in chosen
    ]
