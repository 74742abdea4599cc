from __future__ import annotations

import re

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from small import amax, faces, float_graph, placement, quantized, run, scales, sqnr

from ampnet_opt.convert.export import random_faces
from ampnet_opt.convert.graph import GraphIndex
from ampnet_opt.convert.quantize import quantize_weight

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
    # All of the range is used: the largest weight of a channel is at one of the two ends.
    flat = abs(weight).reshape(len(weight), -1).max(1)
    ends = abs(values.astype(int)).reshape(len(weight), -1).max(1)
    assert (ends[flat > 1e-9] >= 126).all()


def test_a_channel_of_zeros_stays_zero() -> None:
    values, scale = quantize_weight(np.array([[0.0, 0.0], [1.0, -1.0]], np.float32))
    assert values.tolist() == [[0, 0], [127, -127]]
    assert scale[0] > 0


def test_scales_fit_float16_where_that_costs_less_than_a_thousandth() -> None:
    weight = np.geomspace(1e-6, 1e3, 50, dtype=np.float32)[:, None]
    _, scale = quantize_weight(weight)
    exact = weight[:, 0] / np.float32(127)
    held = scale.astype(np.float16).astype(np.float32) == scale
    assert held[exact > 2.0**-14].all()
    assert (scale >= exact * (1 - 1e-6)).all() and (scale <= exact * 1.001).all()


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
