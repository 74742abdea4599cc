"""Runs a network that is no engine of AMP-Net in OpenVINO."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.text import one_line
from ampnet_opt.runtime import network
from ampnet_opt.runtime.onnx_interface import FlexibleGraph
from ampnet_opt.runtime.openvino.executor import ARITHMETIC, Compiled, Request, core, load_openvino


class Network(network.Network):
    """Compiled once, for all sizes: a graph of fixed size is no faster, and another picture may have another size."""

    def __init__(self, graph: FlexibleGraph, threads: Optional[int]) -> None:
        super().__init__()
        config: Dict[str, Any] = {"INFERENCE_PRECISION_HINT": ARITHMETIC["fp32"], "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        try:
            model = core(computes=True).read_model(graph.content)
            compiled = core(computes=True).compile_model(model, "CPU", config)
        except RuntimeError as error:
            raise AmpnetError(
                f"OpenVINO {load_openvino().__version__} cannot load the network: {one_line(error)}"
            ) from error
        self._outputs = graph.outputs
        self._request: Optional[Request] = Request(Compiled(compiled, None), (graph.input,))

    def _run(self, image: np.ndarray) -> Dict[str, np.ndarray]:
        assert self._request is not None
        results: List[np.ndarray] = self._request.run(image, outputs=self._outputs)
        return dict(zip(self._outputs, results))

    def _free(self) -> None:
        self._request = None
