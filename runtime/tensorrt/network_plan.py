"""Plans of networks that are no engines of AMP-Net: the sizes that they are for, and where they are kept.

A plan is built when a size first comes that no kept plan takes. It is kept for the next process, one for each GPU, version
of the library, graph and range of sizes. Plans are programs: they are read from a folder that only this user may write to,
and are checked by their hash.

They compute in FP32 without TF32. With factors rounded as TF32 rounds them, boxes of YuNet moved by up to 0.12 pixels, and
of CenterFace by up to 0.49 (some 70 faces each at 640 x 480, on the CPU): next to nothing of the half pixel that a detector
may be off would be left.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Optional

from ampnet_opt.core.cache import cache_folder, keep_bytes, kept_bytes
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.locks import BusyError, hold
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.compile_options import DEFAULTS
from ampnet_opt.runtime.onnx_interface import FlexibleGraph
from ampnet_opt.runtime.tensorrt.builder import serialise
from ampnet_opt.runtime.tensorrt.context import Shape, within
from ampnet_opt.runtime.tensorrt.library import FAMILIES, load_library, this_board, this_platform

log = logging.getLogger(__name__)

# The first range of an input [batch, channels, height, width]: a camera of 1280 x 720 and all that is smaller. Memory grows
# with its end: CenterFace takes 157 MB of activations for 1024 x 1024.
SMALLEST, TYPICAL, LARGEST = (1, 3, 32, 32), (1, 3, 480, 640), (8, 3, 1024, 1024)
STEP = 128  # pixels, to which larger sides are rounded up
LARGEST_CACHE, NEWEST = 1 << 29, 8  # bytes of all files, and how many are kept whatever their size
WAIT = 0.2  # seconds between two looks at a plan that another process builds


class Sizes(NamedTuple):
    """The input shapes that a plan takes, from `low` to `high`, and the one that its kernels are chosen for."""

    low: Shape
    best: Shape
    high: Shape

    def take(self, shape: Shape) -> bool:
        return within(shape, self.low, self.high)


def sizes_for(shape: Shape, before: Optional[Sizes] = None) -> Sizes:
    """The range of the plan that is built for `shape`: the first range, or where that is too small, it and `before` widened.

    So a video takes one plan, or two, and a folder of pictures a few, whatever their sizes.
    """
    known = before or (Sizes(SMALLEST, TYPICAL, LARGEST) if len(shape) == len(LARGEST) else Sizes(shape, shape, shape))
    if known.take(shape):
        return known
    low = tuple(map(min, known.low, shape))
    return Sizes(
        low, shape, tuple(max(most, _rounded(axis, size)) for axis, (most, size) in enumerate(zip(known.high, shape)))
    )


def _rounded(axis: int, size: int) -> int:
    """A size that a plan is built for, so that few are: the batch to a power of two, the channels as they are."""
    if axis == 0:
        return 1 << (size - 1).bit_length()
    return -(-size // STEP) * STEP if axis > 1 else size


def build_network_plan(
    backend: str,
    graph: FlexibleGraph,
    sizes: Sizes,
    capability: Optional[str] = None,
    progress: Optional[Callable[[float], None]] = None,
) -> bytes:
    """A plan in FP32, of one optimisation profile; sizes that the graph fixes are its own.

    capability: of the GPU that TensorRT-RTX builds for. progress, errors: as of `serialise`.
    """

    def prepare(trt: Any, builder: Any, config: Any, network: Any) -> Any:
        tensor = network.get_input(0)
        fixed = tuple(tensor.shape)
        if len(fixed) != len(sizes.best):
            raise AmpnetError(f"the network takes {tensor.name} of {len(fixed)} dimensions, not {len(sizes.best)}")
        shapes = [tuple(own if own >= 0 else size for own, size in zip(fixed, one)) for one in sizes]
        return [{tensor.name: tuple(shapes)}]

    capabilities = [] if capability is None else [capability]
    return serialise(backend, graph.content, prepare, DEFAULTS, capabilities, progress=progress)[0]


class NetworkPlan(NamedTuple):
    """data: the plan. name: for messages. kept: whether an earlier call or process built it."""

    data: bytes
    name: str
    kept: bool


def network_plan(
    backend: str, graph: FlexibleGraph, sizes: Sizes, progress: Callable[[float], None], *, anew: bool = False
) -> NetworkPlan:
    """The kept plan for this machine's GPU; else a new one, which is kept, and of which a warning tells.

    progress: called while it is built; what it raises stops the build. anew: build it whatever is kept, as the library
    refuses that. Raises AmpnetError when it cannot be built.
    """
    gpu, version = cuda.gpu(), load_library(backend).__version__
    path = _path(backend, version, gpu, graph, sizes)
    capability = gpu.compute_capability if FAMILIES[backend].ahead else None

    def build(end: str) -> bytes:
        told = "%s %s builds a plan of the %s for this GPU, which may take minutes on a Jetson%s"
        log.warning(told, backend, version, graph.name, end)
        return build_network_plan(backend, graph, sizes, capability, progress)

    name = f"the plan of the {graph.name}"
    if path is None:
        return NetworkPlan(build(""), name, kept=False)
    name = f"{name}, {path},"
    while True:
        kept = b"" if anew else kept_bytes(path)
        if kept:
            return NetworkPlan(kept, name, kept=True)
        try:
            with _held(path) as held:
                kept = kept_bytes(path) if held and not anew else b""  # another process may have built it meanwhile
                if kept:
                    return NetworkPlan(kept, name, kept=True)
                plan = build("; the plan is kept for the next run")
                _write(path, plan, graph.name)
                return NetworkPlan(plan, name, kept=False)
        except BusyError:
            progress(0.0)  # which may want to stop
            time.sleep(WAIT)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[bool]:
    """So that one process builds a plan at a time, wherever the folder can be locked; BusyError while another does."""
    with contextlib.ExitStack() as stack:
        held = False
        with contextlib.suppress(OSError):  # a folder that cannot be written to: nothing is kept either
            held = stack.enter_context(hold(path.with_suffix(".lock"), "another process builds this plan"))
        yield held


def _path(backend: str, version: str, gpu: cuda.Gpu, graph: FlexibleGraph, sizes: Sizes) -> Optional[Path]:
    """None, with a warning, where there is no folder for caches, or others may write to it."""
    digest = hashlib.sha256(graph.content)
    digest.update(repr((tuple(sizes), this_platform(), this_board())).encode())
    try:
        return cache_folder("plans") / f"{backend}-{version}-{gpu.slug}-{digest.hexdigest()[:16]}.plan"
    except AmpnetError as error:
        log.warning("the plan of the %s is not kept: %s", graph.name, error)
        return None


def _write(path: Path, plan: bytes, name: str) -> None:
    """A failure is a warning: the plan is there."""
    try:
        keep_bytes(path, plan, LARGEST_CACHE, NEWEST)
    except (AmpnetError, OSError) as error:
        log.warning("the plan of the %s is not kept: %s", name, error)
