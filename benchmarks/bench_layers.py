"""Where an engine's time goes, layer by layer, by its backend's own profiler. Python 3.8."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from ampnet_opt.benchmarks.workers import random_faces
from ampnet_opt.runtime.engine import prepare
from ampnet_opt.runtime.openvino import executor as cpu
from ampnet_opt.runtime.sidecar import Sidecar, read_sidecar
from ampnet_opt.runtime.tensorrt import plan as trt

RUNS = 20
Rows = List[Tuple[str, str, float]]  # (name, kernel, seconds of one run)


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
    images, landmarks = prepare(*random_faces(batch), sidecar.image_input)
    if sidecar.backend == "cpu":
        cpu.check(sidecar)
        rows = cpu.open_executor(engine, sidecar, threads).profile(images, landmarks, runs)
    else:
        trt.check(sidecar)
        rows = _tensorrt(engine, sidecar, images, landmarks, runs)
    total = sum(took for _, _, took in rows)
    rows.sort(key=lambda row: -row[2])
    return [LayerTime(name, kernel, took, took / total) for name, kernel, took in rows if took > 0]


def _tensorrt(engine: Path, sidecar: Sidecar, images: np.ndarray, landmarks: np.ndarray, runs: int) -> Rows:
    """By TensorRT's profiler, which sees no layers inside a CUDA graph: the engine runs without one."""
    profiler = new_profiler(trt.load_runtime(sidecar))
    pool = trt.open_executor(engine, sidecar, None, cuda_graph=False)
    try:
        with pool.borrow() as executor:
            executor.run(images, landmarks)  # an untimed run first
            executor.report_to(profiler)
            for _ in range(runs):
                executor.run(images, landmarks)
    finally:
        pool.close()
    return [(name, "", took / runs * 1e-3) for name, took in profiler.milliseconds.items()]


def new_profiler(library: Any) -> Any:
    """An IProfiler of TensorRT's that adds up the `milliseconds` of every layer, by name."""

    class Profiler(library.IProfiler):
        def __init__(self) -> None:
            library.IProfiler.__init__(self)
            self.milliseconds: Dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.milliseconds[layer_name] = self.milliseconds.get(layer_name, 0.0) + ms

    return Profiler()
