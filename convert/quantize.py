"""From a float graph and a calibration table to the explicit Q/DQ graph: symmetric INT8, zero point 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from ampnet_opt.convert.graph import GraphIndex, add_constant, copy_of, replace_nodes
from ampnet_opt.convert.placement import Placement
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.onnx_bytes import serialised

SMALLEST_SCALE = 1e-12  # in float32
SMALLEST_HALF = float(np.finfo(np.float16).tiny)  # normal: below it digits are lost, and in the end all of them
# What tiny channels may lose to a scale that is normal in float16, of the squared error of rounding the layer's weights.
TOLERATED = 0.1
LEVELS = 127  # -127..127, so that a range and its negative have the same scale
HALF_ERROR = 1e-3  # of a scale in float16: one of our scales is a float16, or far from every normal one


def quantize(
    model: onnx.ModelProto,
    placement: Placement,
    scales: Mapping[str, float],
    corrections: Mapping[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    """A copy of `model` with a Q/DQ pair behind every placed tensor and INT8 weights before every placed layer.

    scales: scale (float32, over 0) of every placed tensor. Weights are stored as INT8 with a DequantizeLinear, one scale
    per output channel (axis 0), as of `quantize_weight`. corrections: what is added to the bias of placed layers, float32
    [outputs]. Raises AmpnetError for a weight that is not finite.
    """
    quantized = copy_of(model)
    graph = quantized.graph
    index = GraphIndex(graph)
    add_constant(graph, "zero_point", np.int8(0)[()].reshape(()))

    nodes: list[onnx.NodeProto] = []
    for tensor in (t for t in placement.tensors if t not in index.producers):
        nodes += _pair(graph, index, tensor, scales[tensor])
    for node in graph.node:
        if node.name in placement.layers:
            nodes.append(_weight(graph, index, node))
            if corrections is not None:
                _correct_bias(graph, index, node, corrections[node.name])
        nodes.append(node)
        for tensor in node.output:
            if tensor in placement.tensors:
                nodes += _pair(graph, index, tensor, scales[tensor])
    replace_nodes(graph, nodes)
    onnx.checker.check_model(serialised(quantized), full_check=True)
    return quantized


def quantize_weight(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """INT8 values and float32 scales [outputs] of a float weight [outputs, ...].

    scale = amax of the channel / 127, rounded up to a normal float16, so that FP16 and FP32 graphs are the same network.
    Channels of zeros or tiny weights take the smallest normal float16. Where that would add more than a tenth to the
    layer's squared error, because all its weights are small, every channel keeps its float32 scale, at least 1e-12.
    Raises ValueError for weights that are not finite.
    """
    amax = np.abs(weight).reshape(len(weight), -1).max(1)
    if not np.isfinite(amax).all():
        raise ValueError("a weight is NaN or infinite")
    exact = np.maximum(amax / LEVELS, SMALLEST_SCALE).astype(np.float32)
    half = _normal_half(exact)
    values = _steps(weight, half)
    tiny = exact < SMALLEST_HALF
    lost = np.square(values[tiny] * _column(half[tiny], weight) - weight[tiny], dtype=np.float64).sum()
    # Rounding to steps of s has the mean squared error s^2 / 12.
    rounding = np.square(exact, dtype=np.float64).sum() * weight[0].size / 12
    return (values, half) if lost <= TOLERATED * rounding else (_steps(weight, exact), exact)


def _normal_half(exact: np.ndarray) -> np.ndarray:
    """Each number, or the next larger one that is a normal float16; a number beyond the largest float16 stays."""
    with np.errstate(over="ignore"):
        half = np.maximum(exact, SMALLEST_HALF).astype(np.float16)
    half = np.where(half.astype(np.float32) < exact, np.nextafter(half, np.float16(np.inf)), half).astype(np.float32)
    return np.where(np.isfinite(half), half, exact)


def _steps(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(weight / _column(scale, weight)), -LEVELS, LEVELS).astype(np.int8)


def _column(scale: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return scale.reshape(-1, *[1] * (weight.ndim - 1))


def _pair(graph: onnx.GraphProto, index: GraphIndex, tensor: str, scale: float) -> list[onnx.NodeProto]:
    """`pair_behind` of a scale that the graph does not hold yet."""
    return pair_behind(index, tensor, [add_constant(graph, f"{tensor}_scale", np.float32(scale).reshape(())), "zero_point"])


def pair_behind(index: GraphIndex, tensor: str, inputs: Sequence[str]) -> list[onnx.NodeProto]:
    """Q and DQ nodes behind `tensor`, whose readers are moved to the DQ. inputs: names of the scale and the zero point."""
    stored, read = f"{tensor}_quantized", f"{tensor}_dequantized"
    for reader, i in index.consumers.get(tensor, []):
        reader.input[i] = read
    return [
        helper.make_node("QuantizeLinear", [tensor, *inputs], [stored], name=f"{tensor}_Q"),
        helper.make_node("DequantizeLinear", [stored, *inputs], [read], name=f"{tensor}_DQ"),
    ]


def _weight(graph: onnx.GraphProto, index: GraphIndex, node: onnx.NodeProto) -> onnx.NodeProto:
    """The DQ node of a layer's weight, which is stored as INT8; the layer is moved to it."""
    name = node.input[1]
    try:
        values, scale = quantize_weight(index.array(name))
    except ValueError as error:
        raise AmpnetError(f"layer {node.name} cannot be quantised: {error}; are the checkpoint's weights right?") from error
    stored = add_constant(graph, f"{name}_quantized", values)
    inputs = [stored, add_constant(graph, f"{name}_scale", scale)]  # no zero point means zero
    node.input[1] = f"{name}_dequantized"
    return helper.make_node("DequantizeLinear", inputs, [node.input[1]], name=f"{name}_DQ", axis=0)


def _correct_bias(graph: onnx.GraphProto, index: GraphIndex, node: onnx.NodeProto, correction: np.ndarray) -> None:
    """Give a layer a bias of its own: exporters let layers with equal biases share one."""
    name = f"{node.name}_corrected_bias"
    if len(node.input) == 2:
        node.input.append(add_constant(graph, name, correction))
    else:
        node.input[2] = add_constant(graph, name, index.array(node.input[2]) + correction)


def is_half_scale(scale: np.ndarray) -> bool:
    """Whether float16 holds every one of the scales, as a normal number."""
    with np.errstate(over="ignore"):
        half = scale.astype(np.float16).astype(np.float32)
    return bool((scale >= np.finfo(np.float16).tiny).all() and (abs(half - scale) <= HALF_ERROR * scale).all())
