"""An engine that runs here is compared with its graph before it is handed out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from ampnet_opt.onnx_session import graph_logits
from ampnet_opt.runtime.golden import Golden, require_right


def verify(
    directory: Path, model: onnx.ModelProto, graph: onnx.ModelProto, images: np.ndarray, landmarks: np.ndarray
) -> None:
    """AmpnetError when the engine's logits are further from the float graph's than the graph it was built from explains.

    model: what the engine was built from; graph: the float graph; both run in ONNX Runtime as the second opinion. images,
    landmarks: as the graph takes them, more than one.
    """
    golden = Golden(images, landmarks, graph_logits(graph, [(images, landmarks)]))
    own = 0.0 if model is graph else golden.error(graph_logits(model, [(images, landmarks)]))
    require_right(directory, golden, own)
