"""OpenVINO's Python module, and its one Core."""

from __future__ import annotations

import contextlib
import os
import sys
from functools import lru_cache
from typing import Any, Dict, Iterator, Optional

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.installing import install_command
from ampnet_opt.core.lifetime import keep_in_children

# Engine precision -> arithmetic of its float part.
ARITHMETIC = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}


def configuration(precision: str, threads: Optional[int], **more: Any) -> Dict[str, Any]:
    """OpenVINO's configuration of a network that runs beside others.

    Its threads are not bound to cores, as they are by default: bound ones wait for their core while another is idle. On two
    cores, a video with four faces a frame took 15 % longer; alone, a network takes as long either way.

    threads: None, one per core. more: of OpenVINO's properties.
    """
    own: Dict[str, Any] = {"INFERENCE_PRECISION_HINT": ARITHMETIC[precision], "ENABLE_CPU_PINNING": False}
    return {**own, **({} if threads is None else {"INFERENCE_NUM_THREADS": threads}), **more}


def load_openvino() -> Any:
    """The openvino module, or AmpnetError that says how to get it."""
    try:
        with _without_telemetry():
            import openvino
    except ImportError as error:
        raise AmpnetError(f"the cpu backend needs OpenVINO ({error}); install it with: {install_command('cpu')}") from error
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


class _Core:
    """OpenVINO's Core, and the process in which it began to compute, with threads that a fork does not copy."""

    def __init__(self) -> None:
        self.native = load_openvino().Core()
        self.computes_in: Optional[int] = None
        keep_in_children(self)


@lru_cache(maxsize=None)
def _core() -> _Core:
    """One, until the process ends: after two were freed, the next signal ends the process (2026.4)."""
    return _Core()


def core(computes: bool = False) -> Any:
    """OpenVINO's Core. computes: what it is asked for starts threads.

    Raises AmpnetError in a forked child where it computed in the parent: it then works as long as no other thread was in
    OpenVINO at the fork, and hangs else (seen in 2 of 25 children).
    """
    own = _core()
    if own.computes_in not in (None, os.getpid()):
        raise AmpnetError(
            "OpenVINO was in use before this process was forked, and may hang here: start processes with multiprocessing's "
            "spawn method, or load engines in the children alone"
        )
    if computes:
        own.computes_in = os.getpid()
    return own.native
