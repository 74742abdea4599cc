"""The rewrites for the cpu backend: each gives the results of the graph that it started from."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper
from small import faces, float_graph, quantized, run, scales, sqnr

from ampnet_opt.convert.cpu_rewrites import gather_crops, join_gates
from ampnet_opt.convert.export import export, random_faces
from ampnet_opt.convert.graph import GraphIndex, in_order, static_shapes
from ampnet_opt.convert.openvino import cpu_graph, give_kernels, quantise_first, to_unsigned
from ampnet_opt.convert.placement import patch_source, place
from ampnet_opt.convert.quantize import quantize
from ampnet_opt.network.checkpoint import read_checkpoint, save_checkpoint
from ampnet_opt.network.model import AMPNet

PATCHES = 9


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def count(model: onnx.ModelProto, op_type: str) -> int:
    return sum(node.op_type == op_type for node in model.graph.node)


def start(precision: str) -> onnx.ModelProto:
    return to_unsigned(quantized()) if precision == "int8" else copied(float_graph())


@cache
def with_cells(precision: str) -> onnx.ModelProto:
    model = start(precision)
    gather_crops(model.graph)
    del model.graph.value_info[:]
    return model


@cache
def patches(precision: str) -> list[str]:
    """The tensors that the branches read; the same in both graphs."""
    index = GraphIndex(start(precision).graph)
    cut = [name for name in index.producers if patch_source(name, index)]
    if precision == "fp32":
        return cut
    return [index.readers(index.readers(name)[0].output[0])[0].output[0] for name in cut]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@settings(max_examples=25, deadline=None)
@given(
    landmarks=arrays(np.float32, (2, 5, 2), elements=st.floats(-50, 300, width=32)),
    corner=st.sampled_from([None, 0.0, 224.0, 112.0]),
)
def test_patches_of_any_landmarks_are_equal(precision: str, landmarks: np.ndarray, corner: float | None) -> None:
    if corner is not None:
        landmarks[0] = corner
    inputs = (faces()[0][:2], landmarks)
    assert len(patches(precision)) == PATCHES
    for want, got in zip(*(run(model, inputs, False, patches(precision)) for model in models(precision)), strict=True):
        np.testing.assert_array_equal(got, want)


@cache
def models(precision: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    return start(precision), with_cells(precision)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_one_selection_of_cells_replaces_all_products(precision: str) -> None:
    assert count(start(precision), "MatMul") == PATCHES + 1
    assert count(with_cells(precision), "MatMul") == 0
    assert count(with_cells(precision), "GatherND") == 1


def test_patches_lose_the_pairs_that_changed_nothing() -> None:
    gone = count(start("int8"), "QuantizeLinear") - count(with_cells("int8"), "QuantizeLinear")
    assert gone == PATCHES
    index = GraphIndex(with_cells("int8").graph)
    cells = index.producers["crop/gathered"]
    while cells.op_type != "QuantizeLinear":  # cells are bytes from the map to the patches
        assert cells.op_type in {"GatherND", "Pad", "Reshape", "Transpose"}
        cells = index.producers[cells.input[0]]


def test_a_branch_in_floating_point_gets_the_same_patch() -> None:
    """What a search leaves in floating point reads the quantised map through a pair of its own, or through none."""
    kept = [
        node.name for node in float_graph().graph.node if node.name.startswith("/model/local.1/") and node.op_type == "Conv"
    ]
    mixed = quantize(float_graph(), place(float_graph(), kept), scales())
    want, got = (run(model, faces(), False)[0] for model in (mixed, cpu_graph(mixed, "int8")))
    assert sqnr(want, got) > 60


def test_other_graphs_stay_as_they_are() -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"], name="c"), helper.make_node("GlobalMaxPool", ["c"], ["d"], name="d")],
        "other",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, "H", 4]) for name in "ab"],
        [helper.make_tensor_value_info("d", TensorProto.FLOAT, ["N", 3, 1, 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    before = model.SerializeToString(deterministic=True)
    gather_crops(model.graph)
    join_gates(model.graph, model.opset_import)
    give_kernels(model.graph, model.opset_import)
    quantise_first(model.graph)
    assert model.SerializeToString(deterministic=True) == before


def joined(model: onnx.ModelProto) -> onnx.ModelProto:
    model = copied(model)
    join_gates(model.graph, model.opset_import)
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize("batch", [1, 3])
def test_joined_gates_give_the_same_logits(batch: int) -> None:
    inputs = random_faces(batch, "uint8", seed=11)
    want, got = (run(model, inputs, False)[0] for model in (float_graph(), joined(with_cells("fp32"))))
    np.testing.assert_allclose(got, want, atol=2e-6, rtol=0)


def test_gates_of_one_depth_and_shape_are_joined() -> None:
    """Four blocks one after another in the four local branches, of 7 x 7 cells; two in the five others, of 5 x 5."""
    model = joined(with_cells("fp32"))
    assert (count(float_graph(), "GlobalMaxPool"), count(model, "GlobalMaxPool")) == (4 * 4 + 5 * 2, 4 + 2)
    joins = [node for node in model.graph.node if node.name.endswith("/joined")]
    assert sorted(len(node.input) for node in joins) == [4, 4, 4, 4, 5, 5]
    for node in joins:
        blocks = {name.split("/")[3].split(".", 2)[2] for name in node.input}  # "/model/local.0/local.0.2/..." -> "2"
        assert len(blocks) == 1


def test_all_nine_branches_are_joined_where_their_patches_are_of_one_size(tmp_path: Path) -> None:
    torch.manual_seed(3)
    save_checkpoint(tmp_path / "c.safetensors", AMPNet(2, 0.125, patch_radius=7).eval(), ("a", "b"), trained=False)
    model = export(read_checkpoint(tmp_path / "c.safetensors"), "uint8")
    changed = cpu_graph(model, "fp32")
    joins = [len(node.input) for node in changed.graph.node if node.name.endswith("/joined")]
    assert sorted(joins) == [4, 4, 9, 9]
    want, got = (run(graph, faces(), False)[0] for graph in (model, changed))
    np.testing.assert_allclose(got, want, atol=2e-6, rtol=0)


def test_a_gate_with_weights_of_its_own_type_of_pooling_is_left_alone() -> None:
    """Where the layer behind the maxima is not that behind the means, there is no shared layer to join."""
    model = copied(with_cells("fp32"))
    index = GraphIndex(model.graph)
    peak = next(node for node in model.graph.node if node.op_type == "GlobalMaxPool")
    layer = index.readers(peak.output[0])[0]
    other = model.graph.initializer.add()
    other.CopyFrom(index.constants[layer.input[1]])
    other.name = layer.input[1] = "another weight"
    changed = joined(model)
    assert layer.name in {node.name for node in changed.graph.node}
    assert 6 < count(changed, "GlobalMaxPool") < count(model, "GlobalMaxPool")
    np.testing.assert_allclose(run(changed, faces(), False)[0], run(model, faces(), False)[0], atol=2e-6, rtol=0)


def test_pools_have_kernels_of_the_maps_that_they_pool() -> None:
    model = cpu_graph(float_graph(), "fp32")
    assert not {"GlobalAveragePool", "GlobalMaxPool"} & {node.op_type for node in model.graph.node}
    sides = {
        tuple(helper.get_attribute_value(node.attribute[0])) for node in model.graph.node if node.op_type == "AveragePool"
    }
    assert sides == {(28, 28), (14, 14), (7, 7), (5, 5)}


def test_the_image_is_quantised_before_it_is_moved() -> None:
    def before_the_stem(model: onnx.ModelProto) -> list[str]:
        index = GraphIndex(model.graph)
        node = index.producers[index.readers("image")[0].output[0]]
        kinds = [node.op_type]
        while kinds[-1] != "Conv":
            node = index.readers(node.output[0])[0]
            kinds.append(node.op_type)
        return kinds

    moved = copied(start("int8"))
    quantise_first(moved.graph)
    assert before_the_stem(start("int8"))[:4] == ["Cast", "Transpose", "Clip", "QuantizeLinear"]
    assert before_the_stem(moved) == ["Cast", "Clip", "QuantizeLinear", "DequantizeLinear", "Transpose", "Conv"]
    want, got = (run(model, faces(), False)[0] for model in (start("int8"), moved))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_all_steps_together_give_the_same_logits(precision: str) -> None:
    model = quantized() if precision == "int8" else float_graph()
    before = model.SerializeToString(deterministic=True)
    want, got = (run(graph, faces(), False)[0] for graph in (model, cpu_graph(model, precision)))
    assert sqnr(want, got) > 60
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_shapes_are_known_without_the_content_of_weights(precision: str) -> None:
    model = start(precision)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = static_shapes(model.graph, model.opset_import)
    computed = {name for node in model.graph.node for name in node.output}
    assert len(computed) > 100
    for value in inferred.value_info:
        sides = tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)
        assert value.name not in computed or shapes[value.name] == sides, value.name


def test_shapes_follow_from_small_constants_of_any_type() -> None:
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1.0, 1.0, 2.0, 3.0])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name, sides in (("x", [1, 3, 4, 5]), ("y", None))
    ]
    graph = helper.make_graph([helper.make_node("Resize", ["x", "", "scales"], ["y"])], "g", [ends[0]], [ends[1]], [scales])
    assert static_shapes(graph, [helper.make_opsetid("", 17)])["y"] == (1, 3, 8, 15)


def test_nodes_are_put_in_an_order_of_execution() -> None:
    nodes = list(reversed(float_graph().graph.node))
    made = {value.name for value in float_graph().graph.input} | {t.name for t in float_graph().graph.initializer} | {""}
    for node in in_order(nodes):
        assert made.issuperset(node.input)
        made.update(node.output)
