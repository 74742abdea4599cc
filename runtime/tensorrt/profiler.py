"""What every layer of a plan takes, by TensorRT's profiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np

from ampnet_opt.runtime.sidecar import Sidecar
from ampnet_opt.runtime.tensorrt.library import load_runtime
from ampnet_opt.runtime.tensorrt.plan import open_pool


def layer_times(
    directory: Path, sidecar: Sidecar, faces: Tuple[np.ndarray, np.ndarray], runs: int
) -> List[Tuple[str, str, float]]:
    """(name, "", seconds of one run) of each layer. The profiler sees no layers inside a CUDA graph: it runs without one."""
    profiler = new_profiler(load_runtime(sidecar))
    pool = open_pool(directory, sidecar, cuda_graph=False)
    try:
        with pool.borrow() as executor:
            executor.run(*faces)  # an untimed run first
            executor.report_to(profiler)
            for _ in range(runs):
                executor.run(*faces)
    finally:
        pool.close()
    return [(name, "", took / runs * 1e-3) for name, took in profiler.milliseconds.items()]


def new_profiler(library: Any) -> Any:
    """An IProfiler of TensorRT's that adds up the `milliseconds` of every layer, by name."""

    class Profiler(library.IProfiler):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            library.IProfiler.__init__(self)
            self.milliseconds: Dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.milliseconds[layer_name] = self.milliseconds.get(layer_name, 0.0) + ms

    return Profiler()
