"""The graph for TensorRT-RTX: equal to the quantised one, and fused by the real builder as it is meant to be."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from small import faces, float_graph, quantized, run, sqnr

from ampnet_opt.convert.float16 import LARGEST, to_bfloat16, to_half
from ampnet_opt.convert.graph import GraphIndex
from ampnet_opt.convert.placement import expected_layers
from ampnet_opt.convert.quantize import quantize_weight
from ampnet_opt.convert.rtx import pairs_behind_pools, rtx_graph, scales_behind_convolutions
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.layers import CONVOLUTION, Layer, downgraded, summarise, untold
from ampnet_opt.runtime.sidecar import BatchRange
from ampnet_opt.runtime.tensorrt.compile import build_plan


def kernels(fused: bool) -> list[Layer]:
    """Of a real plan of the small network, with or without what `rtx_graph` does."""
    return both()[fused]


@cache
def both() -> list[list[Layer]]:
    """Built at once: the library has one logger for all builds, and each is to find its own list."""
    pytest.importorskip("tensorrt_rtx")
    graphs = [to_half(graph, {})[0].SerializeToString() for graph in (quantized(), rtx_graph(quantized()))]

    def layers(graph: bytes) -> list[Layer]:
        plan = build_plan("tensorrt-rtx", graph, "int8", CompileOptions(BatchRange(1, 1, 2), ("8.6",)))
        assert plan.layers is not None
        return plan.layers

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(layers, graphs))


def test_every_placed_layer_of_a_plan_is_int8() -> None:
    expected = expected_layers(quantized(), "int8")
    assert downgraded(kernels(True), "int8", expected) == {} and untold(kernels(True), expected) == []
    record = summarise(kernels(True), "int8", expected)
    assert record["as_asked"] == {"convolution": 93, "matrix product": 2}  # all of them


def test_what_is_computed_in_fp16_without_a_second_pair_is_found() -> None:
    expected = expected_layers(quantized(), "int8")
    found = downgraded(kernels(False), "int8", expected)
    assert found == {f"/model/stages.{i}/layers.0/conv_norm/conv/Conv": "fp16" for i in (1, 2)}


def test_int8_convolutions_write_float16() -> None:
    """A release that fuses more, or less, fails here: then look at docs/results/gpu.md and `convert.rtx` again."""
    for fused, wanted in ((True, {"fp16"}), (False, {"fp32"})):
        layers = [x for x in kernels(fused) if x.role == CONVOLUTION and x.precision == "int8"]
        assert {precision for layer in layers for precision, _ in layer.written} == wanted


def test_every_layer_of_a_bf16_plan_is_bf16() -> None:
    pytest.importorskip("tensorrt_rtx")
    graph, kept = to_bfloat16(float_graph())
    options = CompileOptions(BatchRange(1, 1, 2), ("8.0",))
    layers = build_plan("tensorrt-rtx", graph.SerializeToString(), "bf16", options).layers
    assert layers is not None
    wanted = {node: names for node, names in expected_layers(float_graph(), "bf16").items() if node not in kept}
    record = summarise(layers, "bf16", wanted)
    assert record["downgraded"] == {} and record["untold"] == [] and sum(record["as_asked"].values()) == len(wanted) > 200
    assert record["written"]["bf16"] > record["written"].get("fp32", 0)


def test_a_second_pair_changes_no_logit() -> None:
    model = onnx.ModelProto()
    model.CopyFrom(quantized())
    pairs_behind_pools(model.graph)
    assert len(model.graph.node) == len(quantized().graph.node) + 2 * 3  # a pair for each pool
    np.testing.assert_array_equal(run(model, faces(), False)[0], run(quantized(), faces(), False)[0])


def test_the_graph_is_as_close_to_the_float_network_as_the_quantised_one() -> None:
    (signal,), (before,) = run(float_graph(), faces(), False), run(to_half(quantized(), {})[0], faces(), False)
    (after,) = run(to_half(rtx_graph(quantized()), {})[0], faces(), False)
    assert sqnr(signal, after) > sqnr(signal, before) - 3
    (exact,) = run(rtx_graph(quantized()), faces(), False)
    assert (
        np.abs(exact - run(quantized(), faces(), False)[0]).max() < 0.02 * np.abs(exact).max()
    )  # steps that round otherwise


def convolution(weight: np.ndarray, activation_scale: float, bias: np.ndarray | None) -> onnx.ModelProto:
    """x float32 [1, inputs, 3, 3] -> pair -> INT8 convolution -> y."""
    values, scales = quantize_weight(weight)
    constants = {"s": np.float32(activation_scale), "z": np.int8(0), "w": values, "ws": scales}
    if bias is not None:
        constants["b"] = bias
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="Q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="DQ"),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], name="W", axis=0),
        helper.make_node("Conv", ["d", "wd", *(["b"] if bias is not None else [])], ["y"], name="conv"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, weight.shape[1], 3, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, len(weight), 1, 1])
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    exponents=st.lists(st.floats(-6, 1), min_size=1, max_size=5),
    activation=st.floats(1e-3, 4),
    biased=st.booleans(),
)
def test_one_scale_keeps_every_product_and_never_overflows(
    seed: int, exponents: list[float], activation: float, biased: bool
) -> None:
    import onnxruntime

    rng = np.random.default_rng(seed)
    channels = 10 ** np.array(exponents, np.float32)
    weight = (rng.normal(size=(len(channels), 4, 3, 3)) * channels.reshape(-1, 1, 1, 1)).astype(np.float32)
    bias = rng.normal(size=len(channels)).astype(np.float32) if biased else None
    model = convolution(weight, float(np.float16(activation)), bias)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    scales_behind_convolutions(changed.graph)
    onnx.checker.check_model(changed, full_check=True)

    index = GraphIndex(changed.graph)
    stored = index.array(next(node for node in changed.graph.node if node.name == "W").input[1])
    images = rng.normal(size=(1, 4, 3, 3)).astype(np.float32) * 200 * activation  # beyond the range of INT8

    def outputs(graph: onnx.ModelProto, *names: str) -> list[np.ndarray]:
        tapped = onnx.ModelProto()
        tapped.CopyFrom(graph)
        tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name != "y")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(tapped.SerializeToString(), options, ["CPUExecutionProvider"])
        return session.run(list(names), {"x": images})

    (expected,) = outputs(model, "y")
    if stored.ndim:  # float16 does not hold what would follow: it stays as it was
        np.testing.assert_array_equal(outputs(changed, "y")[0], expected)
        return
    got, sums = outputs(changed, "y", "conv_sums")
    size = np.abs(sums).max(axis=(0, 2, 3)) * index.array("conv_factors").ravel() + (0 if bias is None else np.abs(bias))
    assert (np.abs(got - expected).max(axis=(0, 2, 3)) <= 1e-4 * size + 1e-12).all()
    assert np.log2(stored) % 1 == 0 and np.abs(sums).max() <= LARGEST


def test_a_usual_convolution_gets_one_scale() -> None:
    model = convolution(np.random.default_rng(1).normal(size=(8, 4, 3, 3)).astype(np.float32) / 10, 0.02, None)
    scales_behind_convolutions(model.graph)
    assert [node.op_type for node in model.graph.node] == [
        "QuantizeLinear",
        "DequantizeLinear",
        "DequantizeLinear",
        "Conv",
        "Mul",
    ]
    changed = [node for node in rtx_graph(quantized()).graph.node if node.output[0].endswith("_sums")]
    assert len(changed) == 93
