"""Bias correction: cancels the mean error that quantisation adds to each output channel of a layer.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2, with means from
faces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import onnx
from onnx import helper

from ampnet_opt.convert.graph import copy_of, replace_nodes, without_unneeded
from ampnet_opt.convert.placement import Placement
from ampnet_opt.convert.quantize import quantize
from ampnet_opt.core.graph_interface import INPUTS
from ampnet_opt.core.onnx_bytes import serialised
from ampnet_opt.core.onnx_session import onnx_session

IN_INT8 = "_in_int8"  # end of the names of the INT8 copy's nodes and tensors


def bias_corrections(
    graph: onnx.ModelProto,
    placement: Placement,
    scales: Mapping[str, float],
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    progress: Callable[[int], object] = lambda done: None,
) -> dict[str, np.ndarray]:
    """What to add to the bias of every placed layer, float32 [outputs], by the layer's name.

    E[W x + b] - E[Wq Q(x) + b] over faces and positions, where x is what the layer reads in the float network. It thus
    depends on no other layer, and holds for every choice of INT8 layers.

    graph: float; batches: (image, landmarks) as it takes them; progress: called with the number of faces seen.
    """
    session = onnx_session(serialised(_differences(graph, placement, scales)))
    totals = {name: np.zeros(()) for name in placement.layers}
    seen = 0
    for images, landmarks in batches:
        means = session.run(placement.layers, dict(zip(INPUTS, (images, landmarks), strict=True)))
        for name, mean in zip(placement.layers, means, strict=True):
            totals[name] = totals[name] + len(images) * mean.astype(np.float64)
        seen += len(images)
        progress(seen)
    return {name: (total / seen).astype(np.float32) for name, total in totals.items()}


def _differences(graph: onnx.ModelProto, placement: Placement, scales: Mapping[str, float]) -> onnx.ModelProto:
    """The float network beside its INT8 layers, each fed from the float network; an output per layer, named like it."""
    both = copy_of(graph)
    quantized = quantize(graph, placement, scales)
    float_constants = {tensor.name for tensor in graph.graph.initializer}
    both.graph.initializer.extend(t for t in quantized.graph.initializer if t.name not in float_constants)
    constants = {tensor.name for tensor in both.graph.initializer}
    nodes = list(both.graph.node)
    for original in quantized.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        node.name += IN_INT8
        for i, name in enumerate(node.input):
            # A pair reads the float network's tensor; all behind it is the INT8 copy's own.
            from_float = name in constants or name in INPUTS or (node.op_type == "QuantizeLinear" and i == 0)
            node.input[i] = name if from_float or not name else name + IN_INT8
        for i, name in enumerate(node.output):
            node.output[i] = name + IN_INT8
        nodes.append(node)
    for node in graph.graph.node:
        if node.name in placement.layers:
            difference = f"{node.output[0]}_difference"
            axes = [0, 2, 3] if node.op_type == "Conv" else [0]
            nodes.append(helper.make_node("Sub", [node.output[0], node.output[0] + IN_INT8], [difference]))
            nodes.append(helper.make_node("ReduceMean", [difference], [node.name], axes=axes, keepdims=0))
    del both.graph.output[:]
    both.graph.output.extend(onnx.ValueInfoProto(name=name) for name in placement.layers)
    replace_nodes(both.graph, without_unneeded(nodes, placement.layers))
    return both
