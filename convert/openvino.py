"""The graph as the cpu backend computes it fastest, and engines from it.

The graph that all backends share is rewritten, step by step, into one of equal results. What each step
brings is in docs/results/performance.md.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from ampnet_opt.convert.cpu_rewrites import gather_crops, join_gates
from ampnet_opt.convert.graph import (
    GraphIndex,
    NewNodes,
    add_constant,
    attribute,
    copy_of,
    exchange_nodes,
    in_order,
    replace_nodes,
    static_shapes,
)
from ampnet_opt.convert.quantize import LEVELS
from ampnet_opt.core.graph_interface import INPUTS
from ampnet_opt.core.onnx_bytes import serialised
from ampnet_opt.runtime.openvino.compile import build_ir

POOLS = {"GlobalAveragePool": "AveragePool", "GlobalMaxPool": "MaxPool", "ReduceMean": "AveragePool"}


def cpu_graph(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """A copy of a float graph, or for int8 of a Q/DQ graph, for `build_ir`; its results are equal but for float rounding."""
    changed = to_unsigned(model) if precision == "int8" else copy_of(model)
    quantise_first(changed.graph)
    gather_crops(changed.graph)
    join_gates(changed.graph, changed.opset_import)
    give_kernels(changed.graph, changed.opset_import)
    del changed.graph.value_info[:]  # of the graph as it came
    onnx.checker.check_model(serialised(changed), full_check=True)
    return changed


def write_ir(model: onnx.ModelProto, precision: str, directory: Path) -> tuple[list[str], str]:
    """`build_ir` of a float graph, or for int8 of a Q/DQ graph."""
    return build_ir(serialised(cpu_graph(model, precision)), precision, directory)


def quantise_first(graph: onnx.GraphProto) -> None:
    """Move transpositions behind the Q/DQ pair that follows: bytes that lie as the next layer wants them need not move."""
    index = GraphIndex(graph)
    for node in graph.node:
        if node.op_type != "Transpose":
            continue
        pair = ("QuantizeLinear", "DequantizeLinear")
        behind = index.followers(node.output[0], "Clip", *pair) or index.followers(node.output[0], *pair)
        if not behind:
            continue
        first, last = behind[0], behind[-1]
        for reader, i in index.consumers[last.output[0]]:
            reader.input[i] = node.output[0]
        first.input[0], node.input[0] = node.input[0], last.output[0]
    replace_nodes(graph, in_order(graph.node))


def give_kernels(graph: onnx.GraphProto, opsets: list[onnx.OperatorSetIdProto]) -> None:
    """Pool whole feature maps of known size by a kernel of that size: OpenVINO's kernels for that are its faster ones."""
    shapes, new, replaced = static_shapes(graph, opsets), NewNodes(graph, "pool"), set[str]()
    for node in graph.node:
        whole = node.op_type.startswith("Global") or attribute(node, "axes") == [2, 3]
        sides = shapes.get(node.input[0], ())[2:] if whole and node.op_type in POOLS else ()
        if len(sides) != 2 or None in sides:
            continue
        keeps = attribute(node, "keepdims", 1) == 1
        pooled = node.output[0] if keeps else f"{node.output[0]}_map"
        new.add_named(POOLS[node.op_type], [node.input[0]], [pooled], kernel_shape=sides)
        if not keeps:
            new.add_named("Flatten", [pooled], [node.output[0]])
        replaced.add(node.name)
    exchange_nodes(graph, replaced, new.nodes)


NON_NEGATIVE = {"Relu", "Sigmoid", "HardSigmoid", "Abs"}
# Operations whose outputs are non-negative when all that they read is.
KEEPS_SIGN = {"Cast", "Concat", "DequantizeLinear", "MatMul", "MaxPool", "Mul", "QuantizeLinear", "ReduceMean"}
KEEPS_SIGN |= (MOVES := {"Gather", "Reshape", "Slice", "Split", "Transpose", "Unsqueeze"})


def to_unsigned(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a Q/DQ graph whose non-negative activations are UINT8; its results are equal but for float rounding."""
    changed = copy_of(model)
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
    onnx.checker.check_model(serialised(changed), full_check=True)
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
