"""Runs a graph in ONNX Runtime, by one execution provider and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.graph_interface import INPUTS, OUTPUT
from ampnet_opt.core.lifetime import keep_in_children
from ampnet_opt.core.processor import available_cores
from ampnet_opt.core.text import one_line
from ampnet_opt.runtime import backend as contract
from ampnet_opt.runtime.onnxruntime.library import PROVIDERS, load_library
from ampnet_opt.runtime.sidecar import Sidecar, read_unchanged

MODEL = "engine.onnx"
ERRORS_ONLY = 3
Configure = Optional[Callable[[Any, Any], None]]


def new_session(
    backend: str, graph: bytes, precision: str, threads: Optional[int] = None, configure: Configure = None
) -> Any:
    """An InferenceSession.

    threads: for a CPU; by default one per core. configure: called with the module and the SessionOptions, to change them.
    Raises AmpnetError when ONNX Runtime refuses the graph, or the provider does not start: another one never takes over.
    """
    library, provider = load_library(backend), PROVIDERS[backend]
    options = library.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    if provider.device == "cpu":
        options.intra_op_num_threads = threads or available_cores()
    else:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if configure is not None:
        configure(library, options)
    try:
        session = library.InferenceSession(graph, options, providers=[(provider.name, provider.options[precision])])
    except Exception as error:  # its exceptions have no base of their own
        raise AmpnetError(f"ONNX Runtime refuses the graph: {one_line(error, 300)}") from error
    if session.get_providers()[0] != provider.name:
        raise AmpnetError(f"{provider.name} does not start here, and ONNX Runtime would take {session.get_providers()[0]}")
    return session


class Executor(contract.Executor):
    """A session; ONNX Runtime takes calls of several threads at once."""

    def __init__(self, directory: Path, sidecar: Sidecar, threads: Optional[int]) -> None:
        graph = bytes(read_unchanged(directory / MODEL, sidecar.files))
        self._session = new_session(sidecar.backend, graph, sidecar.precision, threads)
        keep_in_children(self)

    def run(self, images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        try:
            logits: np.ndarray = self._session.run([OUTPUT], dict(zip(INPUTS, (images, landmarks))))[0]
        except Exception as error:  # as in `new_session`
            raise AmpnetError(f"ONNX Runtime failed to compute: {one_line(error, 300)}") from error
        return logits

    def close(self) -> None:
        self._session = None
