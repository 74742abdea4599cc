"""Looking things up in an ONNX graph, and the few edits that every pass needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import onnx
from onnx import numpy_helper


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

    def array(self, tensor: str) -> np.ndarray:
        return numpy_helper.to_array(self.constants[tensor])


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
