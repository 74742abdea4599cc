"""Where an engine's time goes, layer by layer, by its backend's own profiler. Python 3.8."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

from ampnet_opt.benchmarks.workers import random_faces
from ampnet_opt.runtime.backend import find_backend
from ampnet_opt.runtime.engine import engine_inputs
from ampnet_opt.runtime.sidecar import read_sidecar

RUNS = 20


@dataclass(frozen=True)
class LayerTime:
    """name, kernel: in the backend's words. seconds: of one run, mean; share: of all layers together."""

    name: str
    kernel: str
    seconds: float
    share: float


def layer_times(engine: Path, batch: int, threads: Optional[int] = None, runs: int = RUNS) -> List[LayerTime]:
    """The layers of an engine that take time, the slowest first. Profiling slows an engine down: shares are what counts.

    threads: of the cpu backend, by default all cores. Raises what `Engine.load` does.
    """
    sidecar = read_sidecar(engine)
    faces = engine_inputs(*random_faces(batch), sidecar.image_input)
    backend = find_backend(sidecar.backend)
    backend.check(sidecar)
    rows = backend.layer_times(engine, sidecar, faces, runs, threads)
    total = sum(took for _, _, took in rows)
    rows.sort(key=lambda row: -row[2])
    return [LayerTime(name, kernel, took, took / total) for name, kernel, took in rows if took > 0]
