"""The backend cpu: OpenVINO, on whatever instructions this processor has."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.processor import is_arm
from ampnet_opt.core.text import release
from ampnet_opt.runtime.backend import (
    UNSIGNED,
    Availability,
    Backend,
    Compiled,
    Executor,
    LoadOptions,
    Progress,
)

if TYPE_CHECKING:
    import numpy as np

    from ampnet_opt.runtime.compile_options import BuilderOptions, CompileOptions
    from ampnet_opt.runtime.layers import Layer
    from ampnet_opt.runtime.network import Network
    from ampnet_opt.runtime.onnx_interface import FlexibleGraph
    from ampnet_opt.runtime.sidecar import Sidecar

log = logging.getLogger(__name__)


# Engine precision -> the capability that OpenVINO must report.
CAPABILITY = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16", "int8": "INT8"}


class OpenVino(Backend):
    """Engines are OpenVINO's own files, compiled for the processor when they are loaded."""

    name, device, module = "cpu", "cpu", "openvino"
    files = ("engine.xml", "engine.bin")
    precisions = ("fp32", "fp16", "bf16", "int8")

    @property
    def rank(self) -> int:
        return 10

    def availability(self) -> Availability:
        from ampnet_opt.runtime.openvino.library import load_openvino

        try:
            version = load_openvino().__version__
            return Availability(True, True, version, tuple(precisions()))
        except AmpnetError as error:
            return Availability(False, False, problem=str(error))

    def require_possible(self, options: CompileOptions, precisions: Sequence[str]) -> None:
        super().require_possible(options, precisions)
        for precision in precisions:
            require_precision(precision)
        if "int8" in precisions and is_arm():
            log.warning("on Arm, OpenVINO computes nearly all of an INT8 graph in FP32: INT8 gains nothing over FP32 here")

    def graph_form(self, builder: Optional[BuilderOptions] = None) -> str:
        return UNSIGNED

    def compile(
        self, directory: Path, graph: bytes, precision: str, options: CompileOptions, progress: Optional[Progress] = None
    ) -> Compiled:
        from ampnet_opt.runtime.openvino.compile import build_ir
        from ampnet_opt.runtime.openvino.library import ARITHMETIC

        require_precision(precision)
        files, version = build_ir(graph, precision, directory)
        return Compiled(version, {"arithmetic_of_float_layers": ARITHMETIC[precision]}, files)

    def check(self, sidecar: Sidecar) -> None:
        """AmpnetError when this machine's OpenVINO is older than the engine's, or lacks its precision."""
        from ampnet_opt.runtime.openvino.library import load_openvino

        version = load_openvino().__version__
        if release(version) < release(sidecar.backend_version):
            raise AmpnetError(
                f"the engine was built with OpenVINO {sidecar.backend_version}, but {version} is installed, which is older: "
                f"install openvino>={'.'.join(map(str, release(sidecar.backend_version)))}, or build the engine again here"
            )
        require_precision(sidecar.precision)

    def outputs(self, directory: Path) -> Optional[int]:
        from ampnet_opt.runtime.openvino.executor import output_size

        return output_size(directory / self.files[0])

    def open(self, directory: Path, sidecar: Sidecar, options: LoadOptions) -> Executor:
        from ampnet_opt.runtime.openvino.executor import open_executor

        if options.contexts > 1:
            raise MisuseError("contexts are for engines on a GPU; the cpu backend runs one inference at a time")
        if options.blocking_wait:
            raise MisuseError("blocking_wait is for engines on a GPU; the cpu backend computes itself")
        return open_executor(directory, sidecar, options.threads)

    def open_network(self, graph: FlexibleGraph, threads: Optional[int] = None) -> Network:
        from ampnet_opt.runtime.openvino import network

        return network.Network(graph, threads)

    def layers(self, directory: Path, sidecar: Sidecar) -> List[Layer]:
        from ampnet_opt.runtime.openvino.layers import list_layers

        return list_layers(directory, sidecar)

    def layer_times(
        self, directory: Path, sidecar: Sidecar, faces: Tuple[np.ndarray, np.ndarray], runs: int, threads: Optional[int]
    ) -> List[Tuple[str, str, float]]:
        from ampnet_opt.runtime.openvino.executor import open_executor

        return open_executor(directory, sidecar, threads).profile(*faces, runs)


BACKENDS = {"cpu": OpenVino()}


def capabilities() -> List[str]:
    """What this processor computes at speed, in OpenVINO's words: FP32, FP16, BF16, INT8."""
    from ampnet_opt.runtime.openvino.library import core

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
