from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from recorded import DATA, image

from ampnet_opt.convert.export import OPSET, check_against, export
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.network.checkpoint import Checkpoint, init_checkpoint, read_checkpoint


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    init_checkpoint(path, seed=3, width=0.125, classes=PRESETS["ferplus"])
    return read_checkpoint(path)


@pytest.mark.slow
def test_full_size_graph_reproduces_the_recorded_logits(published_file: Path) -> None:
    import onnxruntime

    graph = export(read_checkpoint(published_file), "uint8")
    with np.load(DATA / "golden_cases.npz") as cases:
        seeds, landmarks, expected = cases["image_seed"][:16], cases["landmarks"][:16], cases["fused_logits"][:16]
    images = np.stack([image(int(seed)) for seed in seeds])
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    (logits,) = session.run(None, {"image": images, "landmarks": landmarks})
    np.testing.assert_allclose(logits, expected, atol=1e-3, rtol=0)


def test_graph_is_plain_opset_17_with_folded_norms(small: Checkpoint) -> None:
    graph = export(small, "float32")
    assert {o.domain: o.version for o in graph.opset_import} == {"": OPSET}
    assert not Counter(node.op_type for node in graph.graph.node)["BatchNormalization"]
    assert [i.type.tensor_type.shape.dim[0].dim_param for i in graph.graph.input] == ["N", "N"]


def test_baked_in_boxes_are_found(small: Checkpoint) -> None:
    graph = export(small, "float32")
    rng = np.random.default_rng(0)
    images = rng.random((3, 3, 224, 224), np.float32)
    landmarks = rng.uniform(0, 224, (3, 5, 2)).astype(np.float32)
    assert check_against(small.model, graph, images, landmarks) < 1e-3
    # What a naive trace leaves: a graph that reads its boxes from a constant instead of its input.
    baked = onnx.ModelProto.FromString(graph.SerializeToString())
    baked.graph.initializer.append(onnx.numpy_helper.from_array(landmarks, "frozen"))
    for node in baked.graph.node:
        for i, name in enumerate(node.input):
            if name == "landmarks":
                node.input[i] = "frozen"
    with pytest.raises(AmpnetError, match="differs from PyTorch"):
        check_against(small.model, baked, images, landmarks)


def test_radius_and_batch_are_not_fixed_by_the_trace(small: Checkpoint) -> None:
    graph = export(small, "uint8")
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString())
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (5, 224, 224, 3), np.uint8)
    landmarks = rng.uniform(-20, 250, (5, 5, 2)).astype(np.float32)
    (together,) = session.run(None, {"image": images, "landmarks": landmarks})
    with torch.inference_mode():
        floats = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        expected = small.model(floats, torch.from_numpy(landmarks))
    np.testing.assert_allclose(together, expected, atol=1e-4)
