"""The backends tensorrt and tensorrt-rtx: plans, run through the tensor API that both have from TensorRT 8.5 on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.runtime.backend import (
    RTX,
    TYPED,
    WEAK,
    Availability,
    Backend,
    Compiled,
    Executor,
    LoadOptions,
    Progress,
)
from ampnet_opt.runtime.tensorrt.library import FAMILIES, library_folder, load_library, no_kernels, unknown_gpu

if TYPE_CHECKING:
    import numpy as np

    from ampnet_opt.runtime.compile_options import BuilderOptions, CompileOptions
    from ampnet_opt.runtime.layers import Layer
    from ampnet_opt.runtime.network import Network
    from ampnet_opt.runtime.onnx_interface import FlexibleGraph
    from ampnet_opt.runtime.sidecar import Sidecar


# Of TensorRT-RTX: one plan is for all GPUs that it names, and by the builder's own list (1.7) it has no INT8 then.
WITHOUT_INT8 = {"7.5"}
# Its builder compiles nothing at all of a BF16 graph when one of the GPUs lacks BF16.
WITHOUT_BF16 = {"7.5"}


class Nvidia(Backend):
    """TensorRT, or TensorRT for RTX; the two differ in their `library.Family`."""

    device = "gpu"
    files = ("engine.plan",)
    precisions = ("fp32", "fp16", "bf16", "int8")

    def __init__(self, name: str) -> None:
        self.name, self.module, self.portable = name, FAMILIES[name].module, FAMILIES[name].ahead

    @property
    def rank(self) -> int:
        return 0 if FAMILIES[self.name].ahead else 30

    def availability(self) -> Availability:
        from ampnet_opt.runtime import cuda
        from ampnet_opt.runtime.tensorrt.options import without_bfloat16

        ahead = FAMILIES[self.name].ahead
        try:
            library = load_library(self.name)
        except AmpnetError as error:
            return Availability(False, False, problem=str(error))
        try:
            gpu = cuda.gpu()
        except AmpnetError as error:
            return Availability(ahead, False, library.__version__, problem=str(error))
        if ahead:
            problem, builds = unknown_gpu(library, gpu), True
        else:
            problem = no_kernels(library.__version__, gpu, library_folder())
            builds = not problem
        able = tuple(name for name in self.precisions if name != "bf16" or not without_bfloat16(library, gpu))
        return Availability(builds, not (ahead and problem), library.__version__, able, problem)

    def require_options(self, options: CompileOptions, precisions: Sequence[str]) -> None:
        from ampnet_opt.runtime.tensorrt.options import require_options

        self.require_precisions(precisions)
        if not FAMILIES[self.name].ahead:
            self.require_no_capabilities(options)
        elif "int8" in precisions and WITHOUT_INT8 & {*options.compute_capabilities}:
            raise MisuseError(
                "--compute-capability 7.5 is not for --int8: TensorRT-RTX then computes nothing in INT8, on any of the "
                "GPUs; leave out 7.5, or build it apart with --fp16"
            )
        elif "bf16" in precisions and WITHOUT_BF16 & {*options.compute_capabilities}:
            raise MisuseError("--compute-capability 7.5 is not for --bf16: such GPUs have no BF16; build them with --fp16")
        require_options(self.name, options.builder, precisions, options.batch)

    def require_possible(self, options: CompileOptions, precisions: Sequence[str]) -> None:
        from ampnet_opt.runtime import cuda
        from ampnet_opt.runtime.tensorrt.compile import require_library
        from ampnet_opt.runtime.tensorrt.options import without_bfloat16

        require_library(self.name)
        self.require_options(options, precisions)
        if "bf16" in precisions:
            library = load_library(self.name)
            problem = without_bfloat16(library, None if FAMILIES[self.name].ahead else cuda.gpu())
            if problem:
                raise AmpnetError(f"{problem}; take --fp16")

    def graph_form(self, builder: Optional[BuilderOptions] = None) -> str:
        from ampnet_opt.runtime.compile_options import DEFAULTS
        from ampnet_opt.runtime.tensorrt.compile import needs_typed_graph

        if FAMILIES[self.name].ahead:
            load_library(self.name)
            return RTX
        return TYPED if needs_typed_graph(self.name, builder or DEFAULTS) else WEAK

    def compile(
        self, directory: Path, graph: bytes, precision: str, options: CompileOptions, progress: Optional[Progress] = None
    ) -> Compiled:
        from ampnet_opt.runtime.tensorrt.compile import build_plan
        from ampnet_opt.runtime.tensorrt.plan import PLAN

        plan = build_plan(self.name, graph, precision, options, progress)
        (directory / PLAN).write_bytes(plan.data)
        return Compiled(plan.version, plan.target, [PLAN], plan.layers)

    def advice(self, precision: str) -> str:
        if not FAMILIES[self.name].ahead or precision != "int8":
            return ""
        return (
            "take --fp16 for TensorRT-RTX until INT8 has been timed on a GPU: a second kernel quantises what an INT8 "
            "convolution writes, so that INT8 runs more kernels and writes more bytes than FP16 (docs/results/gpu.md)"
        )

    def check(self, sidecar: Sidecar) -> None:
        from ampnet_opt.runtime.tensorrt.plan import check

        check(sidecar)

    def require_twin(self, sidecar: Sidecar) -> None:
        from ampnet_opt.runtime.tensorrt.plan import require_twin

        require_twin(sidecar)

    def open(self, directory: Path, sidecar: Sidecar, options: LoadOptions) -> Executor:
        from ampnet_opt.runtime.tensorrt.plan import open_pool

        if options.threads is not None:
            raise MisuseError(f"threads are for the cpu backend; an engine for {self.name} runs on the GPU")
        return open_pool(directory, sidecar, options.contexts, options.cuda_graph, options.blocking_wait)

    def open_network(self, graph: FlexibleGraph, threads: Optional[int] = None) -> Network:
        from ampnet_opt.runtime.tensorrt import network

        return network.Network(self.name, graph)

    def layers(self, directory: Path, sidecar: Sidecar) -> List[Layer]:
        from ampnet_opt.runtime.tensorrt.layers import list_layers

        try:
            self.check(sidecar)
            return list_layers(directory, sidecar)
        except AmpnetError as error:
            raise AmpnetError(f"only a machine that can run the engine can open it: {error}") from error

    def layer_times(
        self, directory: Path, sidecar: Sidecar, faces: Tuple[np.ndarray, np.ndarray], runs: int, threads: Optional[int]
    ) -> List[Tuple[str, str, float]]:
        from ampnet_opt.runtime.tensorrt.profiler import layer_times

        return layer_times(directory, sidecar, faces, runs)


BACKENDS = {name: Nvidia(name) for name in FAMILIES}
