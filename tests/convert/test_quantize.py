from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from small import amax, faces, float_graph, placement, quantized, run, scales, sqnr

from ampnet_opt.convert.export import random_faces
from ampnet_opt.convert.graph import GraphIndex
from ampnet_opt.convert.quantize import is_half_scale, quantize, quantize_weight
from ampnet_opt.core.errors import AmpnetError

weights = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=4, max_side=5),
    elements=st.one_of(st.floats(-1, 1, width=32), st.floats(-1e6, 1e6, width=32)),
)


@settings(max_examples=200, deadline=None)
@given(weights)
def test_weights_are_at_most_half_a_step_off(weight: np.ndarray) -> None:
    values, scale = quantize_weight(weight)
    assert values.dtype == np.int8 and scale.dtype == np.float32 and scale.shape == (len(weight),)
    assert (scale > 0).all() and np.isfinite(scale).all()
    assert abs(values.astype(int)).max() <= 127
    step = scale.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1))
    assert (abs(values * step - weight) <= step * 0.50001).all()
    # All of the range is used, but for channels so small that the others' rounding drowns them: the largest weight of a
    # channel is at one of the two ends.
    flat = abs(weight).reshape(len(weight), -1).max(1)
    ends = abs(values.astype(int)).reshape(len(weight), -1).max(1)
    assert (ends[flat > 127 * 2.0**-14] >= 126).all()


@settings(max_examples=200, deadline=None)
@given(weights, st.floats(-12, 2), st.integers(0, 4))
def test_small_weights_lose_little_and_their_scales_are_all_of_one_kind(weight: np.ndarray, power: float, dead: int) -> None:
    """Every scale of a layer is a normal float16, or every one is as exact as float32 has it."""
    weight = (weight * np.float32(10**power)).astype(np.float32)
    weight[dead % len(weight)] *= np.float32(1e-6)
    values, scale = quantize_weight(weight)
    exact = np.maximum(abs(weight).reshape(len(weight), -1).max(1) / 127, 1e-12)
    if not is_half_scale(scale[exact <= 65000]):
        np.testing.assert_allclose(scale, exact, rtol=1e-6)
    error = values * scale.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1)) - weight
    assert np.square(error).sum() <= 1.1 * weight[0].size * np.square(1.001 * exact).sum() / 4  # half a step everywhere


def test_a_channel_of_zeros_stays_zero() -> None:
    values, scale = quantize_weight(np.array([[0.0, 0.0], [1.0, -1.0]], np.float32))
    assert values.tolist() == [[0, 0], [127, -127]]
    assert is_half_scale(scale)
    values, scale = quantize_weight(np.zeros((3, 4), np.float32))
    assert not values.any() and is_half_scale(scale)


@pytest.mark.parametrize("size", [0.0, 1e-42, 1e-30, 1e-12, 1e-9, 1e-6, 1e-4])
def test_a_tiny_channel_beside_others_has_a_scale_that_float16_holds(size: float) -> None:
    weight = np.random.default_rng(0).normal(0, 0.05, (8, 16, 3, 3)).astype(np.float32)
    weight[3] *= size
    values, scale = quantize_weight(weight)
    assert is_half_scale(scale)
    assert abs(values[3] * scale[3] - weight[3]).max() <= 2.0**-15


def test_a_layer_of_small_weights_keeps_its_precision() -> None:
    """Weights of bytes / 255, say: scales under 6e-5 everywhere."""
    weight = np.random.default_rng(0).normal(0, 0.3 / 255, (8, 3, 7, 7)).astype(np.float32)
    weight[2] = 0
    values, scale = quantize_weight(weight)
    assert not is_half_scale(scale) and (scale >= np.finfo(np.float32).tiny).all()
    assert abs(values).reshape(8, -1).max(1).tolist() == [127, 127, 0, 127, 127, 127, 127, 127]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused_by_name(value: float) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(float_graph())
    index = GraphIndex(broken.graph)
    (layer,) = [node for node in broken.graph.node if node.name == placement().layers[3]]
    weight = index.array(layer.input[1]).copy()
    weight.flat[7] = value
    index.constants[layer.input[1]].CopyFrom(onnx.numpy_helper.from_array(weight, layer.input[1]))
    with pytest.raises(AmpnetError, match=f"layer {layer.name} cannot be quantised: a weight is NaN or infinite"):
        quantize(broken, placement(), scales())


def test_scales_are_float16_wherever_that_costs_little() -> None:
    weight = np.geomspace(1e-6, 1e3, 50, dtype=np.float32)[:, None]
    _, scale = quantize_weight(weight)
    exact = weight[:, 0] / np.float32(127)
    assert is_half_scale(scale)
    assert (scale >= exact * (1 - 1e-6)).all() and (scale <= np.maximum(exact * 1.001, 2.0**-14)).all()
    huge, normal = quantize_weight(np.array([[1e8], [1.0]], np.float32))[1]
    assert huge == np.float32(1e8) / np.float32(127) and is_half_scale(np.array([normal]))


def test_one_pair_per_placed_tensor_and_all_readers_behind_it() -> None:
    index = GraphIndex(quantized().graph)
    pairs = [node for node in quantized().graph.node if node.op_type == "QuantizeLinear"]
    assert sorted(node.input[0] for node in pairs) == sorted(placement().tensors)
    before = GraphIndex(float_graph().graph)
    for pair in pairs:
        assert index.readers(pair.input[0]) == [pair]
        (dequantise,) = index.readers(pair.output[0])
        assert dequantise.op_type == "DequantizeLinear" and list(dequantise.input[1:]) == list(pair.input[1:])
        readers = [(node.name, i) for node, i in index.consumers[dequantise.output[0]]]
        assert readers == [(node.name, i) for node, i in before.consumers[pair.input[0]]]


def test_scales_are_those_given_and_zero_points_are_zero() -> None:
    index = GraphIndex(quantized().graph)
    for node in quantized().graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            scale = index.array(node.input[1])
            assert scale.dtype == np.float32 and (scale > 0).all()
            if len(node.input) == 3:
                zero = index.array(node.input[2])
                assert zero.dtype == np.int8 and not zero.any()
        if node.op_type == "QuantizeLinear":
            assert index.array(node.input[1]) == np.float32(scales()[node.input[0]])


def test_layers_read_int8_weights_with_a_scale_per_channel() -> None:
    index, before = GraphIndex(quantized().graph), GraphIndex(float_graph().graph)
    names = {node.name: node for node in float_graph().graph.node}
    for node in quantized().graph.node:
        if node.op_type not in {"Conv", "Gemm"}:
            continue
        if node.name not in placement().layers:
            assert node.input[1] in index.constants
            continue
        dequantise = index.producers[node.input[1]]
        values, scale = (index.array(name) for name in dequantise.input[:2])
        weight = before.array(names[node.name].input[1])
        assert values.dtype == np.int8 and scale.shape == (len(weight),)
        assert onnx.helper.get_node_attr_value(dequantise, "axis") == 0
        column = scale.reshape(-1, *[1] * (weight.ndim - 1))
        assert (abs(values * column - weight) <= column * 0.50001).all(), node.name


def test_no_float_weight_of_a_layer_is_left() -> None:
    left = {tensor.name for tensor in quantized().graph.initializer}
    nodes = {node.name: node for node in float_graph().graph.node}
    assert not left & {nodes[name].input[1] for name in placement().layers}


def test_the_float_graph_is_not_changed() -> None:
    quantized()
    assert not any(re.search("(De)?[Qq]uantizeLinear", node.op_type) for node in float_graph().graph.node)


def test_logits_are_close_to_the_float_graphs() -> None:
    inputs = random_faces(4, "uint8", seed=11)
    (expected,), (got,) = run(float_graph(), inputs), run(quantized(), inputs)
    assert sqnr(expected, got) > 10
    # Logits of random weights are mostly bias; what is left without it is what depends on the face.
    assert sqnr(expected - expected.mean(0), got - expected.mean(0)) > 10


def test_tensors_are_within_half_a_step_on_the_faces_of_the_calibration() -> None:
    """With the ranges of these very faces nothing is clipped, so the input of the network is off by rounding only."""
    first = next(name for name in placement().tensors)
    wanted, got = run(quantized(), faces(), optimise=False, fetch=[first, f"{first}_dequantized"])
    assert abs(wanted).max() <= amax()[first] * 1.000001
    assert abs(wanted - got).max() <= scales()[first] * 0.50001
