"""Runs a network that is no engine of AMP-Net in ONNX Runtime."""

from __future__ import annotations

from typing import Any, Dict, Optional

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.text import one_line
from ampnet_opt.runtime import network
from ampnet_opt.runtime.onnx_interface import FlexibleGraph
from ampnet_opt.runtime.onnxruntime.executor import new_session


class Network(network.Network):
    """One session for all sizes."""

    def __init__(self, backend: str, graph: FlexibleGraph, threads: Optional[int]) -> None:
        super().__init__()
        self._session: Any = new_session(backend, graph.content, "fp32", threads, _beside_others)
        self._input, self._outputs = graph.input, graph.outputs

    def _run(self, image: np.ndarray, recurring: bool) -> Dict[str, np.ndarray]:
        try:
            results = self._session.run(self._outputs, {self._input: image})
        except Exception as error:  # its exceptions have no base of their own
            raise AmpnetError(f"ONNX Runtime failed to compute: {one_line(error, 200)}") from error
        return dict(zip(self._outputs, results))

    def _free(self) -> None:
        self._session = None


def _beside_others(library: Any, options: Any) -> None:
    options.enable_mem_pattern = False  # it keeps a plan of the memory for each size that it has seen
    # Threads that have nothing to do sleep. By default they spin for a while, on cores that the other stages of a pipeline
    # need: on two cores, a frame took 1.4 to 1.9 times the processor's time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
