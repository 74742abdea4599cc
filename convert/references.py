"""What engines are compared with: the float graph, and the graph that an engine is built from, in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from ampnet_opt.convert.source import Source
from ampnet_opt.faces.face import Face, spread
from ampnet_opt.network.onnx_session import graph_logits
from ampnet_opt.runtime.engine import prepare
from ampnet_opt.runtime.golden import Golden, Proof, require_right
from ampnet_opt.synthetic import face
from ampnet_opt.synthetic.dataset import DEFAULT_CLASSES

CALIBRATION_FACES = 4


def float_proof(source: Source, calibration: Sequence[Face]) -> Proof:
    """A drawn face of each expression, then a few of `calibration` (may be none), with the float graph's logits.

    INT8 scales agree with the faces they were measured on, whatever these show; drawn faces are independent of them.
    """
    images, landmarks = zip(*(face(0, label) for label in DEFAULT_CLASSES), strict=True)
    few = spread(calibration, CALIBRATION_FACES)
    parts = [prepare(np.stack(images), np.stack(landmarks), source.image_input), *source.batches(few, CALIBRATION_FACES)]
    pictures, points = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    golden = Golden(pictures, points, graph_logits(source.graph, [(pictures, points)]))
    return Proof(golden, calibration=len(few))


def proof_of(proof: Proof, model: onnx.ModelProto, precision: str) -> Proof:
    """`float_proof` for engines of `model`, which is the float graph, or for int8 the Q/DQ graph."""
    golden = proof.golden
    return proof.explained(graph_logits(model, [(golden.images, golden.landmarks)])) if precision == "int8" else proof


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
