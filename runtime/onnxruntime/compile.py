"""From an ONNX graph to an engine: the graph itself, which ONNX Runtime optimises anew whenever it is loaded."""

from __future__ import annotations

from pathlib import Path

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.runtime.backend import Compiled
from ampnet_opt.runtime.onnxruntime.executor import MODEL, new_session
from ampnet_opt.runtime.onnxruntime.library import load_library


def write_graph(backend: str, graph: bytes, precision: str, directory: Path) -> Compiled:
    """Write `engine.onnx`. Raises AmpnetError when ONNX Runtime cannot compute the graph, OSError as the disk does."""
    version = load_library(backend).__version__
    try:
        new_session(backend, graph, precision)
    except AmpnetError as error:
        raise AmpnetError(f"ONNX Runtime {version} cannot build the engine: {error}") from error
    (directory / MODEL).write_bytes(graph)
    return Compiled(version, {}, [MODEL])
