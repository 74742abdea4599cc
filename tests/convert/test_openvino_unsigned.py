from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small import faces, quantized, run

from ampnet_opt.convert.export import random_faces
from ampnet_opt.convert.graph import GraphIndex, add_constant
from ampnet_opt.convert.openvino import to_unsigned

SHORTCUT = "/model/trunk/trunk.1/trunk.1.0/shortcut/conv/Conv_output_0"


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
    assert signed == [SHORTCUT]


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
    on_grid = []
    for name, node in pairs(unsigned).items():
        maker = index.producers[node.input[0]]
        if maker.op_type == "Clip":
            assert list(maker.input[:2]) == [name, ""]
            assert index.array(maker.input[2]) == np.float32(127) * index.array(node.input[1])
        elif name != SHORTCUT:
            on_grid.append(name)
    patches = {node.output[0] for node in quantized().graph.node if node.op_type == "MatMul"} & set(pairs(quantized()))
    assert len(patches) == 9
    assert set(on_grid) == patches | {f"/model/stages.{i}/Concat_output_0" for i in range(3)}


def test_the_signed_graph_is_not_changed() -> None:
    before = quantized().SerializeToString(deterministic=True)
    to_unsigned(quantized())
    assert quantized().SerializeToString(deterministic=True) == before


def one_pair(operation: str, offset: float) -> onnx.ModelProto:
    """landmarks float32 [4] -> operation -> Q/DQ of scale 0.5 -> + offset -> logits; the image is not read."""
    graph = helper.make_graph([], "pair", [], [])
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, [4]))
    graph.input.append(helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, [4]))
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [4]))
    inputs = [
        add_constant(graph, "scale", np.float32(0.5)[()].reshape(())),
        add_constant(graph, "zero", np.array([0], np.int8)[0].reshape(())),
    ]
    add_constant(graph, "offset", np.array([offset], np.float32))
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
    values = np.array([-200, 0.3, 63.6, 100], np.float32)
    (expected,), (got,) = (run(graph, (values, values), optimise=False) for graph in (model, changed))
    np.testing.assert_array_equal(got, expected)
