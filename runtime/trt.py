"""The tensorrt and tensorrt-rtx backends: a plan, run through the tensor API that both have from TensorRT 8.5 on."""

from __future__ import annotations

import platform
from importlib import import_module
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np

from ampnet_opt.errors import AmpnetError, MisuseError
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.sidecar import INPUTS, OUTPUT, Sidecar

PLAN = "engine.plan"
MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
INSTALL = {
    "tensorrt": "pip install 'ampnet-opt[tensorrt]' (on a Jetson it belongs to the system's Python: work in a virtual "
    "environment made with --system-site-packages)",
    "tensorrt-rtx": "pip install 'ampnet-opt[rtx]'",
}
QUOTED = 3  # errors of the library that a message quotes


def load_library(backend: str) -> Any:
    """The backend's Python module, or AmpnetError that says how to get it."""
    try:
        return import_module(MODULES[backend])
    except ImportError as error:
        raise AmpnetError(
            f"the {backend} backend needs the module {MODULES[backend]} ({error}); install it with: {INSTALL[backend]}"
        ) from error


def new_logger(trt: Any) -> Any:
    """An ILogger that prints nothing and keeps what it is told: lists `errors` and `warnings`, and `reason()`."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: List[str] = []
            self.warnings: List[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors.append(one_line(message))
            elif severity == trt.ILogger.Severity.WARNING:
                self.warnings.append(one_line(message))

        def reason(self) -> str:
            """The last errors, as the end of a sentence."""
            return "; ".join(list(dict.fromkeys(self.errors))[-QUOTED:]) or "the library gave no reason"

    return Logger()


def one_line(message: str) -> str:
    return " ".join(message.split())


def this_platform() -> str:
    return f"{platform.system().lower()}-{platform.machine()}"


def check(sidecar: Sidecar) -> None:
    """AmpnetError when this machine cannot run the engine: no module, another version, no GPU, or one it is not for."""
    backend, target = sidecar.backend, sidecar.target
    again = f"build it again here: ampnet-opt build ... --backend {backend}"
    version = load_library(backend).__version__
    if _compatible(backend, version) != _compatible(backend, sidecar.backend_version):
        built = f"the engine was built with {backend} {sidecar.backend_version}"
        raise AmpnetError(f"{built}, but {version} is installed; {again}")
    if target.get("platform", this_platform()) != this_platform():
        raise AmpnetError(f"the engine was built for {target['platform']}, but this machine is {this_platform()}; {again}")
    gpu = cuda.gpu()
    capabilities = target.get("compute_capabilities") or [target.get("compute_capability")]
    if gpu.compute_capability not in capabilities:
        raise AmpnetError(
            f"the engine is for GPUs of compute capability {', '.join(map(str, capabilities))}, but this machine's "
            f"{gpu.name} has {gpu.compute_capability}; {again}"
        )


def _compatible(backend: str, version: str) -> str:
    """What must be equal in two versions: RTX plans outlive a patch release, TensorRT's do not."""
    return ".".join(version.split(".")[:2]) if backend == "tensorrt-rtx" else version


def open_executor(directory: Path, sidecar: Sidecar, threads: Optional[int]) -> Executor:
    if threads is not None:
        raise MisuseError(f"threads are for the cpu backend; an engine for {sidecar.backend} runs on the GPU")
    return Executor(directory / PLAN, sidecar)


class Executor:
    """Holds the plan on the GPU, with buffers for the profile's largest batch."""

    def __init__(self, path: Path, sidecar: Sidecar) -> None:
        trt = load_library(sidecar.backend)
        self._logger = new_logger(trt)
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._buffers: Dict[str, cuda.Buffer] = {}
        self._count = 0  # rows that the context's input shapes are set for
        self._queue = cuda.open_queue()
        try:
            with self._queue.current():
                self._load(trt, path)
                self._allocate(trt, sidecar)
        except BaseException:
            self.close()
            raise

    def _load(self, trt: Any, path: Path) -> None:
        self._runtime = trt.Runtime(self._logger)
        plan = path.read_bytes()
        if hasattr(self._runtime, "get_engine_validity"):
            validity, why = self._runtime.get_engine_validity(plan)
            if validity == trt.EngineValidity.INVALID:
                raise AmpnetError(f"engine {path} cannot run here ({diagnostics(trt, why)}); build it again on this machine")
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise AmpnetError(f"engine {path} cannot be loaded: {self._logger.reason()}")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise AmpnetError(f"engine {path} cannot be run: {self._logger.reason()}")

    def _allocate(self, trt: Any, sidecar: Sidecar) -> None:
        dtypes = {INPUTS[0]: sidecar.image_input, INPUTS[1]: "float32", OUTPUT: "float32"}
        kinds = {"uint8": "UINT8", "float32": "FLOAT"}
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        if set(names) != set(dtypes):
            raise AmpnetError(f"the plan's tensors are {', '.join(names)}, expected {', '.join(dtypes)}; build it again")
        for name, dtype in dtypes.items():
            if self._engine.get_tensor_dtype(name) != getattr(trt.DataType, kinds[dtype]):
                raise AmpnetError(f"the plan's {name} is not {dtype}, as its sidecar says; build it again")
            shape = (sidecar.batch.max, *tuple(self._engine.get_tensor_shape(name))[1:])
            self._buffers[name] = self._queue.buffer(shape, dtype)
            self._context.set_tensor_address(name, self._buffers[name].address)

    def run(self, images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Logits float32 [n, classes]; images and landmarks as the plan takes them, n within its profile."""
        count, inputs = len(images), dict(zip(INPUTS, (images, landmarks)))
        with self._queue.current():
            if count != self._count:
                self._reshape(inputs)
            for name, value in inputs.items():
                buffer = self._buffers[name]
                np.copyto(buffer.host[:count], value, casting="no")
                self._queue.upload(buffer, count)
            if not self._context.execute_async_v3(self._queue.handle):
                raise AmpnetError(f"the engine failed: {self._logger.reason()}")
            self._queue.download(self._buffers[OUTPUT], count)
            self._queue.synchronize()
            return self._buffers[OUTPUT].host[:count].copy()

    def _reshape(self, inputs: Dict[str, np.ndarray]) -> None:
        self._count = 0
        for name, value in inputs.items():
            if not self._context.set_input_shape(name, value.shape):
                raise AmpnetError(f"the engine does not take {name} of {list(value.shape)}: {self._logger.reason()}")
        self._count = len(value)

    def close(self) -> None:
        """Free the plan, the context and the buffers; in that order, which TensorRT asks for."""
        with self._queue.current():
            self._context = self._engine = self._runtime = None
            self._buffers.clear()
            self._queue.close()


def diagnostics(trt: Any, why: Any) -> str:
    """Names of the bits that get_engine_validity has set."""
    members = trt.EngineInvalidityDiagnostics.__members__.items()
    found = [name.lower().replace("_", " ") for name, member in members if int(why) & int(member)]
    return ", ".join(found) or "no reason given"
