"""Channels of equal range: a network of depthwise convolutions loses least to INT8 when no channel is far below the others.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1, with ranges of
activations from data. For s > 0, relu(s x) = s relu(x): where a ReLU stands between two convolutions, a channel may be
divided by s in the first and multiplied by s in the second. The float network computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from ampnet_opt.convert.graph import GraphIndex, copy_of

SMALLEST = 1e-4  # of the largest range: a channel that holds nothing is not blown up further


class Pair(NamedTuple):
    """Two convolutions; `between` is what the second reads: the ReLU of the first."""

    first: onnx.NodeProto
    between: str
    second: onnx.NodeProto


def pairs(graph: onnx.GraphProto) -> list[Pair]:
    """The convolutions of a float graph, with biases, between which stands a ReLU and nothing else reads."""
    index = GraphIndex(graph)
    found = []
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) == 3:
            behind = index.followers(node.output[0], "Relu", "Conv")
            if behind:
                found.append(Pair(node, behind[0].output[0], behind[1]))
    return found


def equalise(model: onnx.ModelProto, ranges: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """A copy of a float graph whose channels between `pairs` are scaled; its results are equal but for float rounding.

    In front of a depthwise convolution all channels get one range: its weights have a scale for each of them. In front of
    another one, s is the root of the range by the largest weight that reads the channel, which shares the differences
    between activations and weights.

    Args:
        model: float, constants as initializers that no two layers share.
        ranges: largest magnitude of each channel of `Pair.between`, float32 [channels].
    """
    changed = copy_of(model)
    index = GraphIndex(changed.graph)
    for first, between, second in pairs(changed.graph):
        weight = index.array(second.input[1])
        depthwise = weight.shape[1] == 1
        factors = _floored(ranges[between].astype(np.float64))
        if not depthwise:
            factors = np.sqrt(factors / _floored(np.abs(weight).max((0, 2, 3)).astype(np.float64)))
        factors /= np.exp(np.log(factors).mean())
        for name in first.input[1:]:
            _multiply(index.constants[name], 1 / factors, 0)
        _multiply(index.constants[second.input[1]], factors, 0 if depthwise else 1)
    return changed


def _floored(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(values, max(SMALLEST * values.max(), np.finfo(np.float32).tiny)))


def _multiply(constant: onnx.TensorProto, factors: np.ndarray, axis: int) -> None:
    values = numpy_helper.to_array(constant)
    shape = [-1 if one == axis else 1 for one in range(values.ndim)]
    constant.CopyFrom(numpy_helper.from_array((values * factors.reshape(shape)).astype(np.float32), constant.name))
