"""How a graph is compiled: the batches of the engine, and what may be asked of TensorRT's builder beside."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.runtime.sidecar import BatchRange

HARDWARE = {"none": "NONE", "ampere+": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}
LEVELS = range(6)
LARGEST_WORKSPACE = 1 << 24  # MiB, 16 TiB: more than any GPU has, and still a size that the library can be told
# Option -> its name on the command line.
FLAGS = {
    "optimization_level": "--optimization-level",
    "version_compatible": "--version-compatible",
    "hardware_compatible": "--hardware-compatible",
    "workspace": "--workspace",
    "timing_cache": "--timing-cache",
    "dla_core": "--dla",
    "log": "--log",
}


@dataclass(frozen=True)
class BuilderOptions:
    """What is asked of the builder; the defaults leave everything to the library.

    workspace: MiB of GPU memory that one layer may use while it computes; the library's default is all of it.
    timing_cache: file of measured kernel times, read before and added to after a build; by default tensorrt has one for each
    GPU and version in the cache folder, and tensorrt-rtx none. optimization_level: 0 (built fast) to 5 (runs fast), the
    library's default is 3. version_compatible: the plan also runs in later versions, and in the module tensorrt_lean.
    hardware_compatible: the plan also runs on other GPUs: ampere+ (of compute capability 8.0 and later) or
    same-compute-capability; NVIDIA does not support it on Jetsons. dla_core: number of the accelerator of a Jetson that
    computes what it can, the GPU does the rest. log: file that every message of the library is appended to.

    Raises MisuseError for a value that no library takes.
    """

    workspace: Optional[int] = None
    timing_cache: Optional[Path] = None
    optimization_level: Optional[int] = None
    version_compatible: bool = False
    hardware_compatible: str = "none"
    dla_core: Optional[int] = None
    log: Optional[Path] = None

    def __post_init__(self) -> None:
        if self.workspace is not None and not 1 <= self.workspace <= LARGEST_WORKSPACE:
            raise MisuseError(f"the workspace is a number of MiB from 1 to {LARGEST_WORKSPACE}, not {self.workspace}")
        if self.optimization_level is not None and self.optimization_level not in LEVELS:
            raise MisuseError(f"the optimisation level is 0 (built fast) to 5 (runs fast), not {self.optimization_level}")
        if self.hardware_compatible not in HARDWARE:
            raise MisuseError(f"hardware compatibility is {', '.join(HARDWARE)}, not {self.hardware_compatible!r}")
        if self.dla_core is not None and self.dla_core < 0:
            raise MisuseError(f"DLA cores are counted from 0, not {self.dla_core}")

    def given(self) -> List[str]:
        """Names of the fields that are not as by default."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]

    def flags(self) -> List[str]:
        """What was given, as named on the command line."""
        return [FLAGS[name] for name in self.given()]

    def record(self) -> Dict[str, Any]:
        """Those that were given and shape the plan, for the sidecar: not the files beside it."""
        names = {name: "workspace_mib" if name == "workspace" else name for name in self.given()}
        return {key: getattr(self, name) for name, key in names.items() if name not in ("timing_cache", "log")}


DEFAULTS = BuilderOptions()


@dataclass(frozen=True)
class CompileOptions:
    """How a graph is compiled.

    Attributes:
        batch: the batches that the engine takes.
        compute_capabilities: of the GPUs that a tensorrt-rtx engine is for; by default all from 8.0 on that it knows.
        builder: what else is asked of tensorrt and tensorrt-rtx.
    """

    batch: BatchRange = BatchRange()  # noqa: RUF009 (frozen)
    compute_capabilities: Sequence[str] = ()
    builder: BuilderOptions = DEFAULTS
