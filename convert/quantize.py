"""From a float graph and a calibration table to the explicit Q/DQ graph: symmetric INT8, zero point 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from ampnet_opt.convert.graph import GraphIndex, add_constant, attribute, replace_nodes
from ampnet_opt.convert.placement import Placement
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.onnx_bytes import serialised
from ampnet_opt.core.text import listed

SMALLEST_SCALE = 1e-12  # in float32
SMALLEST_HALF = float(np.finfo(np.float16).tiny)  # normal: below it digits are lost, and in the end all of them
# What tiny channels may lose to a scale that is normal in float16, of the squared error of rounding the layer's weights.
TOLERATED = 0.1
LEVELS = 127  # -127..127, so that a range and its negative have the same scale
PRODUCTS = {"Conv", "Gemm"}
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
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
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


def violations(model: onnx.ModelProto) -> list[str]:
    """Sentences, one for each rule that a place of the graph breaks; [] for a good one."""
    index = GraphIndex(model.graph)
    return [sentence for node in model.graph.node for rule in RULES for sentence in rule(node, index)]


def symmetric(node: onnx.NodeProto, index: GraphIndex) -> Iterator[str]:
    """Zero point 0, scale a finite number over 0; per tensor for activations, per output channel (axis 0) for weights."""
    if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
        return
    yield from representable(node, index)
    scale = index.array(node.input[1])
    if len(node.input) == 3 and index.array(node.input[2]).any():
        yield f"{node.name} has a zero point that is not 0"
    stored = index.constants.get(node.input[0])
    if stored is None and scale.ndim:
        yield f"{node.name} has {scale.size} scales for an activation"
    if stored is not None and (scale.shape != tuple(stored.dims[:1]) or attribute(node, "axis", 1) != 0):
        yield f"{node.name} has no scale for each output channel"


def representable(node: onnx.NodeProto, index: GraphIndex) -> Iterator[str]:
    """Every scale is finite, over 0 and normal in its own type, float32 or float16: parsers refuse 0, and less than normal
    loses digits. Holds in every form of a graph."""
    if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
        return
    scale = index.array(node.input[1])
    if not (np.isfinite(scale) & (scale > 0)).all():
        yield f"{node.name} has a scale that is no finite number over 0"
    elif scale.min() < np.finfo(scale.dtype).tiny:
        yield f"{node.name} has a scale of {scale.min():.2g}, which {scale.dtype} does not hold with all digits"


def require_representable(model: onnx.ModelProto) -> None:
    """AmpnetError when a Q/DQ graph, in any form, has a scale that a backend would refuse or misread."""
    index = GraphIndex(model.graph)
    found = [sentence for node in model.graph.node for sentence in representable(node, index)]
    if found:
        raise AmpnetError(f"the INT8 graph cannot be built: {listed(found, 1)}; take --fp16, or calibrate again")


def is_half_scale(scale: np.ndarray) -> bool:
    """Whether float16 holds every one of the scales, as a normal number."""
    with np.errstate(over="ignore"):
        half = scale.astype(np.float16).astype(np.float32)
    return bool((scale >= np.finfo(np.float16).tiny).all() and (abs(half - scale) <= HALF_ERROR * scale).all())


def both_inputs(node: onnx.NodeProto, index: GraphIndex) -> Iterator[str]:
    """A product is INT8 in both its inputs or in none."""
    if node.op_type not in PRODUCTS:
        return
    activation, weight = _in_int8(node.input[0], index), _in_int8(node.input[1], index)
    if weight and not activation:
        yield f"{node.name} has an INT8 weight but reads a float activation"


def shortcuts(node: onnx.NodeProto, index: GraphIndex) -> Iterator[str]:
    """What is added to an INT8 convolution is INT8, so that convolution, addition and ReLU are one kernel."""
    if node.op_type != "Add":
        return
    main, shortcut = node.input
    maker = index.maker(main, "Conv")
    if maker is None or not _in_int8(maker.input[1], index):
        return  # a gate stands before the addition, or the block is float
    if not _in_int8(shortcut, index):
        yield f"{node.name} adds a float tensor to the INT8 convolution {maker.name}"


def joins(node: onnx.NodeProto, index: GraphIndex) -> Iterator[str]:
    """A concatenation that is read in INT8 runs in INT8: what it joins and its result share one scale."""
    if node.op_type != "Concat":
        return
    results = {float(index.array(r.input[1])) for r in index.readers(node.output[0]) if r.op_type == "QuantizeLinear"}
    joined = {_scale(name, index) for name in node.input}
    if results and joined != {None} and len(joined) > 1:
        yield f"{node.name} joins INT8 tensors of different scales, or INT8 and float ones"
    elif results and joined != {None} and joined != results:
        yield f"{node.name} joins INT8 tensors, but its result has not their scale"


def one_pair(node: onnx.NodeProto, index: GraphIndex) -> Iterator[str]:
    """One Q for all readers of a tensor, none straight behind a DQ, and every pair read by something in INT8."""
    if node.op_type != "QuantizeLinear":
        return
    readers = index.readers(node.input[0])
    if sum(reader.op_type == "QuantizeLinear" for reader in readers) > 1:
        yield f"{node.input[0]} is quantised more than once"
    if len(readers) > 1 or node.input[0] in {output for reader in readers for output in reader.output}:
        yield f"{node.input[0]} is read around its pair"
    if index.maker(node.input[0], "DequantizeLinear"):
        yield f"{node.name} quantises what was INT8 already"
    used = (r for dq in index.readers(node.output[0]) for r in index.readers(dq.output[0]))
    if not any(_gains(reader, index) for reader in used):
        yield f"{node.name} serves no INT8 layer"


RULES = [symmetric, both_inputs, shortcuts, joins, one_pair]


def _gains(reader: onnx.NodeProto, index: GraphIndex) -> bool:
    """Whether a reader of a DQ runs in INT8 for it, itself or as a fused part of a kernel."""
    if reader.op_type in PRODUCTS:
        return _in_int8(reader.input[1], index)
    if reader.op_type == "Add":
        return any(_is_int8_product(name, index) for name in reader.input)
    readers = [r for name in reader.output for r in index.readers(name)]
    if reader.op_type in {"MaxPool", "Split", "MatMul"}:  # pools and crops move INT8 values to where they are used
        return any(r.op_type == "QuantizeLinear" or _gains(r, index) for r in readers)
    return reader.op_type == "Concat" and any(r.op_type == "QuantizeLinear" for r in readers)


def _is_int8_product(tensor: str, index: GraphIndex) -> bool:
    maker = index.producers.get(tensor)
    return maker is not None and maker.op_type in PRODUCTS and _in_int8(maker.input[1], index)


def _in_int8(tensor: str, index: GraphIndex) -> bool:
    return _scale(tensor, index) is not None


def _scale(tensor: str, index: GraphIndex) -> float | None:
    """Of an INT8 tensor, seen through the pools behind its DQ (of a weight: the first channel's); None for a float one."""
    maker = index.producers.get(tensor)
    if maker is None:
        return None
    if maker.op_type == "MaxPool":
        return _scale(maker.input[0], index)
    return float(index.array(maker.input[1]).flat[0]) if maker.op_type == "DequantizeLinear" else None
