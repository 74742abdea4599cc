from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from bfloat16 import in_float32
from onnx import TensorProto, helper
from small import Faces, faces, float_graph, quantized, run

from ampnet_opt.convert.export import random_faces
from ampnet_opt.convert.float16 import LARGEST, to_bfloat16, to_half
from ampnet_opt.convert.graph import GraphIndex, add_constant

GRAPHS = {"float": float_graph, "quantized": quantized}


@pytest.fixture(scope="module", params=GRAPHS)
def both(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, onnx.ModelProto, list[str]]:
    """A float32 graph, its float16 version, and the nodes that stayed."""
    model = GRAPHS[request.param]()
    half, kept = to_half(model, {})
    return model, half, kept


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {v.name: v.type.tensor_type.elem_type for v in values} | {t.name: t.data_type for t in graph.initializer}


def signature(model: onnx.ModelProto) -> list[tuple[str, int]]:
    return [(v.name, v.type.tensor_type.elem_type) for v in [*model.graph.input, *model.graph.output]]


def selectors(model: onnx.ModelProto) -> list[str]:
    """Tensors that choose the cells of the patches: the inputs of matrix products that follow from landmarks alone."""
    found, image = {"landmarks"}, {"image"}
    for node in model.graph.node:
        for reached in (found, image):
            if reached.intersection(node.input):
                reached.update(node.output)
    names = {name for node in model.graph.node if node.op_type == "MatMul" for name in node.input}
    return sorted(names & (found - image))


def near_half_cells(count: int = 6) -> Faces:
    """Faces whose landmarks are at, or a hundredth of a pixel from, the border between two cells of 8 pixels.

    float16 has steps of 1/8 pixel there and would round half of them to the other cell.
    """
    images, _ = random_faces(count, "uint8", seed=2)
    rng = np.random.default_rng(2)
    border = 4 + 8.0 * rng.integers(0, 28, (count, 5, 2))
    return images, (border + rng.choice([-0.01, 0, 0.01], border.shape)).astype(np.float32)


def test_boxes_do_not_move(both: tuple[onnx.ModelProto, onnx.ModelProto, list[str]]) -> None:
    model, half, _ = both
    names = selectors(model)
    assert len(names) == 1 + 4 + 5  # rows of all patches, columns of each patch
    inputs = near_half_cells()
    for expected, got in zip(run(model, inputs, False, names), run(half, inputs, False, names), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, expected)


def test_logits_are_close(both: tuple[onnx.ModelProto, onnx.ModelProto, list[str]]) -> None:
    """Closer by far than faces are to each other, with landmarks where a box is moved most easily."""
    model, half, _ = both
    inputs = near_half_cells()
    (expected,), (got,) = run(model, inputs, False), run(half, inputs, False)
    assert got.dtype == np.float32
    error = got - expected
    offset = error.mean(0)  # of all faces alike: rounding that went one way, of which a moved box is no cause
    assert 0 < abs(error - offset).max() < 0.5 * expected.std(0).max()
    assert abs(offset).max() < 0.02 * abs(expected).max()


def test_inputs_and_outputs_keep_their_types(both: tuple[onnx.ModelProto, onnx.ModelProto, list[str]]) -> None:
    model, half, _ = both
    assert signature(half) == signature(model)
    assert signature(half) == [("image", TensorProto.UINT8), ("landmarks", TensorProto.FLOAT), ("logits", TensorProto.FLOAT)]


def test_every_node_has_the_precision_that_is_said(both: tuple[onnx.ModelProto, onnx.ModelProto, list[str]]) -> None:
    model, half, kept = both
    types = element_types(half)
    mine = {node.name for node in model.graph.node}
    halves = 0
    for node in half.graph.node:
        if node.name not in mine or node.op_type in {"Cast", "QuantizeLinear", "DequantizeLinear"}:
            continue
        used = {types[name] for name in [*node.input, *node.output] if name}
        wrong = TensorProto.FLOAT16 if node.name in kept else TensorProto.FLOAT
        assert wrong not in used, node.name
        halves += TensorProto.FLOAT16 in used
    assert halves > 400


def test_only_landmarks_stay_in_a_graph_that_fits() -> None:
    _, kept = to_half(float_graph(), {})
    from_landmarks, image = {"landmarks"}, {"image"}
    for node in float_graph().graph.node:
        for reached in (from_landmarks, image):
            if reached.intersection(node.input):
                reached.update(node.output)
    nodes = {node.name: node for node in float_graph().graph.node}
    assert {node.name for node in nodes.values() if node.output[0] in from_landmarks - image} <= set(kept)
    assert not [name for name in kept if nodes[name].op_type in {"Relu", "Gemm", "Sigmoid"}]


@pytest.mark.parametrize(("largest", "stays"), [(LARGEST * 0.99, False), (LARGEST * 1.01, True)])
def test_nodes_of_a_large_tensor_stay(largest: float, stays: bool) -> None:
    index = GraphIndex(float_graph().graph)
    tensor = "/model/stages.1/join/conv/Conv_output_0"
    touching = {node.name for node in [index.producers[tensor], *index.readers(tensor)]}
    half, kept = to_half(float_graph(), {tensor: largest})
    assert set(kept) - set(to_half(float_graph(), {})[1]) == (touching if stays else set())
    types = element_types(half)
    assert types[tensor] == (TensorProto.FLOAT if stays else TensorProto.FLOAT16)
    if stays:
        (before,) = [n for n in half.graph.node if n.output[0] == index.producers[tensor].input[0] + "_to_single"]
        assert before.op_type == "Cast"
    (expected,), (got,) = run(float_graph(), faces()), run(half, faces())
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_a_layer_that_stays_keeps_its_int8_weight_in_float32() -> None:
    tensor = "/model/stages.1/join/conv/Conv_output_0"
    half, kept = to_half(quantized(), {tensor: 1e5})
    index = GraphIndex(half.graph)
    layer = index.producers[tensor]
    assert layer.name in kept
    assert index.array(index.producers[layer.input[1]].input[1]).dtype == np.float32
    np.testing.assert_allclose(run(half, faces(), False)[0], run(quantized(), faces(), False)[0], atol=1e-3)


def test_opset_is_raised_only_for_quantised_graphs() -> None:
    for model, version in ((float_graph(), 17), (quantized(), 19)):
        half, _ = to_half(model, {})
        assert [o.version for o in half.opset_import if o.domain == ""] == [version]


def test_scales_are_equal_in_float16() -> None:
    half, _ = to_half(quantized(), {})
    index, before = GraphIndex(half.graph), GraphIndex(quantized().graph)
    names = {node.name: node for node in quantized().graph.node}
    dequantised = {node.input[0]: node for node in quantized().graph.node if node.op_type == "DequantizeLinear"}
    activations = 0
    for node in half.graph.node:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        scale, exact = (
            index.array(node.input[1]),
            before.array(names.get(node.name, dequantised.get(node.input[0])).input[1]),
        )
        if scale.ndim == 0 and node.name in names:
            assert scale.dtype == np.float16
            activations += 1
        # Scales under the normal range of float16 have fewer digits than its values.
        normal = (exact >= 2.0**-14) | (scale.dtype == np.float32)
        np.testing.assert_array_equal(scale.astype(np.float32)[normal], exact[normal])
    assert activations == 2 * sum(node.op_type == "QuantizeLinear" for node in quantized().graph.node)


def test_no_cast_separates_a_layer_from_its_dequantised_input() -> None:
    half, kept = to_half(quantized(), {})
    index = GraphIndex(half.graph)
    layers = [node for node in half.graph.node if node.op_type == "Conv" and f"{node.input[1]}" in index.producers]
    assert any(layer.name in kept for layer in layers)  # the stem, whose weight scales are too small for float16
    for layer in layers:
        makers = [index.producers[name] for name in layer.input[:2]]
        assert makers[1].op_type == "DequantizeLinear"
        assert makers[0].op_type in {"DequantizeLinear", "MaxPool"}


def chain(constants: Mapping[str, float]) -> onnx.ModelProto:
    """image float32 [4] times each of the constants in turn -> logits; landmarks are not read."""
    graph = helper.make_graph([], "chain", [], [])
    for name in ("image", "landmarks"):
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]))
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [4]))
    last = "image"
    for i, (name, value) in enumerate(constants.items()):
        add_constant(graph, name, np.array([value], np.float32))
        output = "logits" if i + 1 == len(constants) else f"after_{name}"
        graph.node.append(helper.make_node("Mul", [last, name], [output], name=f"by_{name}"))
        last = output
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_constants_that_float16_does_not_hold_stay() -> None:
    half, kept = to_half(chain({"tiny": 3.3e-7, "third": 1 / 3, "huge": 1e6, "two": 2.0}), {})
    assert kept == ["by_tiny", "by_huge"]
    values = np.array([0, 1, -2, 1000], np.float32)
    (got,) = run(half, (values, values), optimise=False)
    np.testing.assert_allclose(got, values * 3.3e-7 / 3 * 1e6 * 2, rtol=3e-3)


def test_the_given_graph_is_not_changed() -> None:
    before = quantized().SerializeToString(deterministic=True)
    to_half(quantized(), {})
    assert quantized().SerializeToString(deterministic=True) == before


def test_bfloat16_moves_no_box_and_answers_alike() -> None:
    small, kept = to_bfloat16(float_graph())
    assert kept == to_half(float_graph(), {})[1]  # what computes on landmarks alone, and nothing else
    inputs, names, alike = near_half_cells(), selectors(float_graph()), in_float32(small)
    for expected, got in zip(run(float_graph(), inputs, False, names), run(alike, inputs, False, names), strict=True):
        np.testing.assert_array_equal(got, expected)
    (expected,), (got,) = run(float_graph(), inputs, False), run(alike, inputs, False)
    assert got.dtype == np.float32
    assert 0 < abs(got - expected).max() < 0.02 * abs(expected).max()


def test_every_other_node_computes_in_bfloat16() -> None:
    """Pixels become float32 first: TensorRT documents no cast of uint8 to bfloat16."""
    small, kept = to_bfloat16(float_graph())
    (pixels,) = (node for node in small.graph.node if node.op_type == "Cast" and node.input[0] == "image")
    assert pixels.attribute[0].i == TensorProto.FLOAT
    assert signature(small) == signature(float_graph())
    types = element_types(small)
    mine = {node.name for node in float_graph().graph.node} - {*kept}
    others = [node for node in small.graph.node if node.name in mine and node.op_type != "Cast"]
    floats = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
    assert len(others) > 400
    for node in others:
        used = {types[name] for name in [*node.input, *node.output] if name}
        assert used & floats <= {TensorProto.BFLOAT16}, node.name


def test_constants_are_rounded_to_the_nearest_bfloat16() -> None:
    """1 + 1/256 lies between 1 and 1 + 1/128: to even, down; a little more, up."""
    small, _ = to_bfloat16(chain({"even": 1 + 2**-8, "up": 1 + 2**-8 + 2**-20, "odd": 1 + 3 * 2**-8, "low": -3.0}))
    values = {t.name: np.frombuffer(t.raw_data, "<u2").astype(np.uint32) << 16 for t in small.graph.initializer}
    found = [float(bits.view(np.float32)[0]) for name, bits in values.items() if name.endswith("_bfloat16")]
    assert found == [1.0, 1 + 2**-7, 1 + 2**-6, -3.0]
