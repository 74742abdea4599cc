"""The backends there are, by name. One is imported when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.text import listed

if TYPE_CHECKING:
    from ampnet_opt.runtime.backend import Backend

# Name -> the module whose BACKENDS holds it.
REGISTERED = {
    "cpu": "ampnet_opt.runtime.openvino.backend",
    "tensorrt": "ampnet_opt.runtime.tensorrt.backend",
    "tensorrt-rtx": "ampnet_opt.runtime.tensorrt.backend",
    "onnxruntime": "ampnet_opt.runtime.onnxruntime.backend",
    "onnxruntime-cuda": "ampnet_opt.runtime.onnxruntime.backend",
    "onnxruntime-tensorrt": "ampnet_opt.runtime.onnxruntime.backend",
}


def find_backend(name: str) -> Backend:
    """The backend of a name. Raises MisuseError when there is none."""
    if name not in REGISTERED:
        raise MisuseError(f"there is no backend {name}; there are {listed(list(REGISTERED))}")
    found: Backend = import_module(REGISTERED[name]).BACKENDS[name]
    return found
