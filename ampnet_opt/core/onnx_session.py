"""ONNX Runtime as the second opinion on what a graph computes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnxruntime

from ampnet_opt.core.graph_interface import INPUTS, OUTPUT
from ampnet_opt.core.onnx_bytes import serialised


def onnx_session(model: bytes) -> onnxruntime.InferenceSession:
    """A session on the CPU that reports errors only.

    model: serialised, so that a graph made for this session alone is freed before ONNX Runtime makes its copies.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def graph_logits(model: onnx.ModelProto, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Logits float32 [N, classes] of batches of (image, landmarks) as the graph takes them, N of all together."""
    session = onnx_session(serialised(model))
    return np.concatenate([session.run([OUTPUT], dict(zip(INPUTS, batch, strict=True)))[0] for batch in batches])
