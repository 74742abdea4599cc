"""The tensor at which an engine leaves its graph is found, by cutting the graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small import faces, float_graph, run

from ampnet_opt.convert.first_difference import cut, first_difference
from ampnet_opt.convert.graph import GraphIndex
from ampnet_opt.runtime.backend import find_backend
from ampnet_opt.runtime.build import EngineRequest, Origin, Prepared
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.golden import Golden, Proof
from ampnet_opt.runtime.sidecar import BatchRange

WRONG = "/model/stages.1/layers.0/conv_norm/conv/Conv"
FACTOR = np.float32(-1000)  # seeded weights answer all faces nearly alike, whatever smaller an error is


def request_of(model: onnx.ModelProto) -> EngineRequest:
    images, landmarks = faces()
    proof = Proof(Golden(images, landmarks, run(float_graph(), faces())[0]))
    origin = Origin(["a", "b", "c"], "uint8", 5, False, "0" * 64, "0" * 64)
    prepared = Prepared("fp32", model.SerializeToString())
    return EngineRequest(find_backend("onnxruntime"), CompileOptions(BatchRange(1, 1, 2)), origin, prepared, proof)


def with_large_weights(node: str) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(float_graph())
    (layer,) = (one for one in changed.graph.node if one.name == node)
    (weight,) = (tensor for tensor in changed.graph.initializer if tensor.name == layer.input[1])
    weight.CopyFrom(numpy_helper.from_array(FACTOR * numpy_helper.to_array(weight), weight.name))
    return changed


def test_the_first_wrong_tensor_is_named_with_the_right_one_before_it() -> None:
    shares: list[float] = []
    found = first_difference(request_of(with_large_weights(WRONG)), float_graph(), 3, shares.append)
    assert found is not None
    index = GraphIndex(float_graph().graph)
    assert found.tensor == index.producers[found.tensor].output[0] and found.node == f"Conv {WRONG}"
    assert found.sqnr < 0 and found.sqnr_before > 60
    assert str(found).startswith(f"Conv {WRONG} is the first layer that differs from the CPU's, at -")
    assert shares == sorted(shares) and 0 < shares[-1] <= 1


def test_an_engine_that_is_right_has_no_difference() -> None:
    assert first_difference(request_of(float_graph()), float_graph(), 4) is None


@pytest.mark.parametrize("tensor", ["logits", "/model/stages.1/join/conv/Conv_output_0"])
def test_a_graph_that_is_cut_computes_the_tensor(tensor: str) -> None:
    (wanted,) = run(float_graph(), faces(), optimise=False, fetch=[tensor])
    part = cut(float_graph(), tensor)
    onnx.checker.check_model(part, full_check=True)
    np.testing.assert_allclose(run(part, faces(), optimise=False)[0], wanted, rtol=1e-5, atol=1e-6)
