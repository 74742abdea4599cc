"""The check of Q/DQ graphs: our graphs pass it, and each rule sees its own breach."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from small import float_graph, placement, quantized, scales

from ampnet_opt.convert.graph import GraphIndex
from ampnet_opt.convert.placement import Placement, place
from ampnet_opt.convert.qdq_rules import violations
from ampnet_opt.convert.quantize import quantize


def test_the_whole_network_in_int8_breaks_no_rule() -> None:
    assert violations(quantized()) == []


@pytest.mark.parametrize("kept", ["stem", "trunk.0.0/first", "trunk.1.0", "local.2", "join", "layers.1", "_fc", "attention"])
def test_no_choice_of_float_layers_breaks_a_rule(kept: str) -> None:
    layers = [name for name in placement().layers if kept in name]
    assert layers
    assert violations(quantize(float_graph(), place(float_graph(), layers), scales())) == []


def test_a_single_layer_in_int8_breaks_no_rule() -> None:
    for name in placement().layers:
        alone = place(float_graph(), set(placement().layers) - {name})
        assert violations(quantize(float_graph(), alone, scales())) == [], name


def broken(change: Callable[[onnx.GraphProto, GraphIndex], None]) -> list[str]:
    model = onnx.ModelProto()
    model.CopyFrom(quantized())
    change(model.graph, GraphIndex(model.graph))
    return violations(model)


def first(graph: onnx.GraphProto, kind: str, name: str = "") -> onnx.NodeProto:
    return next(node for node in graph.node if node.op_type == kind and name in node.name)


def set_constant(graph: onnx.GraphProto, name: str, value: np.ndarray) -> None:
    (tensor,) = (tensor for tensor in graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def test_a_zero_point() -> None:
    def change(graph: onnx.GraphProto, index: GraphIndex) -> None:
        set_constant(graph, "zero_point", np.int8(3).reshape(()))

    assert any("zero point that is not 0" in sentence for sentence in broken(change))


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_a_scale_that_is_none(scale: float) -> None:
    def change(graph: onnx.GraphProto, index: GraphIndex) -> None:
        set_constant(graph, first(graph, "QuantizeLinear").input[1], np.float32(scale).reshape(()))

    assert any("no finite number over 0" in sentence for sentence in broken(change))


def test_one_scale_for_a_whole_weight() -> None:
    def change(graph: onnx.GraphProto, index: GraphIndex) -> None:
        weight = index.producers[first(graph, "Conv", "trunk").input[1]]
        set_constant(graph, weight.input[1], np.float32(0.1).reshape(()))

    assert any("no scale for each output channel" in sentence for sentence in broken(change))


def test_a_float_activation_of_an_int8_layer() -> None:
    def change(graph: onnx.GraphProto, index: GraphIndex) -> None:
        layer = first(graph, "Conv", "trunk.0.0/second")
        pair = index.producers[index.producers[layer.input[0]].input[0]]
        layer.input[0] = pair.input[0]

    found = broken(change)
    assert any("reads a float activation" in sentence for sentence in found)
    assert any("serves no INT8 layer" in sentence for sentence in found)


@pytest.mark.parametrize(
    "shortcut",
    ["/model/trunk/trunk.1/trunk.1.0/shortcut/conv/Conv_output_0", "/model/trunk/trunk.0/trunk.0.0/Relu_1_output_0"],
)
def test_a_float_shortcut(shortcut: str) -> None:
    without = Placement(dict(placement().tensors), list(placement().layers))
    del without.tensors[shortcut]
    assert any("adds a float tensor" in sentence for sentence in violations(quantize(float_graph(), without, scales())))


def test_inputs_of_a_concatenation_with_scales_of_their_own() -> None:
    def change(graph: onnx.GraphProto, index: GraphIndex) -> None:
        join = first(graph, "Concat", "stages.0")
        scale = index.producers[join.input[1]].input[1]
        set_constant(graph, scale, index.array(scale) * np.float32(2))

    assert any("different scales" in sentence for sentence in broken(change))


def test_a_concatenation_whose_result_is_float() -> None:
    def change(graph: onnx.GraphProto, index: GraphIndex) -> None:
        join = first(graph, "Concat", "stages.0")
        pair = next(r for r in index.readers(join.output[0]) if r.op_type == "QuantizeLinear")
        scale = pair.input[1]
        set_constant(graph, scale, index.array(scale) * np.float32(2))

    assert any("its result has not their scale" in sentence for sentence in broken(change))


def test_two_pairs_for_one_tensor() -> None:
    def change(graph: onnx.GraphProto, index: GraphIndex) -> None:
        pair = first(graph, "QuantizeLinear", "trunk")
        again = helper.make_node("QuantizeLinear", list(pair.input), ["again"], name="again")
        graph.node.append(again)

    assert any("quantised more than once" in sentence for sentence in broken(change))


def test_a_pair_behind_a_pair() -> None:
    def change(graph: onnx.GraphProto, index: GraphIndex) -> None:
        first(graph, "QuantizeLinear", "trunk.0.1").input[0] = first(graph, "DequantizeLinear", "trunk.0.0").output[0]

    assert any("INT8 already" in sentence for sentence in broken(change))
