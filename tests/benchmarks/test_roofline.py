"""Multiply-accumulates counted by hand, the floor's formula, and the probe that peaks are measured with."""

from __future__ import annotations

import itertools
from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest
import small
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ampnet_opt.benchmarks import roofline_peaks
from ampnet_opt.benchmarks.roofline import floor_of, main
from ampnet_opt.benchmarks.roofline_count import Work, count_work
from ampnet_opt.benchmarks.roofline_peaks import Peaks
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.network.model import AMPNet


def graph_of(node: onnx.NodeProto, data: dict[str, list[int]], constants: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    """`node` alone, from inputs of these shapes to a `y` of unknown one."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape[1:]]) for name, shape in data.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    held = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in constants.items()]
    graph = helper.make_graph([node], "one", inputs, [output], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@settings(max_examples=60)
@given(
    batch=st.integers(1, 3),
    group=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    sides=st.tuples(st.integers(3, 7), st.integers(3, 7)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    pad=st.integers(0, 1),
    bias=st.booleans(),
)
def test_a_convolution_is_counted_as_by_hand(
    batch: int,
    group: int,
    channels: tuple[int, int],
    sides: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    pad: int,
    bias: bool,
) -> None:
    inside, outside = (group * count for count in channels)
    weights = (outside, inside // group, *kernel)
    constants: dict[str, tuple[int, ...]] = {"w": weights, **({"b": (outside,)} if bias else {})}
    node = helper.make_node("Conv", ["x", *constants], ["y"], "conv", group=group, strides=[stride] * 2, pads=[pad] * 4)
    (found,) = count_work(graph_of(node, {"x": [batch, inside, *sides]}, constants), batch)
    # One by one: every output element adds up a product for each input channel of its group and each kernel element.
    rows, columns = (range(0, side + 2 * pad - size + 1, stride) for side, size in zip(sides, kernel, strict=True))
    outputs = list(itertools.product(range(batch), range(outside), rows, columns))
    terms = list(itertools.product(range(inside // group), range(kernel[0]), range(kernel[1])))
    assert found.macs == sum(1 for _ in itertools.product(outputs, terms))
    assert found.weights == prod(weights) + bias * outside
    assert found.activations == batch * inside * prod(sides) + len(outputs)


@given(batch=st.integers(1, 4), inner=st.integers(1, 9), columns=st.integers(1, 9), transposed=st.booleans())
def test_a_fully_connected_layer_is_counted_as_by_hand(batch: int, inner: int, columns: int, transposed: bool) -> None:
    shape = (columns, inner) if transposed else (inner, columns)
    node = helper.make_node("Gemm", ["x", "w"], ["y"], "fc", transB=int(transposed))
    found = count_work(graph_of(node, {"x": [batch, inner]}, {"w": shape}), batch)
    assert found == [Work("fc", batch * inner * columns, inner * columns, batch * (inner + columns))]


def test_a_product_of_two_activations_has_no_weights() -> None:
    node = helper.make_node("MatMul", ["a", "b"], ["y"], "crop")
    found = count_work(graph_of(node, {"a": [2, 3, 4], "b": [2, 4, 5]}, {}), 2)
    assert found == [Work("crop", 2 * 3 * 4 * 5, 0, 2 * (3 * 4 + 4 * 5 + 3 * 5))]


def test_a_shape_that_is_not_known_is_said() -> None:
    graph = graph_of(helper.make_node("MatMul", ["a", "b"], ["y"], "crop"), {"a": [1, 3, 4], "b": [1, 4, 5]}, {})
    graph.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "unknown"
    graph.graph.input[1].type.tensor_type.shape.dim[2].dim_param = "unknown"
    with pytest.raises(AmpnetError, match="cannot be told from the graph, so crop"):
        count_work(graph, 1)


def macs_in_pytorch(model: nn.Module) -> int:
    """Of every convolution and fully connected layer, for one face, by PyTorch's own counter: two operations each."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.rand(1, 3, 224, 224), torch.full((1, 5, 2), 112.0))
    counts = counter.get_flop_counts()["Global"]
    return sum(counts[operation] for operation in (torch.ops.aten.convolution, torch.ops.aten.addmm)) // 2


def test_the_graph_counts_what_the_network_computes_and_grows_with_the_batch() -> None:
    one, three = (count_work(small.float_graph(), batch) for batch in (1, 3))
    weighted = [layer for layer in one if layer.weights]
    assert sum(layer.macs for layer in weighted) == macs_in_pytorch(AMPNet(len(small.CLASSES), 0.125))
    assert [layer.macs * 3 for layer in one] == [layer.macs for layer in three]
    assert [layer.weights for layer in one] == [layer.weights for layer in three]


def test_the_full_network_has_4_72_g() -> None:
    assert macs_in_pytorch(AMPNet(7)) / 1e9 == pytest.approx(4.72, abs=0.005)


layers = st.lists(
    st.builds(Work, st.just("x"), st.integers(0, 10**9), st.integers(0, 10**7), st.integers(0, 10**7)),
    min_size=1,
    max_size=9,
)


@given(work=layers, rate=st.floats(1e6, 1e12), bandwidth=st.floats(1e6, 1e12))
def test_the_floor_is_between_its_parts_and_their_sum(work: list[Work], rate: float, bandwidth: float) -> None:
    compute, memory, floor = floor_of(work, "fp32", Peaks({"fp32": rate}, bandwidth))
    slack = 1 + 1e-9
    assert max(compute, memory) <= floor * slack and floor <= (compute + memory) * slack
    assert compute == pytest.approx(sum(layer.macs for layer in work) / rate * 1e3)
    assert memory == pytest.approx(4 * sum(layer.weights + layer.activations for layer in work) / bandwidth * 1e3)


@pytest.mark.parametrize("quantised", [False, True])
def test_the_probe_computes_what_it_counts(quantised: bool) -> None:
    graph = roofline_peaks.probe(quantised)
    onnx.checker.check_model(graph, full_check=True)
    if not quantised:  # in the other graph the weights come out of a DequantizeLinear
        assert sum(layer.macs for layer in count_work(graph, 1)) == roofline_peaks.probe_macs()


def test_the_probe_in_int8_runs_in_int8() -> None:
    openvino = pytest.importorskip("openvino", reason="peaks are measured with OpenVINO")
    core = openvino.Core()
    model = core.read_model(roofline_peaks.probe(True).SerializeToString())
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    told = [op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops()]
    types = [str(info["runtimePrecision"].value) for info in told if info["layerType"].value == "Convolution"]
    assert types == ["u8"] * roofline_peaks.DEPTH


def test_peaks_are_positive_and_for_every_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason="peaks are measured with OpenVINO")
    monkeypatch.setattr(roofline_peaks, "ROUNDS", 1)
    monkeypatch.setattr(roofline_peaks, "RUNS", 1)
    peaks = roofline_peaks.measure_peaks(1)
    assert {"fp32", "int8"} <= set(peaks.macs) and min(peaks.macs.values()) > 0 and peaks.bandwidth > 0


def test_what_is_no_engine_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["roofline", str(tmp_path / "none.pth"), str(tmp_path)])
    assert main() == 2
    assert "is not an engine" in capsys.readouterr().err
