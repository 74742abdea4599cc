"""What this machine can do: each backend with its version, or the reason why not and what to do."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, List, Optional

from ampnet_opt import __version__
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.installing import install_command
from ampnet_opt.core.processor import available_cores, processor_name
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.backend import REGISTERED, Availability, Backend, find_backend
from ampnet_opt.system.board import Board, cuda_version, driver_version, missing_tensorrt, read_board, system_tensorrt


def default_backend(root: Path = Path("/")) -> str:
    """Of the backends that run here the one of the highest rank; cpu where none does."""
    able = [backend for backend in map(find_backend, REGISTERED) if backend.rank and availability(backend, root).runs]
    return max(able, key=lambda backend: backend.rank).name if able else "cpu"


def examine(root: Path = Path("/")) -> Dict[str, Any]:
    """Machine, and for each backend whether it `builds` and `runs` engines, its version, precisions, or `problem`.

    board: a Jetson's, null elsewhere. cuda, driver: versions, null where none is installed. tensorrt: `found`, where this
    Python finds its module, and `system`, where the system keeps it. root: where the system's files lie.
    """
    board, module = read_board(root), system_tensorrt(root)
    return {
        "ampnet_opt": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "cores": available_cores(),
        "board": None if board is None else asdict(board),
        "advice": [] if board is None else board.advice(),
        "gpu": _gpu(),
        "cuda": cuda_version(root),
        "driver": driver_version(root),
        "tensorrt": {"found": _folder("tensorrt"), "system": None if module is None else asdict(module)},
        "convert": _convert(),
        "backends": {name: _record(availability(find_backend(name), root)) for name in REGISTERED},
        "default_backend": default_backend(root),
    }


def _folder(module: str) -> Optional[str]:
    found = find_spec(module)
    return None if found is None or found.origin is None else str(Path(found.origin).parent)


def _gpu() -> Dict[str, Any]:
    try:
        found, binding = cuda.gpu(), cuda.binding()
    except AmpnetError as error:
        return {"found": False, "problem": str(error)}
    told = {"found": True, "name": found.name, "compute_capability": found.compute_capability}
    return {**told, "binding": binding.queue.binding, "passed_over": binding.passed_over}


def _convert() -> Dict[str, Any]:
    """Versions of what turns checkpoints into graphs, read without importing it."""
    from importlib.metadata import PackageNotFoundError, version

    if sys.version_info < (3, 10):
        return {"works": False, "problem": "it needs Python 3.10 or newer; engines and bundles work with this one"}
    versions: Dict[str, str] = {}
    for name in ("torch", "onnx", "onnxsim", "onnxruntime", "safetensors"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            return {"works": False, "problem": f"{name} is missing; install it with: {install_command('convert')}"}
    return {"works": True, "versions": versions}


def availability(backend: Backend, root: Path = Path("/")) -> Availability:
    """What a backend can do on this machine; on a Jetson, also whether the board and its software let it. root: as of
    `examine`."""
    board = read_board(root)
    if board is not None and backend.device == "gpu":
        problem = _jetson_problem(backend, board, root)
        if problem is not None:
            return Availability(False, False, problem=problem)
    return backend.availability()


def _record(found: Availability) -> Dict[str, Any]:
    """Without what is empty."""
    told = {"builds": found.builds, "runs": found.runs, "version": found.version, "problem": found.problem}
    told["precisions"] = list(found.precisions)
    return {name: value for name, value in told.items() if isinstance(value, bool) or value}


def _jetson_problem(backend: Backend, board: Board, root: Path) -> Optional[str]:
    """Why the backend cannot work on this Jetson, and the fix; None when nothing is known against it."""
    if board.refusal is not None:
        return board.refusal
    if backend.name == "tensorrt-rtx":
        return "TensorRT-RTX is for the GPUs of desktop machines; on a Jetson use --backend tensorrt"
    if find_spec("tensorrt") is None:
        python = "{}.{}".format(*sys.version_info[:2])
        return missing_tensorrt(system_tensorrt(root), python, virtual=sys.prefix != sys.base_prefix)
    return None


def render_findings(findings: Dict[str, Any]) -> Any:
    """The findings as rich tables. `sources`, where the caller added them, are those of `pipeline.sources.available`."""
    from rich.console import Group
    from rich.table import Column, Table
    from rich.text import Text

    machine = Table("", Column(overflow="fold"), show_header=False, box=None, pad_edge=False)
    for key in ("ampnet_opt", "python", "system", "processor", "cores"):
        machine.add_row(key.replace("_", "-"), str(findings[key]))
    for name, text in [*_board_rows(findings["board"]), *_nvidia_rows(findings)]:
        machine.add_row(name, Text(text))
    convert = findings["convert"]
    made = ", ".join(f"{name} {version}" for name, version in convert.get("versions", {}).items())
    machine.add_row("convert", Text(made or convert["problem"]))
    machine.add_row("default", findings["default_backend"])
    for name, text in _source_rows(findings.get("sources", {})):
        machine.add_row(name, Text(text))
    heads = ("backend", "builds", "runs", "version and precisions, or why not and what to do")
    table = Table(*(Column(head, overflow="fold") for head in heads))  # commands are not to be cut
    for name, backend in findings["backends"].items():
        notes = [backend.get("version", ""), ", ".join(backend.get("precisions", [])), backend.get("problem", "")]
        yes = {True: "yes", False: "no"}
        table.add_row(name, yes[backend["builds"]], yes[backend["runs"]], Text("; ".join(note for note in notes if note)))
    return Group(machine, "", table, *(Text(f"* {line}") for line in findings["advice"]))


def _source_rows(sources: Dict[str, Any]) -> List[List[str]]:
    """What `run` can read here: for each kind of source what it is read with, or why it is not."""
    rows = []
    for kind, library in (("videos", "PyAV"), ("cameras", "OpenCV"), ("csi", "GStreamer")):
        if kind in sources:
            found = sources[kind]
            with_it = " ".join(filter(None, (library, found.get("version"))))
            there = found.get("found")
            cameras = "" if there is None else f"; found: {', '.join(there) or 'none'}"
            rows.append([kind, (found["problem"] or with_it) + cameras])
    return rows


def _board_rows(board: Optional[Dict[str, Any]]) -> List[List[str]]:
    if board is None:
        return []
    rows = [["board", ", ".join(filter(None, (board["model"], board["soc"]))) or "a Jetson of unknown model"]]
    if board["compute_capability"]:
        rows[0][1] += f", compute capability {board['compute_capability']}"
    ships = board["ships"]
    with_it = f", with TensorRT {ships['tensorrt']}, CUDA {ships['cuda']} and Python {ships['python']}" if ships else ""
    rows.append(["jetpack", f"{board['jetpack'] or 'unknown'} (L4T {board['l4t'] or 'unknown'}){with_it}"])
    if board["power_mode"]:
        rows.append(["power mode", f"{board['power_mode']['name']} ({board['power_mode']['id']})"])
    for name in ("gpu", "cpu"):
        clock = board[f"{name}_clock"]
        if clock:
            rows.append([f"{name} clock", f"{clock['now']:.0f} MHz, of {clock['low']:.0f} to {clock['high']:.0f}"])
    return rows


def _nvidia_rows(findings: Dict[str, Any]) -> List[List[str]]:
    gpu, module = findings["gpu"], findings["tensorrt"]
    rows = [["gpu", gpu.get("problem", "")]]
    if gpu["found"]:
        rows = [["gpu", f"{gpu['name']}, compute capability {gpu['compute_capability']}, by {gpu['binding']}"]]
        if gpu["passed_over"]:
            rows[0][1] += f" (cuda-python does not work here: {gpu['passed_over']})"
    rows += [[name, findings[name]] for name in ("driver", "cuda") if findings[name]]
    if module["found"] or module["system"]:
        rows.append(["tensorrt", module["found"] or f"{module['system']['folder']} (not seen by this Python)"])
    return rows
