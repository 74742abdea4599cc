"""The cpu backend: OpenVINO, on whatever instructions this processor has."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, Collection, Deque, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

import numpy as np

from ampnet_opt.errors import AmpnetError
from ampnet_opt.runtime.batches import filled
from ampnet_opt.runtime.compiled_cache import load_or_compile
from ampnet_opt.runtime.sidecar import INPUTS, Sidecar

MODEL = "engine.xml"
REASON = 300  # characters of what OpenVINO says
# Arithmetic of the float part, and the capability that OpenVINO must report for the engine's precision.
ARITHMETIC = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
CAPABILITY = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16", "int8": "INT8"}


def load_openvino() -> Any:
    """The openvino module, or AmpnetError that says how to get it."""
    try:
        with _without_telemetry():
            import openvino
    except ImportError as error:
        raise AmpnetError(
            f"the cpu backend needs OpenVINO ({error}); install it with: pip install 'ampnet-opt[cpu]'"
        ) from error
    return openvino


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """Hides a module that OpenVINO can do without: with it, importing OpenVINO reports to a web service, without being
    asked, from a process forked beside running threads, which may hang for ever.
    """
    modules: Dict[str, Any] = sys.modules
    hidden = "openvino_telemetry" not in modules
    if hidden:
        modules["openvino_telemetry"] = None  # an import of it fails
    try:
        yield
    finally:
        if hidden:
            modules.pop("openvino_telemetry", None)


@lru_cache(maxsize=None)
def core() -> Any:
    """OpenVINO's Core: one, until the process ends. After two were freed, the next signal ends the process (2026.4)."""
    return load_openvino().Core()


def capabilities() -> List[str]:
    """What this processor computes at speed, in OpenVINO's words: FP32, FP16, BF16, INT8."""
    return list(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def precisions() -> List[str]:
    """The engine precisions that this processor computes in."""
    able = capabilities()
    return [name for name, capability in CAPABILITY.items() if capability in able]


def require_precision(precision: str) -> None:
    """AmpnetError when this processor does not compute in `precision`: nothing is done in another one instead."""
    able = precisions()
    if precision not in able:
        raise AmpnetError(f"this processor does not compute in {precision}; the cpu backend here can run {', '.join(able)}")


def said(error: Exception) -> str:
    """What OpenVINO says in an exception, on one line; it can be pages."""
    return " ".join(str(error).split())[:REASON]


def release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "2026.4.1-21984-abc" -> (2026, 4, 1)."""
    return tuple(int(part) for part in version.split("-")[0].split(".") if part.isdigit())


def check(sidecar: Sidecar) -> None:
    """AmpnetError when this machine's OpenVINO is older than the engine's, or lacks its precision."""
    version = load_openvino().__version__
    if release(version) < release(sidecar.backend_version):
        raise AmpnetError(
            f"the engine was built with OpenVINO {sidecar.backend_version}, but {version} is installed, which is older: "
            f"install openvino>={'.'.join(map(str, release(sidecar.backend_version)))}, or build the engine again here"
        )
    require_precision(sidecar.precision)


def open_executor(directory: Path, sidecar: Sidecar, threads: Optional[int]) -> Executor:
    return Executor(directory / MODEL, sidecar.precision, threads, {1, sidecar.batch.opt}, sidecar.files)


class Executor:
    """Compiles the graph when it is first used: with fixed shapes for some batches, with a dynamic batch for all others.

    Fixed shapes save a tenth of the latency of a full-size network and a third of a small one's; another compiled graph
    needs as much memory again, so only what is used is made. fixed: these batches. files: hashes of the engine's files, by
    which what was compiled is kept for the next process; without them it is not.
    """

    # Images of one request of `run_many`. With a stream to itself, a core does as much with 4 as with 16, in less memory.
    MANY = 4

    def __init__(
        self,
        path: Path,
        precision: str,
        threads: Optional[int],
        fixed: Collection[int] = (1,),
        files: Optional[Mapping[str, str]] = None,
    ) -> None:
        self._path, self._fixed, self._files = path, fixed, files
        self._tensor = load_openvino().Tensor
        self._config: Dict[str, Any] = {"INFERENCE_PRECISION_HINT": ARITHMETIC[precision]}
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads
        self._requests: Dict[int, Any] = {}
        self._parallel: Dict[int, Any] = {}
        self._mapped: List[Any] = []  # what compiled models read as long as they live

    def run(self, images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        request = self._request(len(images))
        self._start(request, images, landmarks)
        return _logits(request)

    def run_many(self, batches: Iterable[Tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        """Logits of each batch of images and landmarks, in their order; each core works at a batch of its own.

        All batches but the last are of one size. They are taken ahead: two for each of OpenVINO's streams, so that none
        waits for its next.
        """
        waiting = iter(batches)
        first = next(waiting, None)
        if first is None:
            return
        size = len(first[0])
        if size not in self._parallel:
            self._parallel[size] = self._load(size, PERFORMANCE_HINT="THROUGHPUT")
        compiled = self._parallel[size]
        requests = 2 * compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        idle = [compiled.create_infer_request() for _ in range(requests)]
        busy: Deque[Tuple[Any, int, Any]] = deque()  # requests, how many faces each has, its inputs, which must live as long
        try:
            for images, landmarks in chain([first], waiting):
                if not idle:
                    request, count, _ = busy[0]
                    yield _logits(request)[:count]
                    idle.append(busy.popleft()[0])
                request, inputs = idle.pop(), (filled(images, size), filled(landmarks, size))
                busy.append((request, len(images), inputs))
                self._start(request, *inputs)
            while busy:
                request, count, _ = busy[0]
                yield _logits(request)[:count]
                busy.popleft()
        finally:
            for request, _, _ in busy:  # left early: the inputs must live until nothing reads them
                with contextlib.suppress(RuntimeError):
                    request.wait()

    def profile(self, images: np.ndarray, landmarks: np.ndarray, runs: int) -> List[Tuple[str, str, float]]:
        """What `runs` inferences of these faces cost in each layer: (name, kernel, seconds of one run), as executed.

        Compiled anew, with OpenVINO's own counters.
        """
        shape = self._shape(len(images))
        request = self._compile(shape, PERFORMANCE_HINT="LATENCY", PERF_COUNT=True).create_infer_request()
        seconds: Dict[Tuple[str, str], float] = {}
        for timed in range(-1, runs):  # one untimed run first
            self._start(request, images, landmarks)
            request.wait()
            for layer in request.profiling_info if timed >= 0 else ():
                key = (layer.node_name, f"{layer.node_type} {layer.exec_type}")
                seconds[key] = seconds.get(key, 0.0) + layer.real_time.total_seconds() / runs
        return [(name, kernel, took) for (name, kernel), took in seconds.items()]

    def _start(self, request: Any, images: np.ndarray, landmarks: np.ndarray) -> None:
        # Tensors over our own memory, and one copy out: the request's convenience call costs a tenth of a millisecond.
        for name, value in zip(INPUTS, (images, landmarks)):
            request.set_tensor(name, self._tensor(value, shared_memory=True))
        request.start_async()

    def compiled(self, batch: int) -> Any:
        """OpenVINO's compiled model for `batch` images; not from the cache."""
        return self._compile(self._shape(batch), PERFORMANCE_HINT="LATENCY")

    def _shape(self, batch: int) -> int:
        """The batch to compile for; -1, a dynamic one."""
        return batch if batch in self._fixed else -1

    def _request(self, batch: int) -> Any:
        shape = self._shape(batch)
        if shape not in self._requests:
            self._requests[shape] = self._load(shape, PERFORMANCE_HINT="LATENCY").create_infer_request()
        return self._requests[shape]

    def _load(self, batch: int, **config: Any) -> Any:
        if self._files is None:
            return self._compile(batch, **config)
        identity = {"files": dict(self._files), "batch": batch}
        make = partial(self._compile, batch, **config)
        compiled, memory = load_or_compile(load_openvino(), core(), identity, {**self._config, **config}, make)
        self._mapped.append(memory)
        return compiled

    def _compile(self, batch: int, **config: Any) -> Any:
        try:
            model = core().read_model(self._path)
            model.reshape({port: [batch, *list(port.partial_shape)[1:]] for port in model.inputs})
            return core().compile_model(model, "CPU", {**self._config, **config})
        except RuntimeError as error:  # of a file that was taken as trusted, or a processor that lacks what it needs
            raise AmpnetError(
                f"OpenVINO {load_openvino().__version__} cannot load {self._path}: {said(error)}; build the engine again"
            ) from error

    def close(self) -> None:
        self._requests.clear()
        self._parallel.clear()
        self._mapped.clear()


def _logits(request: Any) -> np.ndarray:
    request.wait()
    return request.get_output_tensor(0).data.copy()
