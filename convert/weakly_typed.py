"""The graph as the parser of a TensorRT version reads it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from ampnet_opt.convert.graph import GraphIndex, add_constant, attribute, copy_of, replace_nodes


def float_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, with every INT8 weight before a DequantizeLinear stored in float32, before a Q and the DQ; equal bit for bit.

    The parsers of TensorRT 8 read INT8 zero points, but no INT8 weights ("invalid weights type of Int8"). The builder
    folds the pair of a constant. Each float is the INT8 value times its scale, and the scales are not denormal, so that
    quantising gives the same INT8 value back.
    """
    changed = copy_of(model)
    graph = changed.graph
    index = GraphIndex(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        stored = index.constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if stored is not None and stored.data_type == TensorProto.INT8:
            if len(node.input) < 3:  # without a zero point, QuantizeLinear would make uint8
                zeros = np.zeros_like(index.array(node.input[1]), np.int8)
                node.input.append(add_constant(graph, f"{node.output[0]}_zero_point", zeros))
            quantise = onnx.NodeProto()
            quantise.CopyFrom(node)  # the same scale, zero point and axis
            quantise.op_type, quantise.name = "QuantizeLinear", f"{node.name}_Q"
            quantise.input[0] = add_constant(graph, f"{node.output[0]}_float", _dequantised(index, node))
            quantise.output[0] = node.input[0] = f"{node.output[0]}_quantized"
            nodes.append(quantise)
        nodes.append(node)
    replace_nodes(graph, nodes)
    return changed


def _dequantised(index: GraphIndex, node: onnx.NodeProto) -> np.ndarray:
    """What a DequantizeLinear of a constant gives; all zero points of our graphs are 0."""
    values, scale = index.array(node.input[0]), index.array(node.input[1])
    if scale.ndim:
        axis = attribute(node, "axis", 1) % values.ndim
        scale = scale.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    return values.astype(np.float32) * scale
