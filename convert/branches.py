"""Gates of parallel branches computed together.

Each branch has gates of its own, a dozen operations on a few thousand numbers: more time goes into starting them than into
computing them. Branches that could run at once are joined along the batch, where joining and splitting move nothing, and
each operation is started once for all of them. The products of different weights become one batched product.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from ampnet_opt.convert.graph import GraphIndex, NewNodes, attribute, exchange_nodes, static_shapes


@dataclass(frozen=True)
class _Gate:
    """CBAM's channel gate, and the pooling over channels of the spatial gate behind it.

    source: what is gated, [N, C, H, W]. gated: the same after the gate. pooled: [N, 2, H, W], maximum and mean of `gated`.
    weights: of the two layers, [C, hidden], [1, hidden], [hidden, C], [1, C]. nodes: names of those that compute all that.
    """

    source: str
    gated: str
    pooled: str
    weights: tuple[np.ndarray, ...]
    nodes: frozenset[str]


def join_gates(graph: onnx.GraphProto, opsets: Iterable[onnx.OperatorSetIdProto]) -> None:
    """Replace the channel gates of parallel branches, of equal shapes, by one; a graph without such stays as it is."""
    index, shapes = GraphIndex(graph), static_shapes(graph, opsets)
    peaks = [node for node in graph.node if node.op_type == "GlobalMaxPool"]
    gates = [gate for gate in (_gate(node, index) for node in peaks) if gate is not None]
    depths = _depths(graph, gates)
    groups: dict[tuple, list[_Gate]] = {}
    for gate in gates:
        # One gate behind another cannot run beside it.
        key = (depths[gate.source], shapes.get(gate.source, (gate.source,))[1:], gate.weights[0].shape)
        groups.setdefault(key, []).append(gate)

    nodes, replaced = [], set[str]()
    for i, group in enumerate(group for group in groups.values() if len(group) > 1):
        nodes += _joined(graph, group, f"gates_{i}")
        replaced.update(name for gate in group for name in gate.nodes)
    exchange_nodes(graph, replaced, nodes)


def _gate(peak: onnx.NodeProto, index: GraphIndex) -> _Gate | None:
    """The gate that `peak`, its pooling for maxima, belongs to; None when what is around it is no such gate."""
    source = peak.input[0]
    means = [node for node in index.readers(source) if node.op_type == "GlobalAveragePool"]
    if len(means) != 1:
        return None
    chains = [index.followers(node.output[0], "Conv", "Relu", "Add", "Conv", "Sigmoid", "Mul") for node in (means[0], peak)]
    if not all(chains) or chains[0][2] is not chains[1][2]:  # they meet at the addition
        return None
    first, _, _, second, _, gate = chains[0]
    names = [*first.input[1:], *second.input[1:]]
    shared = list(chains[1][0].input[1:]) == list(first.input[1:])
    if len(names) != 4 or not shared or any(name not in index.constants for name in names) or source not in gate.input:
        return None

    gated = gate.output[0]
    ends = [n for n in index.readers(gated) if n.op_type in {"ReduceMax", "ReduceMean"} and attribute(n, "axes") == [1]]
    if [node.op_type for node in ends] != ["ReduceMax", "ReduceMean"]:
        return None
    joins = index.followers(ends[0].output[0], "Concat")
    if not joins or attribute(joins[0], "axis") != 1 or list(joins[0].input) != [node.output[0] for node in ends]:
        return None
    w1, b1, w2, b2 = (index.array(name) for name in names)
    if w1.shape[2:] != (1, 1) or w2.shape[2:] != (1, 1):
        return None
    weights = (w1[:, :, 0, 0].T, b1[None], w2[:, :, 0, 0].T, b2[None])
    nodes = [means[0], peak, *chains[0], *chains[1], *ends, *joins]
    return _Gate(source, gated, joins[0].output[0], weights, frozenset(node.name for node in nodes))


def _depths(graph: onnx.GraphProto, gates: Sequence[_Gate]) -> dict[str, int]:
    """How many of `gates` one after another lie before each tensor."""
    ends = {gate.gated for gate in gates}
    depths: dict[str, int] = {}
    for node in graph.node:
        before = max((depths.get(name, 0) for name in node.input), default=0)
        depths.update((name, before + (name in ends)) for name in node.output)
    return depths


def _joined(graph: onnx.GraphProto, gates: Sequence[_Gate], prefix: str) -> list[onnx.NodeProto]:
    """Nodes that compute all of `gates` at once; the batch of the first comes first, then that of the second..."""
    new, count, channels = NewNodes(graph, prefix), len(gates), gates[0].weights[0].shape[0]
    w1, b1, w2, b2 = (
        new.constant(name, np.stack([gate.weights[i] for gate in gates])) for i, name in enumerate(("w1", "b1", "w2", "b2"))
    )
    joined = new.add("Concat", [gate.source for gate in gates], "joined", axis=0)
    rows = new.constant("rows", [count, -1, channels])

    def hidden(pool: str, name: str) -> str:
        vectors = new.add("Reshape", [new.add(pool, [joined], f"{name}_map"), rows], name)  # [count, N, channels]
        product = new.add("MatMul", [vectors, w1], f"{name}_product")
        return new.add("Relu", [new.add("Add", [product, b1], f"{name}_sum")], f"{name}_hidden")

    both = new.add("Add", [hidden("GlobalAveragePool", "mean"), hidden("GlobalMaxPool", "peak")], "hidden")
    opened = new.add("Sigmoid", [new.add("Add", [new.add("MatMul", [both, w2], "product"), b2], "sum")], "opened")
    gate = new.add("Reshape", [opened, new.constant("map", [-1, channels, 1, 1])], "gate")
    gated = new.add("Mul", [joined, gate], "gated")
    ends = [new.add("ReduceMax", [gated], "maximum", axes=[1]), new.add("ReduceMean", [gated], "average", axes=[1])]
    new.add_named("Split", [gated], [gate.gated for gate in gates], axis=0)
    new.add_named("Split", [new.add("Concat", ends, "pooled", axis=1)], [gate.pooled for gate in gates], axis=0)
    return new.nodes
