"""How the GPU check times a subject, and how it tells right answers from wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ampnet_opt.benchmarks.gpu_check_networks import Network
from ampnet_opt.benchmarks.workers import time_runs
from ampnet_opt.core.metrics import latency

BATCHES = (1, 8, 32)
WARM_UP, RUNS = 30, 200

Figures = dict[str, Any]
Work = tuple[str, Callable[[], Figures]]


class Skipped(Exception):
    """A part that cannot be tried here; its message says why."""


def some_faces(net: Network, batch: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.arange(batch) % len(net.images)
    return net.images[chosen], net.landmarks[chosen].astype(np.float32)


def end_to_end(infer: Callable[[np.ndarray, np.ndarray], object], images: np.ndarray, landmarks: np.ndarray) -> list[float]:
    """Wall-clock seconds, inputs and logits in host memory."""
    return time_runs(infer, images, landmarks, WARM_UP, RUNS)


def row_of(batch: int, end_to_end: Sequence[float], gpu: Sequence[float] | None) -> Figures:
    """Milliseconds: p50 and p99."""
    whole = latency(end_to_end, batch)
    row: Figures = {"batch": batch, "end_to_end": [whole.p50, whole.p99]}
    if gpu is not None:
        alone = latency(gpu, batch)
        row["gpu"] = [alone.p50, alone.p99]
    return row
