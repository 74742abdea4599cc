"""An engine that runs here is compared with its graph before it is handed out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from ampnet_opt.errors import AmpnetError
from ampnet_opt.onnx_session import graph_logits
from ampnet_opt.runtime.engine import Engine

# Twice the graph's own error, and what rounding to half precision costs: above it the backend computes something else.
FACTOR = 2.0
HALF_ERROR = 0.05


def verify(
    directory: Path, model: onnx.ModelProto, graph: onnx.ModelProto, images: np.ndarray, landmarks: np.ndarray
) -> None:
    """AmpnetError when the engine's logits are further from the float graph's than the graph it was built from explains.

    model: what the engine was built from; graph: the float graph; both run in ONNX Runtime as the second opinion. images,
    landmarks: as the graph takes them, more than one. The engine runs them one by one and together, since backends
    compile these apart. Errors are relative: root of the mean square, over that of the float logits.
    """
    expected = graph_logits(graph, [(images, landmarks)])
    scale = float(np.sqrt(np.mean(expected**2)))
    own = 0.0 if model is graph else _error(graph_logits(model, [(images, landmarks)]), expected, scale)
    with Engine.load(directory) as engine:
        single = np.concatenate([engine.infer(images[i : i + 1], landmarks[i : i + 1]) for i in range(len(images))])
        for logits, how in ((single, "one by one"), (engine.infer(images, landmarks), "as a batch")):
            error = _error(logits, expected, scale)
            if not error <= FACTOR * own + HALF_ERROR:
                raise AmpnetError(
                    f"{engine.sidecar.backend} {engine.sidecar.backend_version} computes this graph wrongly: run {how}, its "
                    f"logits are off by {error:.0%}, the graph's own by {own:.0%}; install another version of it"
                )


def _error(logits: np.ndarray, expected: np.ndarray, scale: float) -> float:
    return float(np.sqrt(np.mean((logits - expected) ** 2))) / scale
