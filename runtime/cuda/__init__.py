"""The few CUDA calls that an engine needs, on the first GPU: by cuda-python where it works, else by PyCUDA."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Iterator, List, Type

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.text import one_line
from ampnet_opt.runtime.cuda.driver import binding_advice
from ampnet_opt.runtime.cuda.stream import DEVICE, RECORDING, Buffer, Gpu, Queue

__all__ = ["DEVICE", "RECORDING", "Binding", "Buffer", "Gpu", "Queue", "binding"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Binding:
    """The CUDA binding that works here. gpus: what it sees. passed_over: why not cuda-python, which comes first, or ""."""

    queue: Type[Queue]
    gpus: List[Gpu]
    passed_over: str = ""


@lru_cache(maxsize=None)  # of one that has worked; errors are not kept
def binding() -> Binding:
    """cuda-python first, which can record CUDA graphs; PyCUDA where that does not work, with a warning that says why.

    A package that imports may still fail at the first call, without a driver or with one that is too old. Raises
    AmpnetError, for the first that is installed, where none works.
    """
    problems: List[str] = []
    missing: List[str] = []
    for load in (_cuda_python, _pycuda):
        try:
            queue = load()
            found = Binding(queue, queue.gpus(), problems[0] if problems else "")
        except ImportError as error:
            missing.append(str(error))
        except AmpnetError as error:
            problems.append(str(error))
        except Exception as error:  # cuda-bindings 12.8.0 raises a RuntimeError where there is no driver
            problems.append(f"CUDA failed: {one_line(str(error))}")
        else:
            if found.passed_over:
                log.warning("%s is used: cuda-python does not work here (%s)", queue.binding, found.passed_over)
            return found
    if problems:
        raise AmpnetError(problems[0])
    raise AmpnetError(f"reaching the GPU needs cuda-python or PyCUDA ({missing[0]}); {binding_advice()}")


def _cuda_python() -> Type[Queue]:
    from ampnet_opt.runtime.cuda.cuda_python import CudaPythonQueue

    return CudaPythonQueue


def _pycuda() -> Type[Queue]:
    import pycuda.driver  # noqa: F401

    from ampnet_opt.runtime.cuda.pycuda import PyCudaQueue

    return PyCudaQueue


def gpu() -> Gpu:
    """The GPU that engines are built for and run on, or AmpnetError when there is none."""
    try:
        found = binding().gpus
    except AmpnetError as error:
        raise AmpnetError(f"no CUDA GPU can be used here: {error}") from error
    if not found:
        raise AmpnetError("no CUDA GPU can be used here: there is none, or CUDA_VISIBLE_DEVICES hides it")
    return found[DEVICE]


def open_queue(blocking: bool = False) -> Queue:
    """A new stream on the GPU; see `Queue`."""
    queue = binding().queue()
    queue.blocking = blocking
    return queue


@contextlib.contextmanager
def current() -> Iterator[None]:
    """Makes the GPU's primary context the calling thread's, for what loads onto the GPU and needs no stream."""
    queue = open_queue()
    with queue.current():
        try:
            yield
        finally:
            queue.close()
