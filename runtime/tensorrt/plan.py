"""A plan on the GPU, and whether this machine can run it."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any, Dict, List, Optional

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.text import count, release
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.pool import Pool
from ampnet_opt.runtime.sidecar import Sidecar, read_unchanged, rebuild_command
from ampnet_opt.runtime.tensorrt.executor import ContextExecutor
from ampnet_opt.runtime.tensorrt.kernel_cache import KernelCache, cache_path
from ampnet_opt.runtime.tensorrt.library import (
    FAMILIES,
    diagnostics,
    load_runtime,
    new_logger,
    started,
    this_board,
    this_platform,
)

log = logging.getLogger(__name__)

PLAN = "engine.plan"


def check(sidecar: Sidecar) -> None:
    """AmpnetError when this machine cannot run the engine: no module, another version, no GPU, or one it is not for."""
    backend, target = sidecar.backend, sidecar.target
    again = f"build it again here: {rebuild_command(sidecar)}"
    version = load_runtime(sidecar).__version__
    if not _compatible(sidecar, version):
        built = f"the engine was built with {backend} {sidecar.backend_version}"
        raise AmpnetError(f"{built}, but {version} is installed; {again}")
    if target.get("platform", this_platform()) != this_platform():
        raise AmpnetError(f"the engine was built for {target['platform']}, but this machine is {this_platform()}; {again}")
    gpu = cuda.gpu()
    capabilities = target.get("compute_capabilities") or [target.get("compute_capability")]
    if target.get("hardware_compatible") == "ampere+":
        able, capabilities = release(gpu.compute_capability) >= (8, 0), ["8.0 and later"]
    else:
        able = gpu.compute_capability in capabilities
    if not able:
        raise AmpnetError(
            f"the engine is for GPUs of compute capability {', '.join(map(str, capabilities))}, but this machine's "
            f"{gpu.name} has {gpu.compute_capability}; {again}"
        )


def _compatible(sidecar: Sidecar, version: str) -> bool:
    """Whether `version` of the library runs an engine: that which built it (NVIDIA, "Engine Compatibility", of TensorRT and
    TensorRT-RTX), and later ones where it was built for them; those cross to the next major version (8 to 10, 10 to 11),
    and no further."""
    built, installed = release(sidecar.backend_version), release(version)
    if sidecar.target.get("version_compatible"):
        return built <= installed and (built[:1] == installed[:1] or (built[0], installed[0]) in {(8, 10), (10, 11)})
    return sidecar.backend_version == version


def built_elsewhere(target: Dict[str, Any], gpu: str, board: str) -> str:
    """Where an engine was built and what this is, for one of another GPU or board than this one; "" for this machine's.

    target: of the sidecar. A plan that was built for several GPUs names none.
    """
    built, here = (target.get("gpu"), target.get("board")), (gpu, board or None)
    if target.get("hardware_compatible", "none") != "none" or built[0] is None or built in (here, (gpu, None)):
        return ""
    names = [" on ".join(filter(None, machine)) for machine in (built, here)]
    return f"the engine was built for {names[0]}, and this is {names[1]}"


def require_twin(sidecar: Sidecar) -> None:
    """AmpnetError unless this machine has the GPU, board and library that a finished engine was built with."""
    check(sidecar)
    elsewhere = built_elsewhere(sidecar.target, cuda.gpu().name, this_board())
    if elsewhere:
        raise AmpnetError(f"{elsewhere}: take a bundle of the checkpoint, from which build makes the engine here")


def open_pool(
    directory: Path, sidecar: Sidecar, contexts: int = 1, cuda_graph: bool = True, blocking_wait: bool = False
) -> Pool:
    """The plan, loaded once where its contexts may share it, and `contexts` executors on it; see `Engine.load`."""
    elsewhere = built_elsewhere(sidecar.target, cuda.gpu().name, this_board())
    if elsewhere:
        slower = "it runs, but its kernels were timed elsewhere; build it here for the fastest ones"
        log.warning("%s, of equal compute capability: %s", elsewhere, slower)
    with cuda.current():
        plans = [engine_plan(directory, sidecar) for _ in range(1 if shares_profile(sidecar) else contexts)]
    executors: List[ContextExecutor] = []
    try:
        for i in range(contexts):
            executors.append(ContextExecutor(plans[i % len(plans)], sidecar, cuda_graph, blocking_wait))
    except BaseException:
        Pool(executors).close()
        raise
    return Pool(executors)


def shares_profile(sidecar: Sidecar) -> bool:
    """Whether several contexts may use the one optimisation profile of a plan at a time: not in TensorRT 8.5, by a flag of
    the build in 8.6 (PreviewFeature.PROFILE_SHARING_0806), and always from 10 on and in TensorRT-RTX."""
    return FAMILIES[sidecar.backend].ahead or release(sidecar.backend_version) >= (8, 6)


def engine_plan(directory: Path, sidecar: Sidecar) -> LoadedPlan:
    """The plan of an engine; made with the GPU's context current."""
    path = directory / PLAN
    return LoadedPlan(
        sidecar.backend,
        load_runtime(sidecar),
        read_unchanged(path, sidecar.files),
        f"engine {path}",
        host_code=bool(sidecar.target.get("version_compatible")),
        dla_core=sidecar.target.get("dla_core"),
    )


class PlanRefused(AmpnetError):
    """A plan of another version, GPU or kind than the library takes."""


class LoadedPlan:
    """A plan on the GPU: what its contexts share, freed with the last of them. Made with the GPU's context current.

    backend: tensorrt or tensorrt-rtx. library: the module that runs it. data: the plan. name: for messages. host_code: that
    it brings its lean runtime, as a version-compatible plan does. dla_core: that it was built for, if any. tensors:
    names of the inputs and outputs, in order, with whether each is an input. Raises AmpnetError when the plan cannot be
    loaded, PlanRefused when that is because the library does not take it.
    """

    def __init__(
        self,
        backend: str,
        library: Any,
        data: Any,
        name: str,
        *,
        host_code: bool = False,
        dla_core: Optional[int] = None,
    ) -> None:
        self.backend, self.library, self.name = backend, library, name
        self.logger = new_logger(library)
        self._runtime = started(library, library.Runtime, self.logger)  # must outlive the engine
        if host_code:
            self._runtime.engine_host_code_allowed = True
        if dla_core is not None:
            self._choose_dla(dla_core)
        self._config: Any = None  # of the contexts, which do not keep it alive; named before the engine, so freed before it
        self._kernels: Optional[KernelCache] = None
        self._sha256 = hashlib.sha256(data).hexdigest()
        if hasattr(self._runtime, "get_engine_validity"):
            validity, why = self._runtime.get_engine_validity(data)
            if validity == library.EngineValidity.INVALID:
                raise PlanRefused(f"{name} cannot run here ({diagnostics(library, why)}); build it again on this machine")
        with cuda.RECORDING.waiting():  # it takes GPU memory
            self.engine = self._runtime.deserialize_cuda_engine(data)
        if self.engine is None:
            reason = self.logger.reason()
            kind = AmpnetError if "memory" in reason.lower() else PlanRefused
            raise kind(f"{name} cannot be loaded: {reason}")
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        self.tensors = {tensor: self.engine.get_tensor_mode(tensor) == library.TensorIOMode.INPUT for tensor in names}

    def _choose_dla(self, core: int) -> None:
        """Otherwise all plans run on core 0, whichever they were built on."""
        cores = self._runtime.num_DLA_cores
        if core >= cores:
            found = count(cores, "DLA core") if cores else "no DLA"
            raise AmpnetError(f"{self.name} is for DLA core {core}, counted from 0, and this machine has {found}")
        self._runtime.DLA_core = core

    def create_context(self, cuda_graph: bool) -> Any:
        """An execution context. TensorRT-RTX records CUDA graphs itself, once the kernels for a shape are compiled."""
        engine = self.engine
        with cuda.RECORDING.waiting():
            if FAMILIES[self.backend].ahead:
                if self._config is None:
                    self._configure(cuda_graph)
                context = engine.create_execution_context(runtime_config=self._config)
            else:
                context = engine.create_execution_context()
        if context is None:
            raise AmpnetError(f"{self.name} cannot be run: {self.logger.reason()}")
        return context

    def _configure(self, cuda_graph: bool) -> None:
        """How TensorRT-RTX runs the plan. Kernels for a shape are compiled before it first runs, not beside its first
        runs with general kernels: all runs of a shape then take the same kernels, and give the same answers.
        """
        trt = self.library
        self._config = config = self.engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        if cuda_graph and hasattr(trt, "CudaGraphStrategy"):
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._kernels = KernelCache(config, cache_path(cuda.gpu(), trt.__version__, self._sha256))

    def keep_kernels(self) -> None:
        """Keep what TensorRT-RTX has compiled, for the next process. Call it with the GPU's context current."""
        if self._kernels is not None:
            self._kernels.save()
