"""From an ONNX graph to a serialised plan, of any network, with TensorRT 8.5 to 11 or TensorRT for RTX.

What differs between versions is asked of the library's module, not of its version. In short: 8.x is weakly typed (a float32
graph, and flags that allow FP16 and INT8), the others strongly typed (the graph's own types are the plan's types); see
`strongly_typed`.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.text import one_line
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.backend import Progress
from ampnet_opt.runtime.compile_options import BuilderOptions
from ampnet_opt.runtime.tensorrt.build_progress import watched_build
from ampnet_opt.runtime.tensorrt.host_memory import warn_of_memory
from ampnet_opt.runtime.tensorrt.library import (
    FAMILIES,
    known_capabilities,
    load_library,
    new_logger,
    started,
    this_board,
    this_platform,
)
from ampnet_opt.runtime.tensorrt.options import apply_options
from ampnet_opt.runtime.tensorrt.timing_cache import TimingCache, default_path

log = logging.getLogger(__name__)

QUOTED = 5  # parser errors that a message quotes

# An optimisation profile: of each input, the smallest shape, the one that kernels are chosen for, and the largest.
Profile = Mapping[str, Tuple[Sequence[int], Sequence[int], Sequence[int]]]


def serialise(
    backend: str,
    graph: bytes,
    prepare: Callable[[Any, Any, Any, Any], List[Profile]],
    options: BuilderOptions,
    capabilities: Sequence[str] = (),
    *,
    progress: Optional[Progress] = None,
    hear: Optional[Callable[[str, str], None]] = None,
    thread: Optional[str] = None,
) -> Tuple[bytes, Dict[str, Any]]:
    """The plan, and what it runs on, as `Sidecar.target` has it.

    graph: serialised ONNX. prepare: called with the library, its builder, configuration and the parsed network, which it
    may change; returns the optimisation profiles. options: its log is the caller's. capabilities: of the GPUs that a plan of
    TensorRT-RTX is for; by default all from 8.0 on that it knows. progress: as `build_plan` takes it. hear: called with
    severity and text of each message of the library. thread: name of the one in which the library works.

    Raises AmpnetError when the module, or the GPU that it needs to build, is missing, or the library refuses the graph;
    MisuseError for capabilities that it does not build for.
    """
    trt = load_library(backend)
    gpu: Optional[cuda.Gpu] = None
    if not FAMILIES[backend].ahead:
        if capabilities:
            raise MisuseError("a tensorrt engine is built for the GPU of this machine; only tensorrt-rtx takes others")
        gpu = cuda.gpu()  # asked first: without a GPU the library fails in ways that explain nothing
    shared = gpu is not None and gpu.integrated  # then kernels compute in the memory that the build itself takes
    warn_of_memory(len(graph), (options.workspace or 0) << 20 if shared else 0, log.warning)
    logger = new_logger(trt, hear)
    # Builder, timing cache and build have to be on one GPU, whichever is the caller's current one.
    with contextlib.nullcontext() if gpu is None else cuda.current():
        builder = started(trt, trt.Builder, logger)
        config = _made(builder.create_builder_config(), "configuration", logger)
        # TF32 is on by default and rounds float32 products to 10 bits: FP32 here means FP32.
        config.clear_flag(trt.BuilderFlag.TF32)
        apply_options(trt, config, options)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # or the inspector tells no layer's precision
        if hasattr(trt.PreviewFeature, "PROFILE_SHARING_0806"):  # see `shares_profile`
            config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
        target = options.record()
        timings: Optional[TimingCache] = None
        if gpu is not None:
            target.update(gpu=gpu.name, compute_capability=gpu.compute_capability, platform=this_platform())
            if this_board():
                target.update(board=this_board())
            timings = TimingCache(config, logger, options.timing_cache, default_path(gpu, trt.__version__))
        if hasattr(config, "num_compute_capabilities"):
            target.update(compute_capabilities=_set_capabilities(trt, config, capabilities))

        network = _made(builder.create_network(network_flags(trt, options)), "network", logger)
        parser = trt.OnnxParser(network, logger.native)
        if not parser.parse(graph):
            raise AmpnetError(f"{backend} cannot read the graph: {_parser_errors(parser)}")
        for shapes in prepare(trt, builder, config, network):
            profile = builder.create_optimization_profile()
            for name, (low, best, high) in shapes.items():
                profile.set_shape(name, low, best, high)
            if config.add_optimization_profile(profile) < 0:
                sizes = " and ".join(f"{name} of {list(low)} to {list(high)}" for name, (low, _, high) in shapes.items())
                raise AmpnetError(f"{backend} refuses {sizes} for this graph: {logger.reason()}")

        logger.errors.clear()
        # A build for this GPU takes memory on it, and waits for it, again and again: no engine may record meanwhile.
        with contextlib.nullcontext() if gpu is None else cuda.RECORDING.waiting():
            data = watched_build(trt, builder, network, config, progress, name=thread)
        if timings is not None and data is not None:
            timings.save()
    for warning in logger.warnings:
        log.debug("%s: %s", backend, warning)
    if data is None:
        raise AmpnetError(f"{backend} could not build the engine: {logger.reason()}")
    return bytes(data), target


def strongly_typed(trt: Any, options: BuilderOptions) -> bool:
    """Whether the network is to be strongly typed: wherever it can be, from 10.0 on.

    From 10.12 on, weak typing is deprecated, and gone in 11. 10.0 to 10.11 have both, and this takes the strong one there
    too. FP16 is then where the graph says so (where it was seen not to overflow), not wherever a kernel was timed to be
    faster, so that two builds give the same answers. NVIDIA's guide wants Q/DQ with strong typing and without precision
    flags ("Explicit Quantization"); 10.2 missed 8-bit kernels without it (TensorRT issue 3987). What is lost: a layer that
    would be faster in another type than its own. The exception is DLA up to 10.7, which takes no strongly typed network.
    """
    can = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    must = not hasattr(trt.BuilderFlag, "FP16")
    return must or (can and options.dla_core is None)


def network_flags(trt: Any, options: BuilderOptions) -> int:
    """EXPLICIT_BATCH, which 8.x needs, and STRONGLY_TYPED, each where there is one to set."""
    known = trt.NetworkDefinitionCreationFlag
    names = ["EXPLICIT_BATCH"] + (["STRONGLY_TYPED"] if strongly_typed(trt, options) else [])
    return sum(1 << int(getattr(known, name)) for name in names if hasattr(known, name))


def _made(thing: Any, what: str, logger: Any) -> Any:
    if thing is None:
        raise AmpnetError(f"the library could not make its {what}: {logger.reason()}")
    return thing


def _set_capabilities(trt: Any, config: Any, wanted: Sequence[str]) -> List[str]:
    """Say which GPUs an RTX plan is for; returns their compute capabilities, in order."""
    known = known_capabilities(trt)
    # The library's own default too: Turing (7.5) would slow down the plan for all others.
    chosen = list(wanted) or [name for name in known if float(name) >= 8]
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise MisuseError(
            f"TensorRT-RTX {trt.__version__} does not build for compute capability {', '.join(unknown)}; "
            f"it does for {', '.join(known)}"
        )
    config.num_compute_capabilities = len(chosen)
    for i, name in enumerate(chosen):
        config.set_compute_capability(known[name], i)
    return chosen


def _parser_errors(parser: Any) -> str:
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    told = []
    for error in errors[:QUOTED]:
        node = f"{error.node_name()} ({error.node_operator()})" if hasattr(error, "node_name") else f"{error.node()}"
        told.append(f"node {node}: {one_line(error.desc())}")
    if len(errors) > QUOTED:
        told.append(f"and {len(errors) - QUOTED} more errors")
    return "; ".join(told) or "it gave no reason"
