"""One small network for the tests of graph passes: exported, placed, calibrated and quantised once per session.

What these functions return is shared between tests: copy it before changing it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime

from ampnet_opt.calibration.histogram import collect
from ampnet_opt.calibration.table import shared_scales
from ampnet_opt.convert.export import export, random_faces
from ampnet_opt.convert.placement import Placement, place
from ampnet_opt.convert.quantize import quantize
from ampnet_opt.network.checkpoint import init_checkpoint, read_checkpoint

CLASSES = ("a", "b", "c")
Faces = tuple[np.ndarray, np.ndarray]


@cache
def float_graph() -> onnx.ModelProto:
    """Float32 graph of a seeded network of an eighth of the width; its image is uint8 [N, 224, 224, 3]."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "small.safetensors"
        init_checkpoint(path, seed=5, width=0.125, classes=CLASSES)
        return export(read_checkpoint(path), "uint8")


@cache
def placement() -> Placement:
    return place(float_graph())


@cache
def faces() -> Faces:
    return random_faces(4, "uint8", seed=7)


@cache
def amax() -> Mapping[str, float]:
    """Largest magnitude of every placed tensor on `faces`."""
    return {name: h.amax for name, h in collect(float_graph(), list(placement().tensors), [faces()]).items()}


@cache
def scales() -> Mapping[str, float]:
    return shared_scales(amax(), placement().groups())


@cache
def quantized() -> onnx.ModelProto:
    return quantize(float_graph(), placement(), scales())


def run(model: onnx.ModelProto, inputs: Faces, optimise: bool = True, fetch: list[str] | None = None) -> list[np.ndarray]:
    """What ONNX Runtime computes: the logits, or the tensors named in `fetch`."""
    if fetch is not None:
        tapped = onnx.ModelProto()
        tapped.CopyFrom(model)
        del tapped.graph.output[:]
        tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in fetch)
        model = tapped
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": inputs[0], "landmarks": inputs[1]})


def sqnr(signal: np.ndarray, approximation: np.ndarray) -> float:
    """Signal-to-quantisation-noise ratio in dB."""
    return float(10 * np.log10(np.sum(signal**2) / np.sum((signal - approximation) ** 2)))
