"""NVIDIA's Python modules, TensorRT and TensorRT for RTX: where they differ, and what they say while they work."""

from __future__ import annotations

import platform
import re
import threading
import weakref
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.installing import install_command
from ampnet_opt.core.text import one_line, release
from ampnet_opt.runtime.cuda import Gpu
from ampnet_opt.runtime.sidecar import Sidecar

RESOURCE = re.compile(r"libnvinfer_builder_resource_(sm\d+|ptx)\.so")
QUOTED = 3  # errors of the library that a message quotes
_ADDING = threading.Lock()


@dataclass(frozen=True)
class Family:
    """What the two libraries differ in.

    Attributes:
        module: the Python module. extra: of this package, which installs it. advice: more on that, or "".
        lean: a module that runs version-compatible plans and has nothing else, or "".
        ahead: whether it compiles for GPUs that are not there; else it times kernels on this machine's GPU.
    """

    module: str
    extra: str
    advice: str
    lean: str
    ahead: bool


FAMILIES = {
    "tensorrt": Family(
        "tensorrt",
        "tensorrt",
        " (on a Jetson it belongs to the system's Python: work in a virtual environment made with --system-site-packages)",
        "tensorrt_lean",
        ahead=False,
    ),
    "tensorrt-rtx": Family("tensorrt_rtx", "rtx", "", "", ahead=True),
}


def load_library(backend: str) -> Any:
    """The backend's Python module, or AmpnetError that says how to get it."""
    family = FAMILIES[backend]
    try:
        return import_module(family.module)
    except ImportError as error:
        raise AmpnetError(
            f"the {backend} backend needs the module {family.module} ({error}); install it with: "
            f"{install_command(family.extra)}{family.advice}"
        ) from error


def load_runtime(sidecar: Sidecar) -> Any:
    """The module that runs an engine: its backend's own; without that, tensorrt_lean for one built version-compatible."""
    if sidecar.target.get("version_compatible") and FAMILIES[sidecar.backend].lean:
        try:
            import_module(FAMILIES[sidecar.backend].module)
        except ImportError:
            try:
                return import_module(FAMILIES[sidecar.backend].lean)
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

    class Logger(base):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            base.__init__(self)
            self.listeners: Tuple[Any, ...] = ()  # weak references

        def log(self, severity: Any, message: str) -> None:
            for reference in self.listeners:
                listener = reference()
                if listener is not None:
                    listener.add(severity.name, message)

    return Logger()


def started(trt: Any, kind: Any, logger: Messages) -> Any:
    """The library's Builder or Runtime (`kind`); AmpnetError when it does not come up, as with too old a driver."""
    try:
        return kind(logger.native)
    except TypeError as error:  # what the bindings make of a null pointer; 8.5 says why in a warning
        reason = (logger.errors + logger.warnings or ["the library gave no reason"])[-1]
        raise AmpnetError(f"TensorRT {trt.__version__} does not start: {reason}") from error


def known_capabilities(trt: Any) -> Dict[str, Any]:
    """Compute capabilities of the GPUs that TensorRT-RTX compiles for, "8.9" say, with the library's names of them."""
    members = trt.ComputeCapability.__members__
    return {f"{int(name[2:-1])}.{name[-1]}": member for name, member in members.items() if name.startswith("SM")}


def unknown_gpu(trt: Any, gpu: Gpu) -> str:
    """Why TensorRT-RTX does not run on a GPU, and what to do; "" where it does."""
    known = known_capabilities(trt)
    if gpu.compute_capability in known:
        return ""
    return (
        f"TensorRT-RTX {trt.__version__} does not run on this machine's {gpu.name}, of compute capability "
        f"{gpu.compute_capability}: it does on {', '.join(known)}; use --backend tensorrt"
    )


def no_kernels(version: str, gpu: Gpu, folder: Optional[Path]) -> str:
    """Why TensorRT's builder has no kernels for a GPU, and what to do; "" where it has some, or does not tell.

    folder: of its libraries, None where that is unknown. From some release of 10 on, its kernels are in a file for each
    compute capability, libnvinfer_builder_resource_sm86.so.10.16.1, which also serves later GPUs of that generation (8.7:
    Orin has no file of its own), and in one that any GPU can compile, ..._ptx.so. Before, all are in one file.
    """
    files = [] if folder is None else [RESOURCE.match(path.name) for path in folder.glob("libnvinfer_builder_resource*")]
    found = {file.group(1) for file in files if file}
    known = sorted(divmod(int(name[2:]), 10) for name in found if name != "ptx")
    major, minor = release(gpu.compute_capability)
    if not known or "ptx" in found or any(own == major and lowest <= minor for own, lowest in known):
        return ""
    listed_here = ", ".join(f"{own}.{lowest}" for own, lowest in known)
    return (
        f"TensorRT {version} builds nothing for this machine's {gpu.name}, of compute capability {gpu.compute_capability}: "
        f"its libraries in {folder} have kernels for {listed_here}; install a TensorRT that has them for this GPU"
    )


def library_folder() -> Optional[Path]:
    """Where libnvinfer lies that this process has loaded; None where none is, or the system does not tell."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    files = [Path(line.split(maxsplit=5)[5]) for line in lines if "/libnvinfer.so" in line]
    return files[0].parent if files else None


def this_platform() -> str:
    return f"{platform.system().lower()}-{platform.machine()}"


def this_board() -> str:
    """The model of a Jetson or another board with a device tree, "" elsewhere: CUDA calls the GPU of each Orin "Orin"."""
    try:
        return Path("/proc/device-tree/model").read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def diagnostics(trt: Any, why: Any) -> str:
    """Names of the bits that get_engine_validity has set."""
    members = trt.EngineInvalidityDiagnostics.__members__.items()
    found = [name.lower().replace("_", " ") for name, member in members if int(why) & int(member)]
    return ", ".join(found) or "no reason given"
