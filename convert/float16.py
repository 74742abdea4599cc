"""FP16 or BF16 where it is safe: the graph's types say what computes in which precision, for strongly typed builders."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from ampnet_opt.convert.graph import GraphIndex, constants_to_initializers, reachable, replace_nodes
from ampnet_opt.convert.quantize import is_half_scale
from ampnet_opt.core.graph_interface import INPUTS
from ampnet_opt.core.onnx_bytes import serialised

# A quarter of the largest float16: other faces may exceed what was measured on some.
LARGEST = float(np.finfo(np.float16).max) / 4
# Relative error (root of the squared errors over root of the squares) at which a constant no longer fits: float16
# rounds by 2**-12 on average, more only where values are so small that they lose digits.
CONSTANT_ERROR = 1e-3
# The first opset whose Q/DQ scales may be float16.
QUANTIZED_OPSET = 19
# The first opset whose convolutions and pools may be bfloat16.
BFLOAT16_OPSET = 22
SUFFIX: dict[int, str] = {TensorProto.FLOAT: "single", TensorProto.FLOAT16: "half", TensorProto.BFLOAT16: "bfloat16"}


def to_half(model: onnx.ModelProto, ranges: Mapping[str, float]) -> tuple[onnx.ModelProto, list[str]]:
    """A copy of a float or Q/DQ graph that computes in float16, and the names of the nodes that stay in float32.

    ranges: largest magnitude of the graph's float tensors; a node that reads or makes one over a quarter of float16's
    largest stays, as do those that compute on landmarks alone (a box would move), and those whose constants float16
    does not hold. Inputs and outputs keep their types. Casts stand where the precision changes. Raises nothing of its
    own; the result is checked by onnx.
    """
    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    converted = version_converter.convert_version(model, QUANTIZED_OPSET) if quantised else model
    converted = onnx.shape_inference.infer_shapes(serialised(converted))
    graph = converted.graph
    floats = _floats(graph)
    single = _float32_nodes(graph, floats, ranges)
    _rewrite(graph, floats, single, TensorProto.FLOAT16)
    onnx.checker.check_model(serialised(converted), full_check=True)
    return converted, [node for node in single if not node.endswith(("_Q", "_DQ"))]


def too_large(ranges: Mapping[str, float]) -> dict[str, float]:
    """Those of `ranges` for which `to_half` keeps nodes in float32."""
    return {name: largest for name, largest in ranges.items() if largest > LARGEST}


def to_bfloat16(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """A copy of a float graph that computes in bfloat16, and the names of the nodes that stay in float32.

    Those are what computes on landmarks alone: a box would move. bfloat16 has float32's range, so that nothing overflows.
    Inputs and outputs keep their types. The opset is raised to 22.
    """
    converted = version_converter.convert_version(model, BFLOAT16_OPSET)
    constants_to_initializers(converted.graph)
    converted = onnx.shape_inference.infer_shapes(serialised(converted))
    graph = converted.graph
    floats = _floats(graph)
    single = _on_landmarks(graph)
    # TensorRT documents casts of uint8 to float32 and float16 alone (DataType.kUINT8): pixels become float32 first.
    pixels = [node.name for node in graph.node if node.op_type == "Cast" and node.input[0] in INPUTS]
    _rewrite(graph, floats, [*single, *pixels], TensorProto.BFLOAT16)
    onnx.checker.check_model(serialised(converted), full_check=True)
    return converted, single


def _floats(graph: onnx.GraphProto) -> set[str]:
    """Names of the float32 tensors, constants included."""
    values = [*graph.value_info, *graph.input, *graph.output]
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return floats | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}


def _on_landmarks(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that compute on landmarks alone, in the order of the graph."""
    from_image, from_landmarks = (reachable(graph, name) for name in INPUTS)
    return [node.name for node in graph.node if node.output[0] in from_landmarks - from_image]


def _float32_nodes(graph: onnx.GraphProto, floats: set[str], ranges: Mapping[str, float]) -> list[str]:
    """Names of the nodes that are to stay in float32, in the order of the graph."""
    index = GraphIndex(graph)
    kept: list[str] = []
    on_landmarks, large = {*_on_landmarks(graph)}, too_large(ranges)
    for node in graph.node:
        touched = [name for name in [*node.input, *node.output] if name in floats]
        exceeds = any(name in large for name in touched)
        fits = is_half_scale if node.op_type in {"QuantizeLinear", "DequantizeLinear"} else _fits
        unfit = any(name in index.constants and not fits(index.array(name)) for name in touched)
        if node.name in on_landmarks or exceeds or unfit:
            kept.append(node.name)
    # A weight is dequantised in the precision of the layer that reads it, and the layer in that of its weight's scale.
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in index.constants:
            layer = index.readers(node.output[0])[0]
            if layer.name in kept or node.name in kept:
                kept += [name for name in (node.name, layer.name) if name not in kept]
    return kept


def _fits(values: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16).astype(np.float32)
    return bool(np.isfinite(half).all() and np.linalg.norm(half - values) <= CONSTANT_ERROR * np.linalg.norm(values))


def _rewrite(graph: onnx.GraphProto, floats: set[str], single: list[str], small: int) -> None:
    """Give every node its precision, casting what it reads where that was made in the other.

    small: the type, of TensorProto, of all nodes but those named in `single`.
    """
    kept = set(single)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {output.name for output in graph.output}
    halves: set[str] = set()  # activations that are now of the small type
    available: dict[tuple[str, bool], str] = {}
    nodes: list[onnx.NodeProto] = []
    dequantized = {node.output[0]: list(node.input) for node in graph.node if node.op_type == "DequantizeLinear"}

    def version(name: str, half: bool) -> str:
        """The tensor that holds `name` in the wanted precision, made on first use."""
        kind = small if half else TensorProto.FLOAT
        if name in constants:
            if not half:
                return name
            if (name, True) not in available:
                available[name, True] = f"{name}_{SUFFIX[small]}"
                graph.initializer.append(_rounded(constants[name], available[name, True], small))
        elif (name in halves) == half:
            return name
        elif (name, half) not in available and name in dequantized:
            # A cast behind a DQ would keep builders from fusing it with its reader: it is dequantised twice instead.
            again = f"{name}_{SUFFIX[kind]}"
            stored, scale, *zero_point = dequantized[name]
            node = helper.make_node(
                "DequantizeLinear", [stored, version(scale, half), *zero_point], [again], name=f"{again}_DQ"
            )
            nodes.append(node)
            available[name, half] = again
        elif (name, half) not in available:
            cast = f"{name}_to_{SUFFIX[kind]}"
            nodes.append(helper.make_node("Cast", [name], [cast], name=cast, to=kind))
            available[name, half] = cast
        return available[name, half]

    for node in graph.node:
        half = node.name not in kept
        for i, name in enumerate(node.input):
            if name in floats:
                node.input[i] = version(name, half)
        if half and node.op_type == "Cast" and node.output[0] in floats:
            node.attribute[0].i = small
        nodes.append(node)
        for i, name in enumerate(node.output):
            if half and name in floats:
                if name in outputs:  # the graph's output stays float32, under its own name
                    node.output[i] = f"{name}_{SUFFIX[small]}"
                    cast = helper.make_node("Cast", [node.output[i]], [name], name=f"{name}_cast", to=TensorProto.FLOAT)
                    nodes.append(cast)
                else:
                    halves.add(name)
    replace_nodes(graph, nodes)
    del graph.value_info[:]  # names the types from before


def _rounded(tensor: TensorProto, name: str, kind: int) -> TensorProto:
    """A float32 tensor under another name, as float16 or bfloat16, rounded to the nearest, to even where there are two."""
    values = numpy_helper.to_array(tensor)
    if kind == TensorProto.FLOAT16:
        return numpy_helper.from_array(values.astype(np.float16), name)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    upper = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
    return TensorProto(name=name, data_type=kind, dims=values.shape, raw_data=upper.tobytes())
