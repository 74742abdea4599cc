"""The cpu backend: OpenVINO, on whatever instructions this processor has."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np

from ampnet_opt.errors import AmpnetError
from ampnet_opt.runtime.sidecar import INPUTS, Sidecar

MODEL = "engine.xml"
# Arithmetic of the float part, and the capability that OpenVINO must report for the engine's precision.
ARITHMETIC = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
CAPABILITY = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16", "int8": "INT8"}


def load_openvino() -> Any:
    """The openvino module, or AmpnetError that says how to get it."""
    try:
        import openvino
    except ImportError as error:
        raise AmpnetError(
            f"the cpu backend needs OpenVINO ({error}); install it with: pip install 'ampnet-opt[cpu]'"
        ) from error
    return openvino


def capabilities() -> List[str]:
    """What this processor computes at speed, in OpenVINO's words: FP32, FP16, BF16, INT8."""
    return list(load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def require_precision(precision: str) -> None:
    """AmpnetError when this processor does not compute in `precision`: nothing is done in another one instead."""
    able = [name for name, capability in CAPABILITY.items() if capability in capabilities()]
    if precision not in able:
        raise AmpnetError(f"this processor does not compute in {precision}; the cpu backend here can run {', '.join(able)}")


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
    return Executor(directory / MODEL, sidecar.precision, threads)


class Executor:
    """Compiles the graph when a batch size is first used: for one image with fixed shapes, else with a dynamic batch.

    Fixed shapes save about an eighth of the latency of one image; two compiled graphs would need twice the memory, so
    only what is used is made.
    """

    def __init__(self, path: Path, precision: str, threads: Optional[int]) -> None:
        openvino = load_openvino()
        self._core = openvino.Core()
        self._tensor = openvino.Tensor
        self._model = self._core.read_model(path)
        self._config: Dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": ARITHMETIC[precision],
        }
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads
        self._requests: Dict[bool, Any] = {}

    def run(self, images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        request = self._request(single=len(images) == 1)
        # Tensors over our own memory, and one copy out: the request's convenience call costs a tenth of a millisecond.
        for name, value in zip(INPUTS, (images, landmarks)):
            request.set_tensor(name, self._tensor(value, shared_memory=True))
        request.start_async()
        request.wait()
        return request.get_output_tensor(0).data.copy()

    def _request(self, single: bool) -> Any:
        if single not in self._requests:
            model = self._model.clone()
            model.reshape({port: [1 if single else -1, *list(port.partial_shape)[1:]] for port in model.inputs})
            compiled = self._core.compile_model(model, "CPU", self._config)
            self._requests[single] = compiled.create_infer_request()
        return self._requests[single]

    def close(self) -> None:
        self._requests.clear()
