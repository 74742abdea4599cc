"""Engines of any graph, without a build."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import openvino

from ampnet_opt.core.files import sha256
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.runtime.sidecar import BatchRange, Sidecar

CLASSES = PRESETS["rafdb"]


def save_engine(graph: onnx.ModelProto, checkpoint_sha256: str, directory: Path, classes: Sequence[str] = CLASSES) -> Path:
    directory.mkdir()
    openvino.save_model(openvino.Core().read_model(graph.SerializeToString()), directory / "engine.xml", False)
    Sidecar(
        backend="cpu",
        backend_version=openvino.__version__,
        precision="fp32",
        classes=list(classes),
        image_input="uint8",
        patch_radius=5,
        trained=False,
        batch=BatchRange(),
        files={name: sha256(directory / name) for name in ("engine.xml", "engine.bin")},
        checkpoint_sha256=checkpoint_sha256,
        graph_sha256="0" * 64,
        built="2026-01-01T00:00:00+00:00",
        build_seconds=1.0,
        ampnet_opt_version="0",
    ).write(directory)
    return directory
