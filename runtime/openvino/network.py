"""Runs a network that is no engine of AMP-Net in OpenVINO."""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.text import one_line
from ampnet_opt.runtime import network
from ampnet_opt.runtime.onnx_interface import FlexibleGraph
from ampnet_opt.runtime.openvino.compiled import Request, cached
from ampnet_opt.runtime.openvino.library import configuration, core, load_openvino

Size = Optional[Tuple[int, int]]  # height and width; None, any
MOST_SIZES = 4  # compiled models at a time, each of 20 MB for a face detector


class Network(network.Network):
    """Compiled for each size that recurs, and once for all others, when first needed.

    CenterFace of one size takes 8 to 20 % less time than of any (256 x 320 and 128 x 128, one and two threads), and where
    the size changes, one of any prepares anew for 4 ms. Compiling takes half a second, reading what is in the cache 0.1 to
    0.2.
    """

    def __init__(self, graph: FlexibleGraph, threads: Optional[int]) -> None:
        super().__init__()
        self._graph = graph
        self._config = configuration("fp32", threads, PERFORMANCE_HINT="LATENCY")
        self._requests: Dict[Size, Request] = {}  # the one used last at the end

    def _run(self, image: np.ndarray, recurring: bool) -> Dict[str, np.ndarray]:
        height, width = image.shape[2:]
        size = (height, width) if recurring else None
        request = self._requests.pop(size, None) or self._request(size)
        self._requests[size] = request
        while len(self._requests) > MOST_SIZES:
            del self._requests[next(iter(self._requests))]
        results: List[np.ndarray] = request.run(image, outputs=self._graph.outputs)
        return dict(zip(self._graph.outputs, results))

    def _request(self, size: Size) -> Request:
        identity = {"network": sha256(self._graph.content).hexdigest(), "size": size}
        return Request(cached(identity, self._config, partial(self._compile, size)), (self._graph.input,))

    def _compile(self, size: Size) -> Any:
        try:
            model = core(computes=True).read_model(self._graph.content)
            if size is not None:
                model.reshape([1, 3, *size])
            return core(computes=True).compile_model(model, "CPU", self._config)
        except RuntimeError as error:
            raise AmpnetError(
                f"OpenVINO {load_openvino().__version__} cannot load the network: {one_line(error)}"
            ) from error

    def _free(self) -> None:
        self._requests.clear()
