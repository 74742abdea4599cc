"""The backends onnxruntime (CPU), onnxruntime-cuda and onnxruntime-tensorrt: ONNX Runtime, one execution provider each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.processor import is_arm
from ampnet_opt.core.text import release
from ampnet_opt.runtime.backend import (
    PLAIN,
    TYPED,
    Availability,
    Backend,
    Compiled,
    Executor,
    LoadOptions,
    Progress,
)
from ampnet_opt.runtime.onnxruntime.library import PROVIDERS, load_library

if TYPE_CHECKING:
    import numpy as np

    from ampnet_opt.runtime.compile_options import BuilderOptions, CompileOptions
    from ampnet_opt.runtime.layers import Layer
    from ampnet_opt.runtime.network import Network
    from ampnet_opt.runtime.onnx_interface import FlexibleGraph
    from ampnet_opt.runtime.sidecar import Sidecar


class OnnxRuntime(Backend):
    """An engine is the graph itself, which ONNX Runtime optimises for the machine when it is loaded."""

    files = ("engine.onnx",)
    module = "onnxruntime"

    def __init__(self, name: str) -> None:
        provider = PROVIDERS[name]
        self.name, self.device, self.precisions = name, provider.device, tuple(provider.options)

    @property
    def rank(self) -> int:
        """On Arm it is before OpenVINO, which computes nearly all of an INT8 graph in FP32 there (2026.4)."""
        return 20 if self.device == "cpu" and is_arm() else 0

    def availability(self) -> Availability:
        try:
            library = load_library(self.name)
        except AmpnetError as error:
            return Availability(False, False, problem=str(error))
        return Availability(True, True, library.__version__, self.precisions)

    def require_possible(self, options: CompileOptions, precisions: Sequence[str]) -> None:
        super().require_possible(options, precisions)
        load_library(self.name)

    def graph_form(self, builder: Optional[BuilderOptions] = None) -> str:
        return PLAIN if self.device == "cpu" else TYPED

    def compile(
        self, directory: Path, graph: bytes, precision: str, options: CompileOptions, progress: Optional[Progress] = None
    ) -> Compiled:
        from ampnet_opt.runtime.onnxruntime.compile import write_graph

        return write_graph(self.name, graph, precision, directory)

    def check(self, sidecar: Sidecar) -> None:
        version = load_library(self.name).__version__
        if release(version) < release(sidecar.backend_version):
            raise AmpnetError(
                f"the engine was built with ONNX Runtime {sidecar.backend_version}, but {version} is installed, which is "
                f"older: install onnxruntime>={sidecar.backend_version}, or build the engine again here"
            )

    def outputs(self, directory: Path) -> Optional[int]:
        from ampnet_opt.runtime.onnx_interface import output_size

        return output_size(directory / self.files[0])

    def open(self, directory: Path, sidecar: Sidecar, options: LoadOptions) -> Executor:
        from ampnet_opt.runtime.onnxruntime.executor import Executor as Session

        if options.contexts > 1:
            raise MisuseError(f"contexts are for TensorRT engines; the {self.name} backend takes any number of threads")
        if options.blocking_wait:
            raise MisuseError(f"blocking_wait is for TensorRT engines; the {self.name} backend has no choice of it")
        if options.threads is not None and self.device == "gpu":
            raise MisuseError(f"threads are for CPUs; an engine for {self.name} runs on the GPU")
        return Session(directory, sidecar, options.threads)

    def open_network(self, graph: FlexibleGraph, threads: Optional[int] = None) -> Network:
        from ampnet_opt.runtime.onnxruntime import network

        return network.Network(self.name, graph, threads)

    def layers(self, directory: Path, sidecar: Sidecar) -> List[Layer]:
        from ampnet_opt.runtime.onnxruntime.layers import list_layers

        return list_layers(directory, sidecar)

    def layer_times(
        self, directory: Path, sidecar: Sidecar, faces: Tuple[np.ndarray, np.ndarray], runs: int, threads: Optional[int]
    ) -> List[Tuple[str, str, float]]:
        from ampnet_opt.runtime.onnxruntime.layers import layer_times

        return layer_times(directory, sidecar, faces, runs, threads)


BACKENDS = {name: OnnxRuntime(name) for name in PROVIDERS}
