"""Weights and images of the recorded cases: rebuilt from seeds, so that the repository carries no checkpoint."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data"
HEAD_GAIN = {"fc_5.weight": 4.0, "fc_3.weight": 8.0}
HEADS = ("fc_5", "fc_3", "fc_1_1")


def published_weights(num_classes: int = 7) -> dict[str, np.ndarray]:
    """A checkpoint in the authors' key layout, float32, the one whose outputs `golden_cases.npz` holds (7 classes)."""
    weights = {}
    for key, shape in json.loads((DATA / "checkpoint_keys.json").read_text()).items():
        if key.rpartition(".")[0] in HEADS:
            shape = [num_classes, *shape[1:]]
        weights[key] = _weight(key, shape)
    with np.load(DATA / "batch_norm_statistics.npz") as measured:
        weights.update({k: measured[k] for k in measured.files if k not in weights or measured[k].shape == weights[k].shape})
    return weights


def _weight(key: str, shape: list[int]) -> np.ndarray:
    if key.endswith("num_batches_tracked"):
        return np.zeros((), np.int64)
    if key.endswith("running_mean"):
        return np.zeros(shape, np.float32)
    if key.endswith("running_var"):
        return np.ones(shape, np.float32)
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("bias"):
        value = noise * 0.1
    elif len(shape) == 1:
        value = noise * 0.2 + 1.0
    else:
        value = noise * np.sqrt(2.0 / np.prod(shape[1:])) * HEAD_GAIN.get(key, 1.0)
    return value.astype(np.float32)


def image(seed: int) -> np.ndarray:
    """Recorded image number `seed`, uint8 [224, 224, 3] RGB."""
    rng = np.random.default_rng(1000 + seed)
    blobs = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((28, 28, 1), int))
    return np.clip(blobs + rng.integers(-40, 41, (224, 224, 3)), 0, 255).astype(np.uint8)
