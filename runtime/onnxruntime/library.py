"""ONNX Runtime's Python module, and its execution providers."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Dict

from ampnet_opt.core.errors import AmpnetError


@dataclass(frozen=True)
class Provider:
    """An execution provider of ONNX Runtime's as one backend.

    Attributes:
        name: ONNX Runtime's own. device: "cpu" or "gpu".
        package: that brings it.
        options: what it is told, by the engine's precision.
    """

    name: str
    device: str
    package: str
    options: Dict[str, Dict[str, str]]


PROVIDERS = {
    # No INT8: its integer convolutions took 2.4 times as long as its float32 ones for this network (x86-64 with AVX2), and
    # from Q/DQ pairs it makes none where a convolution's result stays in floating point, as in every block here.
    "onnxruntime": Provider("CPUExecutionProvider", "cpu", "onnxruntime", {"fp32": {}}),
    "onnxruntime-cuda": Provider(
        "CUDAExecutionProvider", "gpu", "onnxruntime-gpu", {"fp32": {"use_tf32": "0"}, "fp16": {"use_tf32": "0"}}
    ),
    "onnxruntime-tensorrt": Provider(
        "TensorrtExecutionProvider",
        "gpu",
        "onnxruntime-gpu",
        {
            "fp32": {},
            "fp16": {"trt_fp16_enable": "1"},
            "int8": {"trt_fp16_enable": "1", "trt_int8_enable": "1"},
        },
    ),
}


def load_library(backend: str) -> Any:
    """The onnxruntime module, or AmpnetError that says how to get it, or which build of it has the provider."""
    provider = PROVIDERS[backend]
    try:
        library = import_module("onnxruntime")
    except ImportError as error:
        raise AmpnetError(
            f"the {backend} backend needs ONNX Runtime ({error}); install it with: pip install {provider.package}"
        ) from error
    if provider.name not in library.get_available_providers():
        raise AmpnetError(
            f"ONNX Runtime {library.__version__} as installed has no {provider.name}, which the {backend} backend needs; "
            f"put {provider.package} in place of onnxruntime"
        )
    return library
