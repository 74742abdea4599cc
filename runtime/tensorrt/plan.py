"""The tensorrt and tensorrt-rtx backends: a plan, run through the tensor API that both have from TensorRT 8.5 on."""

from __future__ import annotations

import platform
import threading
import weakref
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Callable, List, Optional, Tuple

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.hashed_files import read_unchanged
from ampnet_opt.runtime.sidecar import Sidecar, rebuild_command
from ampnet_opt.runtime.tensorrt.executor import Executor
from ampnet_opt.runtime.tensorrt.pool import Pool

PLAN = "engine.plan"
MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
INSTALL = {
    "tensorrt": "pip install 'ampnet-opt[tensorrt]' (on a Jetson it belongs to the system's Python: work in a virtual "
    "environment made with --system-site-packages)",
    "tensorrt-rtx": "pip install 'ampnet-opt[rtx]'",
}
QUOTED = 3  # errors of the library that a message quotes
_ADDING = threading.Lock()


def load_library(backend: str) -> Any:
    """The backend's Python module, or AmpnetError that says how to get it."""
    try:
        return import_module(MODULES[backend])
    except ImportError as error:
        raise AmpnetError(
            f"the {backend} backend needs the module {MODULES[backend]} ({error}); install it with: {INSTALL[backend]}"
        ) from error


def load_runtime(sidecar: Sidecar) -> Any:
    """The module that runs an engine: its backend's own; without that, tensorrt_lean for one built version-compatible."""
    if sidecar.target.get("version_compatible") and sidecar.backend == "tensorrt":
        try:
            import_module("tensorrt")
        except ImportError:
            try:
                return import_module("tensorrt_lean")
            except ImportError:
                pass  # the message below names the backend's own
    return load_library(sidecar.backend)


class Messages:
    """What the library says from now on: lists `errors` and `warnings`, and `reason()`. native: the ILogger to give it."""

    def __init__(self, native: Any, sink: Optional[Callable[[str, str], None]]) -> None:
        self.native, self._sink = native, sink
        self.errors: List[str] = []
        self.warnings: List[str] = []

    def add(self, severity: str, message: str) -> None:
        if self._sink is not None:
            self._sink(severity, message)
        if severity in ("INTERNAL_ERROR", "ERROR"):
            self.errors.append(one_line(message))
        elif severity == "WARNING":
            self.warnings.append(one_line(message))

    def reason(self) -> str:
        """The last errors, as the end of a sentence."""
        return "; ".join(list(dict.fromkeys(self.errors))[-QUOTED:]) or "the library gave no reason"


def new_logger(trt: Any, sink: Optional[Callable[[str, str], None]] = None) -> Messages:
    """A listener to the library, which prints nothing; with several engines at once, each hears of all.

    sink: called with each message's severity (VERBOSE, INFO, ...) and text; it must not raise.
    """
    native = _native_logger(trt.ILogger)
    messages = Messages(native, sink)
    with _ADDING:
        native.listeners = (*(x for x in native.listeners if x() is not None), weakref.ref(messages))
    return messages


@lru_cache(maxsize=None)
def _native_logger(base: Any) -> Any:
    """The library's one ILogger, never freed: it keeps a pointer to the first that it is given for as long as any builder or
    runtime is left, be it another's than that logger's, and warns of a second one."""

    class Logger(base):
        def __init__(self) -> None:
            base.__init__(self)
            self.listeners: Tuple[Any, ...] = ()  # weak references

        def log(self, severity: Any, message: str) -> None:
            for reference in self.listeners:
                listener = reference()
                if listener is not None:
                    listener.add(severity.name, message)

    return Logger()


def one_line(message: str) -> str:
    return " ".join(message.split())


def this_platform() -> str:
    return f"{platform.system().lower()}-{platform.machine()}"


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
        able, capabilities = _numbers(gpu.compute_capability) >= (8, 0), ["8.0 and later"]
    else:
        able = gpu.compute_capability in capabilities
    if not able:
        raise AmpnetError(
            f"the engine is for GPUs of compute capability {', '.join(map(str, capabilities))}, but this machine's "
            f"{gpu.name} has {gpu.compute_capability}; {again}"
        )


def _compatible(sidecar: Sidecar, version: str) -> bool:
    """Whether `version` of the library runs an engine: RTX plans outlive a patch release, TensorRT's none, unless they were
    built to run in later versions too; those cross to the next major version (8 to 10, 10 to 11), and no further."""
    built, installed = _numbers(sidecar.backend_version), _numbers(version)
    if sidecar.backend == "tensorrt-rtx":
        return built[:2] == installed[:2]
    if sidecar.target.get("version_compatible"):
        return built <= installed and (built[:1] == installed[:1] or (built[0], installed[0]) in {(8, 10), (10, 11)})
    return sidecar.backend_version == version


def _numbers(version: str) -> Tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def open_executor(
    directory: Path, sidecar: Sidecar, threads: Optional[int], contexts: int = 1, cuda_graph: bool = True
) -> Pool:
    """The plan, loaded once where its contexts may share it, and `contexts` executors on it; see `Engine.load`."""
    if threads is not None:
        raise MisuseError(f"threads are for the cpu backend; an engine for {sidecar.backend} runs on the GPU")
    queue = cuda.open_queue()  # only to make the GPU's context current while the plan is loaded
    with queue.current():
        try:
            plans = [Plan(directory / PLAN, sidecar) for _ in range(1 if shares_profile(sidecar) else contexts)]
        finally:
            queue.close()
    executors: List[Executor] = []
    try:
        for i in range(contexts):
            executors.append(Executor(plans[i % len(plans)], cuda_graph))
    except BaseException:
        Pool(executors).close()
        raise
    return Pool(executors)


def shares_profile(sidecar: Sidecar) -> bool:
    """Whether several contexts may use the one optimisation profile of a plan at a time: not in TensorRT 8.5, by a flag of
    the build in 8.6 (PreviewFeature.PROFILE_SHARING_0806), and always from 10 on and in TensorRT-RTX."""
    return sidecar.backend != "tensorrt" or _numbers(sidecar.backend_version) >= (8, 6)


class Plan:
    """A plan on the GPU: what its executors share, freed with the last of them. Made with the GPU's context current."""

    def __init__(self, path: Path, sidecar: Sidecar) -> None:
        self.library, self.path, self.sidecar = load_runtime(sidecar), path, sidecar
        self.logger = new_logger(self.library)
        self._runtime = self.library.Runtime(self.logger.native)  # must outlive the engine
        if sidecar.target.get("version_compatible"):  # such a plan brings host code: its lean runtime
            self._runtime.engine_host_code_allowed = True
        self._config: Any = None  # of the contexts, which do not keep it alive; named before the engine, so freed before it
        plan = read_unchanged(path, sidecar.files)
        if hasattr(self._runtime, "get_engine_validity"):
            validity, why = self._runtime.get_engine_validity(plan)
            if validity == self.library.EngineValidity.INVALID:
                reason = diagnostics(self.library, why)
                raise AmpnetError(f"engine {path} cannot run here ({reason}); build it again on this machine")
        self.engine = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise AmpnetError(f"engine {path} cannot be loaded: {self.logger.reason()}")

    def create_context(self, cuda_graph: bool) -> Any:
        """An execution context. TensorRT-RTX records CUDA graphs itself, once the kernels for a shape are compiled."""
        trt, engine = self.library, self.engine
        if cuda_graph and hasattr(trt, "CudaGraphStrategy"):
            if self._config is None:
                self._config = config = engine.create_runtime_config()
                config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            context = engine.create_execution_context(runtime_config=self._config)
        else:
            context = engine.create_execution_context()
        if context is None:
            raise AmpnetError(f"engine {self.path} cannot be run: {self.logger.reason()}")
        return context


def diagnostics(trt: Any, why: Any) -> str:
    """Names of the bits that get_engine_validity has set."""
    members = trt.EngineInvalidityDiagnostics.__members__.items()
    found = [name.lower().replace("_", " ") for name, member in members if int(why) & int(member)]
    return ", ".join(found) or "no reason given"
