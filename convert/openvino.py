"""The graph as the cpu backend computes it fastest, and engines from it.

The graph that all backends share is rewritten, step by step, into one of equal results. docs/performance.md has what each
step brings.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from ampnet_opt.convert.branches import join_gates
from ampnet_opt.convert.graph import GraphIndex, NewNodes, attribute, exchange_nodes, in_order, replace_nodes, static_shapes
from ampnet_opt.convert.patch_copies import gather_crops
from ampnet_opt.convert.uint8 import to_unsigned
from ampnet_opt.runtime.openvino.compile import build_ir

POOLS = {"GlobalAveragePool": "AveragePool", "GlobalMaxPool": "MaxPool", "ReduceMean": "AveragePool"}


def cpu_graph(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """A copy of a float graph, or for int8 of a Q/DQ graph, for `build_ir`; its results are equal but for float rounding."""
    if precision == "int8":
        changed = to_unsigned(model)
    else:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
    quantise_first(changed.graph)
    gather_crops(changed.graph)
    join_gates(changed.graph, changed.opset_import)
    give_kernels(changed.graph, changed.opset_import)
    del changed.graph.value_info[:]  # of the graph as it came
    onnx.checker.check_model(changed, full_check=True)
    return changed


def build(model: onnx.ModelProto, precision: str, directory: Path) -> tuple[list[str], str]:
    """`build_ir` of a float graph, or for int8 of a Q/DQ graph."""
    return build_ir(cpu_graph(model, precision).SerializeToString(), precision, directory)


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
