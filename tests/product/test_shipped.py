"""The checkpoint and the golden faces that come with the package."""

from __future__ import annotations

import numpy as np
import pytest

from ampnet_opt.core.files import sha256
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.faces.face import load_face, read_faces
from ampnet_opt.network.checkpoint import read_checkpoint
from ampnet_opt.shipped import CENTERFACE_INT8, CHECKPOINT, GOLDEN_FACES, LANDMARKS
from ampnet_opt.synthetic import face
from ampnet_opt.synthetic.dataset import DEFAULT_CLASSES


def test_shipped_checkpoint_is_small_and_says_what_it_is() -> None:
    loaded = read_checkpoint(CHECKPOINT)
    assert CHECKPOINT.stat().st_size < 8e6
    assert loaded.trained and loaded.classes == PRESETS["rafdb"]
    card = CHECKPOINT.with_name("MODEL_CARD.md").read_text()
    assert loaded.sha256 in card  # the numbers in the card are of these weights


def test_golden_faces_are_those_that_are_drawn() -> None:
    found = read_faces(GOLDEN_FACES, whole=True)
    assert [row.label for row in found] == list(DEFAULT_CLASSES)
    for row in found:
        image, landmarks = load_face(row)
        drawn, exact = face(0, row.label)
        assert np.abs(image.astype(float) - drawn).mean() < 3  # JPEG
        np.testing.assert_allclose(landmarks, exact, atol=1e-3)


def test_shipped_detector_is_int8_and_carries_its_licence() -> None:
    onnx = pytest.importorskip("onnx")
    weights = [tensor for tensor in onnx.load(CENTERFACE_INT8).graph.initializer if tensor.dims]
    stored = {kind: sum(int(np.prod(one.dims)) for one in weights if one.data_type == kind) for kind in (1, 3)}
    assert stored[onnx.TensorProto.INT8] > 30 * stored[onnx.TensorProto.FLOAT]
    assert CENTERFACE_INT8.stat().st_size < 2.2e6
    assert "Copyright (c) 2019 StarClouds" in CENTERFACE_INT8.with_name("CENTERFACE.md").read_text()


def test_shipped_landmark_network_is_small_and_says_what_it_was_trained_on() -> None:
    onnx = pytest.importorskip("onnx")
    about = {entry.key: entry.value for entry in onnx.load(LANDMARKS).metadata_props}
    assert set(about) >= {"trained_on", "drawn_seeds", "faces_sha256", "steps"}
    assert LANDMARKS.stat().st_size < 8.5e5
    card = LANDMARKS.with_name("LANDMARKS.md").read_text()
    assert sha256(LANDMARKS) in card  # the numbers in the card are of this file
    assert about["trained_on"].partition(" ")[0] in card.replace(",", "")
