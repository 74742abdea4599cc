"""What a graph asks of a backend: the layers that it wants in the engine's precision."""

from __future__ import annotations

import onnx

from ampnet_opt.convert.graph import GraphIndex

PRODUCTS = {"Conv", "Gemm", "MatMul"}


def expected_layers(model: onnx.ModelProto, precision: str) -> dict[str, list[str]]:
    """Convolutions and matrix products with weights, as of `runtime.layers.Expected`.

    model: the float graph, or for int8 the Q/DQ graph: there those with quantised weights; the others are in floating point
    by design. A multiplication by a constant behind one goes into its weights, and OpenVINO keeps that name alone.
    """
    index = GraphIndex(model.graph)
    return {
        node.name: [reader.name for reader in index.readers(node.output[0]) if _scales(reader, index)]
        for node in model.graph.node
        if node.op_type in PRODUCTS and _has_weights(node, index, precision == "int8")
    }


def _has_weights(node: onnx.NodeProto, index: GraphIndex, quantised: bool) -> bool:
    made = index.maker(node.input[1], "DequantizeLinear")
    return _is_constant(made.input[0], index) if made is not None else not quantised and _is_constant(node.input[1], index)


def _scales(node: onnx.NodeProto, index: GraphIndex) -> bool:
    return node.op_type == "Mul" and any(_is_constant(name, index) for name in node.input)


def _is_constant(tensor: str, index: GraphIndex) -> bool:
    return tensor in index.constants or index.maker(tensor, "Constant") is not None
