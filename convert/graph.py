"""Looking things up in an ONNX graph, and the few edits that every pass needs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from graphlib import TopologicalSorter
from onnx import helper, numpy_helper

MOST_SIDES = 64  # numbers of a constant that shapes follow from: sides, axes, scales


class GraphIndex:
    """Who makes and who reads each tensor of a graph, as it was when the index was made.

    producers: tensor -> node. consumers: tensor -> [(node, input number)]. constants: tensor -> TensorProto.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.producers = {name: node for node in graph.node for name in node.output if name}
        self.consumers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in graph.node:
            for i, name in enumerate(node.input):
                if name:
                    self.consumers.setdefault(name, []).append((node, i))
        self.constants = {tensor.name: tensor for tensor in graph.initializer}

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        return [node for node, _ in self.consumers.get(tensor, [])]

    def followers(self, tensor: str, *op_types: str) -> list[onnx.NodeProto]:
        """The nodes behind `tensor`, one of each type, each the only reader of what is before it; [] where it is not so."""
        found: list[onnx.NodeProto] = []
        for op_type in op_types:
            readers = self.readers(tensor)
            if len(readers) != 1 or readers[0].op_type != op_type:
                return []
            found.append(readers[0])
            tensor = readers[0].output[0]
        return found

    def maker(self, tensor: str, *op_types: str) -> onnx.NodeProto | None:
        """The node that makes `tensor`, when it is of the first type; with more, the one that makes its first input..."""
        node = None
        for op_type in op_types:
            node = self.producers.get(tensor)
            if node is None or node.op_type != op_type:
                return None
            tensor = node.input[0]
        return node

    def array(self, tensor: str) -> np.ndarray:
        return numpy_helper.to_array(self.constants[tensor])


class NewNodes:
    """Nodes to add to a graph, named after what they make: `prefix/name`. Constants go into the graph at once."""

    def __init__(self, graph: onnx.GraphProto, prefix: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._graph, self._prefix = graph, prefix

    def add(self, op_type: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append a node with one output, and return that."""
        return self.add_named(op_type, inputs, [f"{self._prefix}/{name}"], **attributes)[0]

    def add_named(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Sequence[str]:
        """Append a node that makes `outputs`, tensors with names of their own."""
        self.nodes.append(helper.make_node(op_type, inputs, outputs, name=outputs[0], **attributes))
        return outputs

    def constant(self, name: str, value: np.ndarray | Sequence[int]) -> str:
        return add_constant(self._graph, f"{self._prefix}/{name}", np.asarray(value))


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same, to be changed: protobuf's messages are changed in place."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def reachable(graph: onnx.GraphProto, tensor: str) -> set[str]:
    """The tensors that depend on one, and it itself."""
    found = {tensor}
    for node in graph.node:
        if found.intersection(node.input):
            found.update(node.output)
    return found


def constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes into initializers, so that a weight is looked up in one place."""
    kept = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    replace_nodes(graph, kept)


def without_unneeded(
    nodes: Sequence[onnx.NodeProto], outputs: Iterable[str], known: Collection[str] = ()
) -> list[onnx.NodeProto]:
    """Those of `nodes`, which are in an order of execution, that compute `outputs` from the tensors `known` and inputs."""
    wanted = {*outputs}
    kept = []
    for node in reversed(nodes):
        if any(name in wanted and name not in known for name in node.output):
            kept.append(node)
            wanted.update(name for name in node.input if name)
    return kept[::-1]


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of a node's attribute, or what it is when not given."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def in_order(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """`nodes`, each after those that make its inputs."""
    makers = {name: i for i, node in enumerate(nodes) for name in node.output}
    needs = {i: {makers[name] for name in node.input if name in makers} for i, node in enumerate(nodes)}
    return [nodes[i] for i in TopologicalSorter(needs).static_order()]


def static_shapes(graph: onnx.GraphProto, opsets: Iterable[onnx.OperatorSetIdProto]) -> dict[str, tuple[int | None, ...]]:
    """Shapes of a graph's tensors as far as they can be inferred; None where a dimension is dynamic."""
    # Without its value_info, as what earlier passes left may be stale, and without the content of weights: the inference
    # would make four copies of it.
    constants = list(map(_without_weights, graph.initializer))
    bare = helper.make_graph(graph.node, graph.name or "graph", graph.input, graph.output, constants)
    inferred = onnx.shape_inference.infer_shapes(helper.make_model(bare, opset_imports=list(opsets))).graph
    return {
        value.name: tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }


def _without_weights(constant: onnx.TensorProto) -> onnx.TensorProto:
    """A constant, or only its type and shape where it is too large for shapes to follow from its content."""
    if math.prod(constant.dims) <= MOST_SIDES:
        return constant
    return onnx.TensorProto(name=constant.name, data_type=constant.data_type, dims=constant.dims)


def exchange_nodes(graph: onnx.GraphProto, dropped: Collection[str], added: Sequence[onnx.NodeProto]) -> None:
    """Put `added` in the place of the nodes named in `dropped`, and of those that only they needed."""
    nodes = in_order([node for node in graph.node if node.name not in dropped] + list(added))
    replace_nodes(graph, without_unneeded(nodes, [output.name for output in graph.output]))


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Make `nodes`, in their order, the nodes of `graph`; initializers that none of them reads are dropped."""
    nodes = list(nodes)
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
    unread = [tensor for tensor in graph.initializer if tensor.name not in read]
    for tensor in unread:
        graph.initializer.remove(tensor)


def add_constant(graph: onnx.GraphProto, name: str, value: np.ndarray) -> str:
    graph.initializer.append(numpy_helper.from_array(value, name))
    return name
