"""The same numbers as UINT8: what processors multiply fastest where an activation is never negative.

x86 multiplies unsigned by signed bytes; signed activations cost an extra correction. A symmetric INT8 tensor without
negative values uses 0..127 only, so storing it as UINT8, clipped at 127 * scale first, changes nothing but the type.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from ampnet_opt.convert.graph import GraphIndex, add_constant, replace_nodes
from ampnet_opt.convert.quantize import LEVELS
from ampnet_opt.core.graph_interface import INPUTS

NON_NEGATIVE = {"Relu", "Sigmoid", "HardSigmoid", "Abs"}
# Operations whose outputs are non-negative when all that they read is.
KEEPS_SIGN = {"Cast", "Concat", "DequantizeLinear", "MatMul", "MaxPool", "Mul", "QuantizeLinear", "ReduceMean"}
KEEPS_SIGN |= (MOVES := {"Gather", "Reshape", "Slice", "Split", "Transpose", "Unsqueeze"})


def to_unsigned(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a Q/DQ graph whose non-negative activations are UINT8; its results are equal but for float rounding."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    index = GraphIndex(graph)
    add_constant(graph, "unsigned_zero_point", np.zeros((), np.uint8))
    # Found before anything is changed: the index knows the graph as it came.
    pairs = [node for node in graph.node if node.op_type == "QuantizeLinear" and _is_non_negative(node.input[0], index)]
    on_grid = {node.name for node in pairs if _is_on_grid(node.input[0], index.array(node.input[1]), index)}
    unsigned = {node.name for node in pairs}
    nodes = []
    for node in graph.node:
        if node.name in unsigned:
            if node.name not in on_grid:
                scale = index.array(node.input[1])
                limit = add_constant(graph, f"{node.input[0]}_limit", LEVELS * scale)
                clipped = f"{node.input[0]}_clipped"
                nodes.append(helper.make_node("Clip", [node.input[0], "", limit], [clipped], name=clipped))
                node.input[0] = clipped
            node.input[2] = "unsigned_zero_point"
            for reader in index.readers(node.output[0]):
                reader.input[2] = "unsigned_zero_point"
        nodes.append(node)
    replace_nodes(graph, nodes)
    # The types of the stored tensors changed: what shape inference noted of them is stale.
    del graph.value_info[:]
    onnx.checker.check_model(changed, full_check=True)
    return changed


def _is_non_negative(tensor: str, index: GraphIndex) -> bool:
    """Whether `tensor` cannot hold a negative value, as far as the operations that make it show."""
    node = index.producers.get(tensor)
    if node is None:
        return tensor == INPUTS[0]
    if node.op_type in NON_NEGATIVE:
        return True
    if node.op_type == "Clip" and node.input[1]:
        return bool(index.array(node.input[1]) >= 0)
    data = node.input[:1] if node.op_type in MOVES else [name for name in node.input if name not in index.constants]
    return node.op_type in KEEPS_SIGN and all(_is_non_negative(name, index) for name in data)


def _is_on_grid(tensor: str, scale: np.ndarray, index: GraphIndex) -> bool:
    """Whether `tensor` only joins, moves or selects values that were quantised with `scale` already."""
    node = index.producers.get(tensor)
    if node is None:
        return False
    if node.op_type == "DequantizeLinear":
        return bool(index.array(node.input[1]) == scale)
    if node.op_type == "MatMul":  # a crop: one side is the map, the other a selector of zeros and ones
        return any(_is_on_grid(name, scale, index) for name in node.input)
    return node.op_type in MOVES | {"Concat", "MaxPool"} and all(
        _is_on_grid(name, scale, index) for name in node.input[: _data(node)]
    )


def _data(node: onnx.NodeProto) -> int:
    return len(node.input) if node.op_type == "Concat" else 1
