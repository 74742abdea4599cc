"""Equalised channels: the same float network, with channels of one range in front of depthwise convolutions."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from ampnet_opt.convert.equalise import equalise, pairs
from ampnet_opt.core.onnx_session import onnx_session

CHANNELS = 6


def network(seed: int, spread: float) -> onnx.ModelProto:
    """Pointwise, depthwise and pointwise convolutions with ReLUs between; channels' ranges differ by about e ** spread."""
    rng = np.random.default_rng(seed)
    shapes = {"expand": (CHANNELS, 3, 1, 1), "depthwise": (CHANNELS, 1, 3, 3), "project": (4, CHANNELS, 1, 1)}
    nodes, constants, tensor = [], [], "image"
    for name, shape in shapes.items():
        gains = np.exp(rng.uniform(-spread, spread, (shape[0], 1, 1, 1)))
        constants.append(numpy_helper.from_array((gains * rng.standard_normal(shape)).astype(np.float32), f"{name}_weight"))
        constants.append(numpy_helper.from_array((gains.ravel() * rng.random(shape[0])).astype(np.float32), f"{name}_bias"))
        inputs = [tensor, f"{name}_weight", f"{name}_bias"]
        nodes.append(helper.make_node("Conv", inputs, [name], name=name, group=CHANNELS if shape[1] == 1 else 1))
        tensor = name
        if name != "project":
            nodes.append(helper.make_node("Relu", [name], [f"{name}_relu"], name=f"{name}_relu"))
            tensor = f"{name}_relu"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("image", "project")]
    graph = helper.make_graph(nodes, "g", [ends[0]], [ends[1]], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def tensors(model: onnx.ModelProto, names: list[str], image: np.ndarray) -> list[np.ndarray]:
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return list(onnx_session(tapped.SerializeToString()).run(None, {"image": image}))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 5))
def test_the_network_stays_the_same_and_depthwise_convolutions_read_channels_of_one_range(seed: int, spread: float) -> None:
    model = network(seed, spread)
    assert [(pair.first.name, pair.second.name) for pair in pairs(model.graph)] == [
        ("expand", "depthwise"),
        ("depthwise", "project"),
    ]
    image = np.random.default_rng(seed).standard_normal((1, 3, 9, 7)).astype(np.float32)
    between = [pair.between for pair in pairs(model.graph)]
    ranges = {name: np.abs(one).max((0, 2, 3)) for name, one in zip(between, tensors(model, between, image))}
    changed = equalise(model, ranges)
    (before,), (after,) = (tensors(one, ["project"], image) for one in (model, changed))
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4 * np.abs(before).max())
    peaks = np.abs(tensors(changed, between[:1], image)[0]).max((0, 2, 3))
    alive = ranges[between[0]] > 1e-4 * ranges[between[0]].max()
    np.testing.assert_allclose(peaks[alive], peaks.max(), rtol=1e-3)


def test_a_channel_that_holds_nothing_leaves_the_network_finite() -> None:
    model = network(1, 1.0)
    ranges = {pair.between: np.zeros(CHANNELS, np.float32) for pair in pairs(model.graph)}
    changed = equalise(model, ranges)
    assert all(np.isfinite(numpy_helper.to_array(one)).all() for one in changed.graph.initializer)
