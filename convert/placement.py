"""Where Q/DQ pairs go: one short rule per pattern of AMP-Net, after TensorRT's guidance for explicit quantisation.

A tensor is either quantised for all of its readers, by one Q/DQ pair, or for none; so a placement is a set of tensors,
some of which share a scale. The rules run in the order of `RULES`, each on what the ones before it have placed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import onnx

from ampnet_opt.convert.graph import GraphIndex

# A matrix product with fewer rows or columns than this gains nothing from INT8 (the class heads, the scalar gates).
SMALLEST_PRODUCT = 16
# What may stand between a gate's last product and its sigmoid.
GATE_PATH = {"Relu", "Add", "Gemm", "Conv", "Mul", "ReduceSum", "Squeeze", "Unsqueeze"}
GATES = {"Sigmoid", "HardSigmoid"}
PRODUCTS = {"Conv", "Gemm", "MatMul"}


@dataclass
class Placement:
    """tensors: quantised activations -> the tensor that names their shared scale. layers: Conv and Gemm in INT8."""

    tensors: dict[str, str] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)

    def add(self, tensor: str, scale_of: str | None = None) -> None:
        """Quantise `tensor`, with the scale of `scale_of` (quantised here as well) when given."""
        self.tensors.setdefault(tensor, tensor)
        if scale_of is not None:
            self.tensors.setdefault(scale_of, scale_of)
            old, new = self.tensors[tensor], self.tensors[scale_of]
            for name, group in self.tensors.items():
                if group == old:
                    self.tensors[name] = new

    def groups(self) -> dict[str, list[str]]:
        """Scale name -> the tensors that share it."""
        found: dict[str, list[str]] = {}
        for tensor, group in self.tensors.items():
            found.setdefault(group, []).append(tensor)
        return found


def place(model: onnx.ModelProto, kept: Collection[str] = ()) -> Placement:
    """Run every rule on a float graph whose batch norms are folded and whose constants are initializers.

    kept: names of layers that stay in floating point; what only they would have needed is not placed.
    """
    index, placement = GraphIndex(model.graph), Placement()
    placement.layers = [name for name in quantizable(model.graph, index) if name not in kept]
    for rule in RULES:
        rule(model.graph, index, placement)
    return placement


def quantizable(graph: onnx.GraphProto, index: GraphIndex) -> list[str]:
    """Names of the convolutions and matrix products with constant weights that are no gates and no class heads."""
    products = (node for node in graph.node if node.op_type in {"Conv", "Gemm"})
    return [node.name for node in products if not _is_gate(node, index) and not _is_small(node, index)]


def inputs_of_products(graph: onnx.GraphProto, index: GraphIndex, placement: Placement) -> None:
    """The activations that the layers read; `quantize` gives their weights a pair of their own."""
    for node in graph.node:
        if node.name in placement.layers:
            placement.add(node.input[0])


def pools_commute(graph: onnx.GraphProto, index: GraphIndex, placement: Placement) -> None:
    """A maximum commutes with quantisation: the pair stands before the pool, and the pool runs in INT8."""
    for node in graph.node:
        if node.op_type == "MaxPool" and placement.tensors.pop(node.output[0], None):
            placement.add(node.input[0])


def residual_additions(graph: onnx.GraphProto, index: GraphIndex, placement: Placement) -> None:
    """The shortcut of an addition to a quantised convolution, so that convolution + addition + ReLU is one INT8 kernel.

    Where gates stand between the convolution and the addition no such kernel exists, and nothing is added.
    """
    for node in graph.node:
        if node.op_type != "Add":
            continue
        makers = [index.producers.get(name) for name in node.input]
        if makers[0] is not None and makers[0].name in placement.layers and makers[0].op_type == "Conv":
            placement.add(_through_pool(node.input[1], index))


def concatenations(graph: onnx.GraphProto, index: GraphIndex, placement: Placement) -> None:
    """A concatenation read in INT8 runs in INT8: all its inputs, and its output, share one scale."""
    for node in graph.node:
        if node.op_type == "Concat" and node.output[0] in placement.tensors and len(_spatial_inputs(node, index)) > 1:
            for name in _spatial_inputs(node, index):
                placement.add(name, node.output[0])


def crops(graph: onnx.GraphProto, index: GraphIndex, placement: Placement) -> None:
    """A patch holds values of the map it was cut from and zeros: the same scale makes its pair exact."""
    for tensor in list(placement.tensors):
        source = patch_source(tensor, index)
        if source is not None:
            placement.add(tensor, source)


RULES: list[Callable[[onnx.GraphProto, GraphIndex, Placement], None]] = [
    inputs_of_products,
    pools_commute,
    residual_additions,
    concatenations,
    crops,
]


def _is_gate(node: onnx.NodeProto, index: GraphIndex) -> bool:
    """Whether all that `node` computes ends in a sigmoid."""
    readers = index.readers(node.output[0])
    return bool(readers) and all(
        reader.op_type in GATES or (reader.op_type in GATE_PATH and _is_gate(reader, index)) for reader in readers
    )


def _is_small(node: onnx.NodeProto, index: GraphIndex) -> bool:
    return node.op_type == "Gemm" and min(index.constants[node.input[1]].dims) < SMALLEST_PRODUCT


def _through_pool(tensor: str, index: GraphIndex) -> str:
    pool = index.maker(tensor, "MaxPool")
    return tensor if pool is None else pool.input[0]


def _spatial_inputs(concat: onnx.NodeProto, index: GraphIndex) -> list[str]:
    """Inputs of a concatenation of feature maps, each followed back through a pool; [] for pooled vectors."""
    if any(index.maker(name, "ReduceMean") for name in concat.input):
        return []
    return [_through_pool(name, index) for name in concat.input]


def patch_source(tensor: str, index: GraphIndex) -> str | None:
    """The feature map that a patch was cut from by two products with one-hot selectors, or None."""
    bands = index.maker(tensor, "MatMul", "Split", "MatMul") or index.maker(tensor, "MatMul", "MatMul")
    return None if bands is None else bands.input[1]


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
