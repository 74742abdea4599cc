"""What this machine can do: each backend with its version, or the reason why not and what to do."""

from __future__ import annotations

import platform
from typing import Any, Dict

from ampnet_opt import __version__
from ampnet_opt.errors import AmpnetError
from ampnet_opt.machine import available_cores, processor_name
from ampnet_opt.runtime import cpu, cuda, trt


def default_backend() -> str:
    """tensorrt where its module and a GPU are, else cpu."""
    return "tensorrt" if _tensorrt("tensorrt")["runs"] else "cpu"


def examine() -> Dict[str, Any]:
    """Machine, and for each backend whether it `builds` and `runs` engines, its version, precisions, or `problem`."""
    return {
        "ampnet_opt": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "cores": available_cores(),
        "gpu": _gpu(),
        "convert": _convert(),
        "backends": {"cpu": _cpu(), **{name: _tensorrt(name) for name in trt.MODULES}},
        "default_backend": default_backend(),
    }


def _gpu() -> Dict[str, Any]:
    try:
        found = cuda.gpu()
    except AmpnetError as error:
        return {"found": False, "problem": str(error)}
    return {"found": True, "name": found.name, "compute_capability": found.compute_capability}


def _convert() -> Dict[str, Any]:
    """Versions of what turns checkpoints into graphs, read without importing it."""
    from importlib.metadata import PackageNotFoundError, version

    versions: Dict[str, str] = {}
    for name in ("torch", "onnx", "onnxsim", "onnxruntime", "safetensors"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            return {"works": False, "problem": f"{name} is missing; install it with: pip install 'ampnet-opt[convert]'"}
    return {"works": True, "versions": versions}


def _cpu() -> Dict[str, Any]:
    try:
        version = cpu.load_openvino().__version__
        able = cpu.capabilities()
    except AmpnetError as error:
        return {"builds": False, "runs": False, "problem": str(error)}
    precisions = [name for name, capability in cpu.CAPABILITY.items() if capability in able]
    return {"builds": True, "runs": True, "version": version, "precisions": precisions}


def _tensorrt(backend: str) -> Dict[str, Any]:
    try:
        version = trt.load_library(backend).__version__
    except AmpnetError as error:
        return {"builds": False, "runs": False, "problem": str(error)}
    try:
        cuda.gpu()
    except AmpnetError as error:
        # RTX compiles ahead of time for GPUs that are not there; TensorRT times kernels on the one that is.
        return {"builds": backend == "tensorrt-rtx", "runs": False, "version": version, "problem": str(error)}
    return {"builds": True, "runs": True, "version": version}


def render(findings: Dict[str, Any]) -> Any:
    """The findings as rich tables."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    machine = Table(show_header=False, box=None, pad_edge=False)
    for key in ("ampnet_opt", "python", "system", "processor", "cores"):
        machine.add_row(key.replace("_", "-"), str(findings[key]))
    gpu, convert = findings["gpu"], findings["convert"]
    machine.add_row(
        "gpu", f"{gpu['name']}, compute capability {gpu['compute_capability']}" if gpu["found"] else escape(gpu["problem"])
    )
    made = ", ".join(f"{name} {version}" for name, version in convert.get("versions", {}).items())
    machine.add_row("convert", made or escape(convert["problem"]))
    machine.add_row("default", findings["default_backend"])
    table = Table("backend", "builds", "runs", "version and precisions, or why not and what to do")
    for name, backend in findings["backends"].items():
        notes = [backend.get("version", ""), ", ".join(backend.get("precisions", [])), backend.get("problem", "")]
        yes = {True: "yes", False: "no"}
        table.add_row(name, yes[backend["builds"]], yes[backend["runs"]], escape("; ".join(note for note in notes if note)))
    return Group(machine, "", table)
