"""Logits of many variants of one network on the same faces, computing again only the parts that a variant changes.

The graph falls into parts at its seams: trunk, crops, branches and heads. A part whose Q/DQ pairs are those of the base and
whose inputs are as they were keeps the values it had; one whose inputs alone changed runs in a session made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from ampnet_opt.convert.graph import GraphIndex, attribute, without_unneeded
from ampnet_opt.convert.placement import Placement, patch_source
from ampnet_opt.convert.source import Int8
from ampnet_opt.core.graph_interface import INPUTS, OUTPUT
from ampnet_opt.core.onnx_bytes import serialised
from ampnet_opt.core.onnx_session import onnx_session

Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class SubNetwork:
    """A graph of its own: inputs are seams or inputs of the network, the output is a seam or the logits."""

    graph: onnx.ModelProto
    inputs: tuple[str, ...]
    output: str


class Network:
    """A float graph in parts, and what every seam holds on some faces under the placement `base`.

    batches: of (image, landmarks) as the graph takes them. int8: of every tensor and layer that a placement may name.
    `logits`: float32 [N, classes], of the base. Keeps about 1.1 MB a face at full width.
    """

    def __init__(
        self,
        graph: onnx.ModelProto,
        int8: Int8,
        base: Placement,
        batches: Sequence[tuple[np.ndarray, np.ndarray]],
    ) -> None:
        self._int8, self._base = int8, base
        self._parts = split(graph)
        self._sessions = [self._session(part, base) for part in self._parts]
        self._values: list[Values] = [dict(zip(INPUTS, batch, strict=True)) for batch in batches]
        for part, session in zip(self._parts, self._sessions, strict=True):
            for values in self._values:
                values[part.output] = _run(session, part, values)
        self.logits = np.concatenate([values[OUTPUT] for values in self._values])

    def run(self, variant: Placement) -> np.ndarray:
        """Logits float32 [N, classes] under another placement."""
        new: list[Values] = [{} for _ in self._values]
        for part, session in zip(self._parts, self._sessions, strict=True):
            same = _within(variant, part) == _within(self._base, part)
            if same and not any(name in new[0] for name in part.inputs):
                continue
            chosen = session if same else self._session(part, variant)
            for old, changed in zip(self._values, new, strict=True):
                changed[part.output] = _run(chosen, part, {**old, **changed})
        return np.concatenate([{**old, **changed}[OUTPUT] for old, changed in zip(self._values, new, strict=True)])

    def _session(self, part: SubNetwork, placement: Placement) -> onnxruntime.InferenceSession:
        within = _within(placement, part)
        placed = within.tensors or within.layers
        return onnx_session(serialised(self._int8.quantize(part.graph, within) if placed else part.graph))


def split(model: onnx.ModelProto) -> list[SubNetwork]:
    """The parts of a float graph, each behind those it reads."""
    # Inputs of a checked graph state their shapes: the seams' are inferred.
    model = onnx.shape_inference.infer_shapes(model)
    seams = [*seams_of(model.graph), OUTPUT]
    return [_part(model, seam, {*seams, *INPUTS} - {seam}) for seam in seams]


def seams_of(graph: onnx.GraphProto) -> list[str]:
    """In the graph's order: the patches, the map that they are cut from, and every branch's spatial mean."""
    index = GraphIndex(graph)
    sources = {patch_source(node.output[0], index) for node in graph.node}
    return [
        node.output[0]
        for node in graph.node
        if node.output[0] in sources
        or patch_source(node.output[0], index) is not None
        or (_is_spatial_mean(node) and any(r.op_type in {"Concat", "Gemm"} for r in index.readers(node.output[0])))
    ]


def _is_spatial_mean(node: onnx.NodeProto) -> bool:
    return node.op_type == "ReduceMean" and attribute(node, "axes") == [2, 3]


def _part(model: onnx.ModelProto, output: str, known: set[str]) -> SubNetwork:
    """What computes `output` from the tensors `known`."""
    values = {value.name: value for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]}
    nodes = without_unneeded(model.graph.node, [output], known)
    read = dict.fromkeys(name for node in nodes for name in node.input)  # in order, each once
    inputs = [name for name in read if name in known]
    graph = helper.make_graph(
        nodes,
        output,
        [values[name] for name in inputs],
        [values[output]],
        [tensor for tensor in model.graph.initializer if tensor.name in read],
    )
    made = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return SubNetwork(made, tuple(inputs), output)


def _within(placement: Placement, part: SubNetwork) -> Placement:
    """The share of a placement that changes what a part computes: Q/DQ of a seam belongs to the parts that read it."""
    names = {name for node in part.graph.graph.node for name in node.input}
    nodes = {node.name for node in part.graph.graph.node}
    return Placement(
        {tensor: tensor for tensor in placement.tensors if tensor in names},
        [layer for layer in placement.layers if layer in nodes],
    )


def _run(session: onnxruntime.InferenceSession, part: SubNetwork, values: Values) -> np.ndarray:
    return session.run([part.output], {name: values[name] for name in part.inputs})[0]
