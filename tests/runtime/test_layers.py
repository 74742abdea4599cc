"""The layers that a backend lists, against what the graph asks for: OpenVINO's for real, TensorRT's as documented."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sidecars import SIDECAR
from small import float_graph, placement, quantized

from ampnet_opt.convert import openvino as convert_cpu
from ampnet_opt.convert.graph import GraphIndex
from ampnet_opt.convert.placement import expected_layers
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.layers import (
    CONVOLUTION,
    OTHER,
    PRODUCT,
    QUANTISATION,
    REFORMAT,
    Layer,
    downgraded,
    list_layers,
    sentence,
    summarise,
    untold,
)
from ampnet_opt.runtime.openvino.backend import CAPABILITY, capabilities
from ampnet_opt.runtime.sidecar import BatchRange
from ampnet_opt.runtime.tensorrt.layers import layers_of as trt_layers


def record_of(model: onnx.ModelProto, precision: str, expected: dict[str, list[str]]) -> dict[str, Any]:
    """The record of a real cpu engine of `model`."""
    pytest.importorskip("openvino")
    sidecar = replace(SIDECAR, backend="cpu", precision=precision)
    with TemporaryDirectory() as folder:
        convert_cpu.write_ir(model, precision, Path(folder))
        return list_layers(Path(folder), sidecar, expected)


@cache
def int8_record() -> dict[str, Any]:
    return record_of(quantized(), "int8", expected_layers(quantized(), "int8"))


def test_the_graph_asks_for_the_layers_that_were_placed() -> None:
    assert list(expected_layers(quantized(), "int8")) == placement().layers
    products = [node.name for node in float_graph().graph.node if node.op_type in {"Conv", "Gemm"}]
    assert list(expected_layers(float_graph(), "fp32")) == products
    assert len(placement().layers) < len(products)


def test_every_placed_layer_runs_in_int8_in_openvinos_own_list() -> None:
    record = int8_record()
    assert record["downgraded"] == {}
    assert record["untold"] == []
    assert sum(record["as_asked"].values()) == len(placement().layers)
    names = [(name, precision) for kind, precision, _, name in record["list"] if kind in {"Convolution", "FullyConnected"}]
    for layer in placement().layers:
        assert [precision for name, precision in names if name.startswith(f"{layer}/")] == ["int8"]


def test_the_size_of_the_weights_is_that_of_the_graphs() -> None:
    index = GraphIndex(float_graph().graph)
    products = [node for node in float_graph().graph.node if node.op_type in {"Conv", "Gemm"}]
    elements = {node.name: int(onnx.numpy_helper.to_array(index.constants[node.input[1]]).size) for node in products}
    sizes = {"int8": 0, "fp32": 0}
    for _, precision, size, _ in int8_record()["list"]:
        sizes[precision] += size or 0
    placed = sum(elements[name] for name in placement().layers)
    assert sizes == {"int8": placed, "fp32": 4 * (sum(elements.values()) - placed)}


@pytest.mark.parametrize("lost", ["activations", "weights"])
def test_a_convolution_that_lost_its_pair_is_found(lost: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(quantized())
    index = GraphIndex(model.graph)
    name = placement().layers[5]
    node = next(node for node in model.graph.node if node.name == name)
    if lost == "activations":
        node.input[0] = index.producers[index.producers[node.input[0]].input[0]].input[0]
    else:
        scaled = index.producers[node.input[1]]
        values = index.array(scaled.input[0]) * index.array(scaled.input[1]).reshape(-1, 1, 1, 1)
        node.input[1] = f"{name}.float"
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype("float32"), node.input[1]))
    record = record_of(model, "int8", expected_layers(quantized(), "int8"))
    assert record["downgraded"] == {name: "fp32"}
    assert sum(record["as_asked"].values()) == len(placement().layers) - 1
    assert "1 downgraded" in sentence(record)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_float_engine_computes_all_weights_in_its_precision(precision: str) -> None:
    pytest.importorskip("openvino")
    if CAPABILITY[precision] not in capabilities():
        pytest.skip(f"this processor does not compute in {precision}")
    expected = expected_layers(convert_cpu.cpu_graph(float_graph(), precision), precision)
    record = record_of(float_graph(), precision, expected)
    assert (record["downgraded"], record["untold"], record["by_design"]) == ({}, [], {})
    assert sum(record["as_asked"].values()) == len(expected)


def test_the_list_of_a_full_size_engine_stays_small() -> None:
    """As many layers as a full-size engine, since width changes none of them."""
    assert len(json.dumps(int8_record())) < 100_000
    assert len(int8_record()["list"]) > 300


def test_a_plan_that_cannot_be_opened_is_said_in_words(tmp_path: Path) -> None:
    with suppress(AmpnetError):
        pytest.skip(f"there is a GPU here: {cuda.gpu().name}")
    version = pytest.importorskip("tensorrt_rtx").__version__
    record = list_layers(tmp_path, replace(SIDECAR, backend_version=version), {"conv": []})
    assert list(record) == ["not_listed"]
    assert sentence(record).startswith("layers not listed: only a machine that can run the engine can open it: no CUDA GPU")


def test_the_library_has_what_the_inspection_uses() -> None:
    library = pytest.importorskip("tensorrt_rtx")
    assert hasattr(library.ICudaEngine, "create_engine_inspector")
    assert hasattr(library.EngineInspector, "execution_context")
    assert hasattr(library.EngineInspector, "get_engine_information")
    assert hasattr(library.IExecutionContext, "set_input_shape")
    assert library.LayerInformationFormat.JSON


# Entries as the developer guide and trex show them for an engine of a residual block in INT8; 8.5 has no Metadata.
def tensor(name: str, words: str) -> dict[str, Any]:
    return {"Name": name, "Location": "Device", "Dimensions": [1, 64, 56, 56], "Format/Datatype": words}


INT8 = "Thirty-two wide channel vectorized row major Int8 format"
QUANTIZE = {
    "Name": "QuantizeLinear_2",
    "LayerType": "Reformat",
    "Inputs": [tensor("input", "Row major linear FP32")],
    "Outputs": [tensor("quantized", INT8)],
    "ParameterType": "Reformat",
    "Origin": "QDQ",
    "TacticValue": "0x0000000000000000",
}
CONV = {
    "Name": "layer1.conv1.weight + QuantizeLinear_7 + Conv_9 + Relu_10",
    "LayerType": "CaskConvolution",
    "Inputs": [tensor("quantized", INT8)],
    "Outputs": [tensor("relu", INT8)],
    "ParameterType": "Convolution",
    "Kernel": [3, 3],
    "OutMaps": 64,
    "Groups": 1,
    "Weights": {"Type": "Int8", "Count": 36864},
    "Bias": {"Type": "Float", "Count": 64},
    "Activation": "RELU",
    "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32",
}
HALF_CONV = {
    **CONV,
    "Name": "Conv_12 || Conv_14",
    "Inputs": [tensor("relu", "Channel major FP16 format where channel % 8 == 0")],
    "Weights": {"Type": "Half", "Count": 100},
    "Bias": {"Type": "Half", "Count": 0},
}
COPY = {**QUANTIZE, "Name": "Reformatting CopyNode for Output Tensor 0 to MaxPool_12", "Origin": "REFORMAT"}
POOL = {
    "Name": "MaxPool_12",
    "LayerType": "TiledPooling",
    "Inputs": [tensor("relu", INT8)],
    "Outputs": [tensor("pooled", INT8)],
    "ParameterType": "Pooling",
}
FOREIGN = {"Name": "{ForeignNode[/fc/Gemm...Softmax_3]}", "LayerType": "Myelin", "Inputs": [], "Outputs": []}


def text_of(*entries: Any, **fields: Any) -> str:
    return json.dumps({"Layers": entries, "Bindings": ["input", "output"], **fields})


def test_the_list_of_tensorrt_8() -> None:
    layers = trt_layers(text_of(QUANTIZE, CONV, HALF_CONV, COPY, POOL, FOREIGN))
    assert [layer.role for layer in layers] == [QUANTISATION, CONVOLUTION, CONVOLUTION, REFORMAT, OTHER, OTHER]
    assert [layer.precision for layer in layers] == ["fp32", "int8", "fp16", "fp32", "int8", ""]
    assert [layer.bytes for layer in layers] == [None, 36864 + 4 * 64, 200, None, None, None]
    expected = dict.fromkeys(["Conv_9", "Conv_12", "Conv_14", "/fc/Gemm"], ())
    assert downgraded(layers, "int8", expected) == {"Conv_12": "fp16", "Conv_14": "fp16"}
    assert untold(layers, expected) == ["/fc/Gemm"]
    assert sentence(summarise(layers, "int8", expected)) == (
        "1 convolution in INT8, 2 downgraded, 1 of unlisted precision, 1 reformat"
    )


def test_what_is_in_floating_point_by_design_is_no_downgrade() -> None:
    record = summarise(trt_layers(text_of(CONV, HALF_CONV)), "int8", {"Conv_9": ()})
    assert record["downgraded"] == {}
    assert sentence(record) == "1 convolution in INT8, 1 layer in FP16 by design, 0 downgraded, 0 reformats"


@pytest.mark.parametrize("separator", ["\x1e", "\x1f"])
def test_metadata_names_the_nodes_from_8_6_on(separator: str) -> None:
    """Layers of a fusing compiler have names of their own; the separators may stand there unescaped."""
    nodes = "[ONNX Layer: /fc/Gemm]@[ONNX Layer: /fc/Relu]"
    gemm = {
        "Name": "/fc/Gemm_myl0_3",
        "LayerType": "gemm",
        "Inputs": [tensor("a", "Int8")],
        "Outputs": [tensor("b", "Half")],
        "TacticName": "sm80_xmma_gemm_i8f16_i8i32_f32",
        "StreamId": 0,
        "Metadata": nodes,
    }
    moved = {**gemm, "Name": "__myl_MoveConc_myl0_2", "LayerType": "kgen", "Inputs": [tensor("a", "Half")]}
    waiting = {"Name": "Wait on: 1", "LayerType": "wait", "Inputs": [], "Outputs": [], "Metadata": ""}
    text = text_of(moved, gemm, waiting).replace("@", separator)
    layers = trt_layers(text)
    assert [(layer.role, layer.precision) for layer in layers] == [(OTHER, "fp16"), (PRODUCT, "int8")]
    assert layers[1].sources == ("/fc/Gemm", "/fc/Relu")
    assert downgraded(layers, "int8", {"/fc/Gemm": ()}) == {}
    assert downgraded(layers[:1], "int8", {"/fc/Gemm": ()}) == {"/fc/Gemm": "fp16"}


def test_a_layer_that_only_moves_or_rounds_is_no_proof() -> None:
    node = "[ONNX Layer: /conv/Conv]"
    conv = {**HALF_CONV, "Name": "fused", "Metadata": node}
    moved = {"Name": "__myl_Move", "LayerType": "kgen", "Inputs": [tensor("a", "Int8")], "Outputs": [], "Metadata": node}
    rounded = {**QUANTIZE, "Inputs": [tensor("a", "Int8")], "Metadata": node}
    assert downgraded(trt_layers(text_of(moved, conv, rounded)), "int8", {"/conv/Conv": ()}) == {"/conv/Conv": "fp16"}
    assert untold(trt_layers(text_of(rounded)), {"/conv/Conv": ()}) == ["/conv/Conv"]


def test_tensorrt_11_lists_tensors_where_it_listed_bindings() -> None:
    inputs = [{"Name": "input", "IOMode": "Input", "DataType": "Float", "Dimensions": [1, 3, 224, 224]}]
    entry = {**CONV, "Metadata": "[ONNX Layer: /conv/Conv]"}
    layers = trt_layers(json.dumps({"Layers": [entry], "I/O Tensors": inputs}))
    assert [(layer.precision, layer.sources) for layer in layers] == [("int8", ("/conv/Conv",))]


def test_a_dynamic_batch_hides_types_but_not_those_of_weights() -> None:
    unknown = "N/A due to dynamic shapes"
    conv, pool = {**CONV, "Inputs": [tensor("a", unknown)]}, {**POOL, "Inputs": [tensor("a", unknown)]}
    assert [layer.precision for layer in trt_layers(text_of(conv, pool))] == ["int8", ""]


def test_weights_only_stored_in_int8_are_a_downgrade() -> None:
    conv = {**CONV, "Inputs": [tensor("a", "Half")]}
    assert downgraded(trt_layers(text_of(conv)), "int8", {"Conv_9": ()}) == {"Conv_9": "fp16"}


def test_a_list_of_names_tells_nothing_of_precision() -> None:
    layers = trt_layers(json.dumps({"Layers": ["weight + Conv_9 + Relu_10", "MaxPool_12"], "Bindings": []}))
    assert untold(layers, {"Conv_9": ()}) == ["Conv_9"]
    assert "1 of unlisted precision" in sentence(summarise(layers, "int8", {"Conv_9": ()}))


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"Layers": 3}', '{"Layers": [3]}', '{"Layers": [{"Name": "a"}]}'])
def test_a_list_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(AmpnetError, match="of no form that is known") as caught:
        trt_layers(text)
    assert "\n" not in str(caught.value)


NAMES = st.sampled_from(["/a/Conv", "/b/Conv", "/c/Gemm", "/d/Conv"])
LAYERS = st.builds(
    Layer,
    name=st.just("layer"),
    kind=st.just("kind"),
    role=st.sampled_from([CONVOLUTION, PRODUCT, REFORMAT, QUANTISATION, OTHER]),
    precision=st.sampled_from(["int8", "fp16", "fp32", ""]),
    bytes=st.none() | st.integers(1, 9),
    sources=st.lists(NAMES | NAMES.map("{}/WithoutBiases".format), max_size=3).map(tuple),
)


@given(st.lists(LAYERS, max_size=8), st.sets(NAMES))
def test_every_asked_layer_is_counted_once(layers: list[Layer], names: set[str]) -> None:
    record = summarise(layers, "int8", dict.fromkeys(sorted(names), ()))
    assert sum(record["as_asked"].values()) + len(record["downgraded"]) + len(record["untold"]) == len(names)
    assert not {*record["downgraded"]} & {*record["untold"]}
    assert set(record["downgraded"].values()) <= {"fp16", "fp32"}
    assert record == json.loads(json.dumps(record))
    assert "\n" not in sentence(record)


def test_the_list_is_of_the_batch_that_the_engine_is_tuned_for(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    convert_cpu.write_ir(float_graph(), "fp32", tmp_path)
    sidecar = replace(SIDECAR, backend="cpu")
    one, several = (list_layers(tmp_path, replace(sidecar, batch=BatchRange(1, opt, 4)), {}) for opt in (1, 4))
    assert several["list"] != one["list"]  # a fixed shape is compiled to other layers than a dynamic one
