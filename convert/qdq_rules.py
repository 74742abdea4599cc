"""What a Q/DQ graph has to hold, rule by rule: docs/explanations/quantisation.md says why.

`require_representable` is asked of every graph that is built; the tests and tools/quantise_detector.py ask for all rules.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from ampnet_opt.convert.graph import GraphIndex, attribute
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.text import listed

PRODUCTS = {"Conv", "Gemm"}


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
