"""What a graph has to compute and to move at least: multiply-accumulates, weights and activations, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import onnx

from ampnet_opt.convert.graph import attribute, copy_of
from ampnet_opt.core.errors import AmpnetError

WEIGHTED = {"Conv", "Gemm", "MatMul"}


@dataclass(frozen=True)
class Work:
    """One convolution or matrix product, for a whole batch.

    macs: multiply-accumulates. weights: elements of constant operands, biases included. activations: elements read and
    written that depend on the input; what follows the layer (ReLU, addition, gates) is taken to be fused into it.
    """

    name: str
    macs: int
    weights: int
    activations: int


def count_work(model: onnx.ModelProto, batch: int) -> list[Work]:
    """Every Conv, Gemm and MatMul of a graph whose first dimensions are the batch. Padding counts as computed, as usual.

    Convolution: output elements x input channels of a group x kernel elements. Matrix product: output elements x inner
    dimension. Raises AmpnetError when the shapes of one cannot be told from the graph.
    """
    fixed = copy_of(model)
    for tensor in fixed.graph.input:
        tensor.type.tensor_type.shape.dim[0].dim_value = batch
    for tensor in fixed.graph.output:
        tensor.type.tensor_type.ClearField("shape")  # inferred anew
    del fixed.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    shapes = {
        tensor.name: [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.type.tensor_type.shape.dim]
        for tensor in (*graph.value_info, *graph.input, *graph.output)
    }
    constants = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    return [_work(node, shapes, constants) for node in graph.node if node.op_type in WEIGHTED]


def _work(node: onnx.NodeProto, shapes: dict[str, list[int | None]], constants: dict[str, list[int]]) -> Work:
    def shape(name: str) -> list[int]:
        found = constants.get(name) or shapes.get(name, [None])
        if None in found:
            raise AmpnetError(f"the shape of {name} cannot be told from the graph, so {node.name} cannot be counted")
        return found  # type: ignore[return-value]

    inputs = [name for name in node.input if name]
    output = shape(node.output[0])
    if node.op_type == "Conv":
        inner = prod(constants[inputs[1]][1:]) if inputs[1] in constants else prod(shape(inputs[1])[1:])
    else:
        first = shape(inputs[0])
        inner = first[0] if attribute(node, "transA") else first[-1]
    return Work(
        node.name or node.output[0],
        prod(output) * inner,
        sum(prod(constants[name]) for name in inputs if name in constants),
        prod(output) + sum(prod(shape(name)) for name in inputs if name not in constants),
    )
