"""Models as bytes: what protobuf writes, in less memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from ampnet_opt.core.onnx_bytes import serialised

WEIGHTS = 256  # MB
MEMORY = f"""
import numpy as np, onnx, re
from ampnet_opt.core.onnx_bytes import serialised

def status(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read()).group(1)) / 1024

content = bytes(4 << 20)
tensors = [onnx.TensorProto(name=str(i), data_type=1, dims=[1 << 20], raw_data=content) for i in range({WEIGHTS // 4})]
model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before = status("VmRSS")
length = len(serialised(model))
print(status("VmHWM") - before, length == len(model.SerializeToString()))
"""

names = st.text(max_size=200)
tensors = st.builds(
    lambda name, shape, doc: onnx.TensorProto(
        name=name, data_type=1, dims=shape, raw_data=np.arange(np.prod(shape), dtype="<f4").tobytes(), doc_string=doc
    ),
    names,
    st.lists(st.integers(0, 40), max_size=3),
    names,
)


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """With fields before and after the graph and the weights, some of them missing, and with a graph within a node."""
    inner = helper.make_graph([], "inner", [], [], [draw(tensors)])
    nodes = [
        helper.make_node("Add", [draw(names), "b"], ["c"], name=draw(names)),
        helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner),
    ]
    values = [helper.make_tensor_value_info("x", 1, draw(st.lists(st.integers(0, 1 << 40), max_size=4)))]
    graph = helper.make_graph(
        nodes[: draw(st.integers(0, 2))], draw(names), values, values, draw(st.lists(tensors, max_size=4))
    )
    graph.value_info.extend(values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("own", 1)])
    for key in draw(st.lists(names, max_size=3)):
        model.metadata_props.add(key=key, value="x" * draw(st.integers(0, 20_000)))
    if draw(st.booleans()):
        model.model_version = draw(st.integers(0, 1 << 60))
    if draw(st.booleans()):
        model.ClearField("graph")
    return model


@settings(max_examples=200, deadline=None)
@given(models())
def test_a_model_is_serialised_as_protobuf_does_it(model: onnx.ModelProto) -> None:
    assert serialised(model) == model.SerializeToString(deterministic=True)


def test_large_weights_come_back() -> None:
    weights = np.random.default_rng(1).standard_normal((3, 1 << 20)).astype(np.float32)
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(weights, "w"), onnx.TensorProto()])
    read = onnx.load_from_string(serialised(helper.make_model(graph)))
    np.testing.assert_array_equal(numpy_helper.to_array(read.graph.initializer[0]), weights)
    assert len(read.graph.initializer) == 2


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_serialising_takes_little_more_memory_than_its_result() -> None:
    """`SerializeToString` itself takes 2.5 to 4 times as much."""
    told = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout.split()
    assert told[1] == "True"
    assert WEIGHTS * 0.9 < float(told[0]) < WEIGHTS * 1.4
