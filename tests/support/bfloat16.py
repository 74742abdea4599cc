"""BF16 graphs on a CPU whose ONNX Runtime has no kernels for them: the same sums in float32, each result rounded to BF16."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def has_bfloat16(model: onnx.ModelProto) -> bool:
    return any(tensor.data_type == TensorProto.BFLOAT16 for tensor in model.graph.initializer)


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with float32 in place of each bfloat16, and a cast there and back behind each node that makes one.

    Tensor cores do the same: they add in float32 and round what they write.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    small = {v.name for v in inferred.value_info if v.type.tensor_type.elem_type == TensorProto.BFLOAT16}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            bits = np.frombuffer(tensor.raw_data, "<u2").astype(np.uint32) << 16
            tensor.CopyFrom(numpy_helper.from_array(bits.view(np.float32).reshape(tuple(tensor.dims)), tensor.name))
    nodes = []
    for node in graph.node:
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.BFLOAT16:
            node.attribute[0].i = TensorProto.FLOAT
        made = [(i, name) for i, name in enumerate(node.output) if name in small]
        nodes.append(node)
        for i, name in made:
            node.output[i] = exact = f"{name}_exact"
            there = helper.make_node("Cast", [exact], [f"{name}_rounded"], name=f"{name}_there", to=TensorProto.BFLOAT16)
            nodes += [
                there,
                helper.make_node("Cast", [f"{name}_rounded"], [name], name=f"{name}_back", to=TensorProto.FLOAT),
            ]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return changed
