from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small import faces, quantized, run

from ampnet_opt.convert.export import random_faces
from ampnet_opt.convert.graph import GraphIndex, add_constant
from ampnet_opt.convert.unsigned import to_unsigned


@pytest.fixture(scope="module")
def unsigned() -> onnx.ModelProto:
    return to_unsigned(quantized())


def pairs(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """QuantizeLinear nodes by the tensor that they stored in the signed graph."""
    return {node.name.removesuffix("_Q"): node for node in model.graph.node if node.op_type == "QuantizeLinear"}


@pytest.mark.parametrize("seed", [None, 3])
def test_results_are_equal(unsigned: onnx.ModelProto, seed: int | None) -> None:
    inputs = faces() if seed is None else random_faces(3, "uint8", seed)
    (expected,), (got,) = (run(model, inputs, optimise=False) for model in (quantized(), unsigned))
    np.testing.assert_allclose(got, expected, atol=1e-6, rtol=0)


def test_every_tensor_but_the_trunks_shortcut_is_unsigned(unsigned: onnx.ModelProto) -> None:
    index = GraphIndex(unsigned.graph)
    signed = [name for name, node in pairs(unsigned).items() if index.array(node.input[2]).dtype == np.int8]
    assert signed == ["/model/trunk/trunk.1/trunk.1.0/shortcut/conv/Conv_output_0"]


def test_signed_tensors_are_the_only_ones_that_go_below_zero() -> None:
    names = list(pairs(quantized()))
    lowest = {name: value.min() for name, value in zip(names, run(quantized(), faces(), False, names), strict=True)}
    assert [name for name, low in lowest.items() if low < 0] == [
        "/model/trunk/trunk.1/trunk.1.0/shortcut/conv/Conv_output_0"
    ]


def test_zero_points_of_a_pair_agree(unsigned: onnx.ModelProto) -> None:
    index = GraphIndex(unsigned.graph)
    for node in pairs(unsigned).values():
        for reader in index.readers(node.output[0]):
            assert list(reader.input[1:]) == list(node.input[1:])


def test_clips_stand_only_where_values_are_new(unsigned: onnx.ModelProto) -> None:
    index = GraphIndex(unsigned.graph)
    before = GraphIndex(quantized().graph)
    for name, node in pairs(unsigned).items():
        maker, made_by = index.producers[node.input[0]], before.producers[name]
        joins_maps = made_by.op_type == "Concat" and before.producers[made_by.input[0]].op_type != "Squeeze"
        joins_maps &= all(i in before.producers and "mean" not in before.producers[i].op_type.lower() for i in made_by.input)
        on_grid = made_by.op_type == "MatMul" or joins_maps
        is_signed = index.array(node.input[2]).dtype == np.int8
        assert (maker.op_type == "Clip") == (not on_grid and not is_signed), name
        if maker.op_type == "Clip":
            assert list(maker.input[:2]) == [name, ""]
            assert index.array(maker.input[2]) == np.float32(127) * index.array(node.input[1])


def test_the_signed_graph_is_not_changed() -> None:
    before = quantized().SerializeToString(deterministic=True)
    to_unsigned(quantized())
    assert quantized().SerializeToString(deterministic=True) == before


def one_pair(operation: str, offset: float) -> onnx.ModelProto:
    """image [4] float32 -> operation -> Q/DQ -> + offset."""
    graph = helper.make_graph([], "pair", [], [])
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, [4]))
    graph.input.append(helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, [4]))
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [4]))
    inputs = [
        add_constant(graph, "scale", np.float32(0.5)[()].reshape(())),
        add_constant(graph, "zero", np.int8([0])[0].reshape(())),
    ]
    add_constant(graph, "offset", np.float32([offset]))
    graph.node.extend(
        [
            helper.make_node(operation, ["landmarks"], ["x"], name="op"),
            helper.make_node("QuantizeLinear", ["x", *inputs], ["x_quantized"], name="x_Q"),
            helper.make_node("DequantizeLinear", ["x_quantized", *inputs], ["y"], name="x_DQ"),
            helper.make_node("Add", ["y", "offset"], ["logits"], name="add"),
        ]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("operation", "is_unsigned"), [("Relu", True), ("Abs", True), ("Neg", False), ("Tanh", False)])
def test_values_beyond_the_range_saturate_where_int8_does(operation: str, is_unsigned: bool) -> None:
    """UINT8 without a clip would go on to 255."""
    model = one_pair(operation, 1.0)
    changed = to_unsigned(model)
    types = {tensor.name: tensor.data_type for tensor in changed.graph.initializer}
    assert (TensorProto.UINT8 in types.values()) == is_unsigned
    values = np.float32([-200, 0.3, 63.6, 100])
    (expected,), (got,) = (run(graph, (values, values), optimise=False) for graph in (model, changed))
    np.testing.assert_array_equal(got, expected)
