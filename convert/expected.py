"""What a graph asks of a backend: the layers that it wants in the engine's precision."""

from __future__ import annotations

import onnx

from ampnet_opt.convert.graph import GraphIndex


def expected_layers(model: onnx.ModelProto, precision: str) -> dict[str, list[str]]:
    """Convolutions and matrix products with weights, as of `runtime.layers.Expected`.

    model: the float graph, or for int8 the Q/DQ graph: there those with quantised weights; the others are in floating point
    by design. A multiplication by a constant behind one goes into its weights, and OpenVINO keeps that name alone.
    """
    index = GraphIndex(model.graph)
    return {
        node.name: [reader.name for reader in index.readers(node.output[0]) if _scales(reader, index)]
        for node in model.graph.node
        if node.op_type in {"Conv", "Gemm"} and (precision != "int8" or _maker(node.input[1], index) == "DequantizeLinear")
    }


def _scales(node: onnx.NodeProto, index: GraphIndex) -> bool:
    constants = [name for name in node.input if name in index.constants or _maker(name, index) == "Constant"]
    return node.op_type == "Mul" and bool(constants)


def _maker(tensor: str, index: GraphIndex) -> str:
    maker = index.producers.get(tensor)
    return maker.op_type if maker is not None else ""
