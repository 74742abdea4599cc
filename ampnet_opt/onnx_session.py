"""ONNX Runtime as the second opinion on what a graph computes."""

from __future__ import annotations

import onnx
import onnxruntime


def onnx_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session on the CPU that reports errors only."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
