"""The Q/DQ graph as TensorRT for RTX fuses it best; by the list of kernels that its builder gives (docs/results/gpu.md)."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from ampnet_opt.convert.float16 import LARGEST
from ampnet_opt.convert.graph import GraphIndex, add_constant, copy_of, replace_nodes
from ampnet_opt.convert.quantize import LEVELS, SMALLEST_HALF, is_half_scale, pair_behind
from ampnet_opt.core.onnx_bytes import serialised


def rtx_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, a float32 Q/DQ graph, with `pairs_behind_pools` and `scales_behind_convolutions`."""
    changed = copy_of(model)
    pairs_behind_pools(changed.graph)
    scales_behind_convolutions(changed.graph)
    onnx.checker.check_model(serialised(changed), full_check=True)
    return changed


def pairs_behind_pools(graph: onnx.GraphProto) -> None:
    """Put a second Q/DQ pair, of the same scale, behind each max pool that reads INT8; equal bit for bit.

    The builder does not move a DQ past a pool whose result has several readers, and then computes these in FP16.
    """
    index = GraphIndex(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        pair = index.maker(node.input[0], "DequantizeLinear") if node.op_type == "MaxPool" else None
        if pair is None:
            continue
        nodes += pair_behind(index, node.output[0], pair.input[1:])
    replace_nodes(graph, nodes)


def scales_behind_convolutions(graph: onnx.GraphProto) -> None:
    """Give each INT8 convolution one scale for all its weights, and multiply its channels by the rest of theirs behind it.

    A convolution whose weights have a scale for each channel writes float32; with one scale it writes float16, half the
    bytes. The multiplication and the bias go into the kernel that follows anyhow, with the addition, the ReLU and the
    quantisation. The one scale is a power of two, so that no scale of a channel is rounded.
    """
    index = GraphIndex(graph)
    nodes: list[onnx.NodeProto] = []
    scales: dict[str, np.ndarray] = {}  # one for all, by the name of the weights' DQ
    for node in graph.node:
        nodes.append(node)
        weight = index.maker(node.input[1], "DequantizeLinear") if node.op_type == "Conv" else None
        read = index.maker(node.input[0], "DequantizeLinear")
        if weight is None or read is None or weight.input[0] not in index.constants:
            continue
        channels = index.array(weight.input[1])
        common = _common_scale(index.array(weight.input[0]), channels, index.array(read.input[1]))
        if common is None:
            continue
        scales[weight.name] = common
        result, raw = node.output[0], f"{node.name}_sums"
        node.output[0] = raw
        scaled = f"{node.name}_scaled" if len(node.input) == 3 else result
        factors = add_constant(graph, f"{node.name}_factors", (channels / common).reshape(-1, 1, 1))
        nodes.append(helper.make_node("Mul", [raw, factors], [scaled], name=f"{node.name}_scale"))
        if len(node.input) == 3:
            bias = add_constant(graph, f"{node.name}_bias", index.array(node.input.pop()).reshape(-1, 1, 1))
            nodes.append(helper.make_node("Add", [scaled, bias], [result], name=f"{node.name}_add"))
    for node in nodes:
        if node.name in scales:
            node.input[1] = add_constant(graph, f"{node.name}_scale", scales[node.name])
            del node.attribute[:]  # the axis of the scales
    replace_nodes(graph, nodes)


def _common_scale(weight: np.ndarray, channels: np.ndarray, activation: np.ndarray) -> np.ndarray | None:
    """A power of two near the middle of the scales `channels`, float32 []; None where float16 does not hold what follows.

    weight: int8 [outputs, ...]. activation: scale of what the convolution reads. No sum of products exceeds a quarter of
    the largest float16: INT8 activations have a largest magnitude.
    """
    largest = float(np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(1).max() * LEVELS * activation)
    wanted = min(float(np.median(channels)), LARGEST / max(largest, SMALLEST_HALF))
    common = max(np.float32(2.0 ** np.floor(np.log2(wanted))), np.float32(SMALLEST_HALF))
    fits = common * largest <= LARGEST and is_half_scale(channels / common)
    return np.asarray(common, np.float32) if fits else None
