"""Output channels of zero or tiny weights: every form of the INT8 graph has scales that its backend takes."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small import faces, float_graph, placement, quantized, run, scales

from ampnet_opt.calibration.table import scale_of
from ampnet_opt.convert.float16 import to_half
from ampnet_opt.convert.graph import GraphIndex
from ampnet_opt.convert.openvino import cpu_graph
from ampnet_opt.convert.qdq_rules import require_representable
from ampnet_opt.convert.quantize import quantize
from ampnet_opt.convert.weakly_typed import float_weights
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.sidecar import BatchRange
from ampnet_opt.runtime.tensorrt.compile import build_plan

FACTORS = [0.0, 1e-42, 1e-6, 1e-4]  # of a channel's weights, each in another layer


@cache
def crippled() -> onnx.ModelProto:
    """The float graph with channels that are dead, or nearly so, in its first INT8 layers and in a matrix product."""
    model = onnx.ModelProto()
    model.CopyFrom(float_graph())
    index = GraphIndex(model.graph)
    layers = [node for node in model.graph.node if node.name in placement().layers]
    gemm = next(node for node in layers if node.op_type == "Gemm")
    for node, factor in zip([*layers[:8], gemm], [*FACTORS, *FACTORS, 0.0], strict=True):
        weight = index.array(node.input[1]).copy()
        weight[3] *= np.float32(factor)
        index.constants[node.input[1]].CopyFrom(numpy_helper.from_array(weight, node.input[1]))
    return model


@cache
def int8() -> onnx.ModelProto:
    return quantize(crippled(), placement(), scales())


FORMS = {
    "shared": int8,
    "unsigned": lambda: cpu_graph(int8(), "int8"),
    "weak": lambda: float_weights(int8()),
    "typed": lambda: to_half(int8(), {})[0],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_scale_is_a_normal_number_of_its_type(form: str) -> None:
    model = FORMS[form]()
    index, types = GraphIndex(model.graph), set()
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            scale = index.array(node.input[1])
            assert np.isfinite(scale).all() and (scale >= np.finfo(scale.dtype).tiny).all(), node.name
            types.add(scale.dtype.name)
    assert types == ({"float16", "float32"} if form == "typed" else {"float32"})
    require_representable(model)


@pytest.mark.parametrize("form", FORMS)
def test_answers_are_those_of_the_float_network(form: str) -> None:
    (expected,), (got,) = run(crippled(), faces()), run(FORMS[form](), faces())
    (intact,), (rounded,) = run(float_graph(), faces()), run(quantized(), faces())
    error = abs(got - expected).max()
    assert error < 5 * abs(rounded - intact).max()  # 3.3 with exact scales, the ranges being those of the intact network
    assert error < abs(intact - expected).max()  # or the channels would not matter, and the test prove nothing


def test_a_dead_channel_keeps_no_layer_out_of_float16() -> None:
    assert set(to_half(int8(), {})[1]) == set(to_half(quantized(), {})[1])


def test_dead_activations_have_a_scale() -> None:
    dead = {name: scale_of(0.0) for name in placement().tensors}
    for model in (quantize(float_graph(), placement(), dead), to_half(quantize(float_graph(), placement(), dead), {})[0]):
        require_representable(model)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
@pytest.mark.parametrize("scale", [1e-12, 1e-5, 1e6])
def test_a_scale_that_float16_does_not_hold_is_refused_before_a_board_sees_it(scale: float) -> None:
    wrong = {name: scale for name in placement().tensors}
    typed, _ = to_half(quantize(float_graph(), placement(), wrong), {})
    with pytest.raises(AmpnetError, match=r"the INT8 graph cannot be built: \S+ has a scale .* more; take --fp16"):
        require_representable(typed)


@pytest.mark.slow
def test_a_real_builder_takes_the_typed_graph() -> None:
    pytest.importorskip("tensorrt_rtx")
    graph = to_half(int8(), {})[0].SerializeToString()
    assert build_plan("tensorrt-rtx", graph, "int8", CompileOptions(BatchRange(1, 1, 1), ["8.9"])).data
