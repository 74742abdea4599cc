"""From an ONNX graph to a plan, with TensorRT 8.5 to 11 or TensorRT for RTX.

What differs between versions is asked of the library's module, not of its version. In short: 8.x is weakly typed (a float32
graph, and flags that allow FP16 and INT8), the others strongly typed (the graph's own types are the plan's types); see
`_strongly_typed`.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from itertools import count
from typing import Any, Dict, List, Optional, Sequence

from ampnet_opt import __version__
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.graph_interface import INPUTS
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.backend import Progress
from ampnet_opt.runtime.compile_options import DEFAULTS, BuilderOptions, CompileOptions
from ampnet_opt.runtime.layers import Layer
from ampnet_opt.runtime.sidecar import BatchRange
from ampnet_opt.runtime.tensorrt.build_log import messages_to
from ampnet_opt.runtime.tensorrt.build_progress import watched_build
from ampnet_opt.runtime.tensorrt.host_memory import warn_of_memory
from ampnet_opt.runtime.tensorrt.layer_message import is_layer_list, layers_of_message
from ampnet_opt.runtime.tensorrt.library import (
    FAMILIES,
    known_capabilities,
    load_library,
    new_logger,
    one_line,
    this_board,
    this_platform,
)
from ampnet_opt.runtime.tensorrt.options import apply_options, new_builder, require_options
from ampnet_opt.runtime.tensorrt.timing_cache import TimingCache, default_path

log = logging.getLogger(__name__)

# Builder flags of a weakly typed library: what the float part may be computed in, and whether Q/DQ pairs are obeyed.
FLAGS = {"fp32": (), "fp16": ("FP16",), "bf16": ("BF16",), "int8": ("FP16", "INT8")}
PLATFORM_CHECKS = {"FP16": "platform_has_fast_fp16", "INT8": "platform_has_fast_int8"}
QUOTED = 5  # parser errors that a message quotes
_builds = count(1)


@dataclass(frozen=True)
class BuiltPlan:
    """A serialised engine.

    version: of the library that built it. target: what it runs on, for the sidecar. layers: what the library listed while
    it built, as TensorRT-RTX does; else None.
    """

    data: bytes
    version: str
    target: Dict[str, Any]
    layers: Optional[List[Layer]]


def require_library(backend: str) -> None:
    """AmpnetError when the backend's module, or the GPU that it needs to build, is missing."""
    load_library(backend)
    if not FAMILIES[backend].ahead:
        cuda.gpu()


def needs_typed_graph(backend: str, options: BuilderOptions = DEFAULTS) -> bool:
    """Whether the graph must itself say what is computed in FP16 (casts), beside what is INT8 (Q/DQ).

    Raises AmpnetError when the backend's module is missing.
    """
    return _strongly_typed(load_library(backend), options)


def build_plan(
    backend: str,
    graph: bytes,
    precision: str,
    asked: CompileOptions,
    progress: Optional[Progress] = None,
) -> BuiltPlan:
    """Compile `graph`, a serialised ONNX model with inputs `image` and `landmarks` of a dynamic first dimension.

    backend: tensorrt or tensorrt-rtx. precision: fp32, fp16, bf16 or int8; where `needs_typed_graph`, the graph has to be
    of that precision already, else it is float32, for int8 with Q/DQ pairs. progress: called with the part done, 0 to 1,
    never with less than before; from another thread where the library reports it (from 10 on), and with 1 at the end. What
    it raises stops the build and is raised here, as is Ctrl-C. asked: its options that shape the plan are in the plan's
    `target` too.

    Warns, by logging, of a build that may not fit into memory. Raises AmpnetError when the module, the GPU or a feature
    that it needs is missing, or the library refuses the graph; MisuseError for options that do not go together.
    """
    batch, options = asked.batch, asked.builder
    require_options(backend, options, [precision], batch)
    trt = load_library(backend)
    gpu: Optional[cuda.Gpu] = None
    if not FAMILIES[backend].ahead:
        if asked.compute_capabilities:
            raise MisuseError("a tensorrt engine is built for the GPU of this machine; only tensorrt-rtx takes others")
        gpu = cuda.gpu()  # asked first: without a GPU the library fails in ways that explain nothing
    shared = gpu is not None and gpu.integrated  # then kernels compute in the memory that the build itself takes
    warn_of_memory(len(graph), (options.workspace or 0) << 20 if shared else 0, log.warning)
    batches = f"batches of {batch.min}, {batch.opt}, {batch.max}"
    title = f"ampnet-opt {__version__}, {backend} {trt.__version__}, {precision}, {batches}, {options.record()}"
    lists: List[str] = []
    thread = f"build {next(_builds)}"
    with messages_to(options.log, title) as file:

        def hear(severity: str, message: str) -> None:
            # The library has one logger for all builds; one that was stopped may go on in another thread.
            if is_layer_list(message) and threading.current_thread().name == thread:
                lists.append(message)
            if file is not None:
                file(severity, message)

        logger = new_logger(trt, hear)
        builder = new_builder(trt, logger)
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
            target.update(compute_capabilities=_set_capabilities(trt, config, asked.compute_capabilities))

        network = _made(builder.create_network(_network_flags(trt, options)), "network", logger)
        parser = trt.OnnxParser(network, logger.native)
        if not parser.parse(graph):
            raise AmpnetError(f"{backend} cannot read the graph: {_parser_errors(parser)}")
        if not _strongly_typed(trt, options):
            _allow(trt, builder, config, precision)
            _keep_landmarks_in_float32(trt, network)
        for part in profiles(backend, batch):
            if config.add_optimization_profile(_profile(builder, network, part)) < 0:
                raise AmpnetError(f"{backend} refuses batches of {part.min} to {part.max} for this graph: {logger.reason()}")

        logger.errors.clear()
        data = watched_build(trt, builder, network, config, progress, name=thread)
        for warning in logger.warnings:
            log.debug("%s: %s", backend, warning)
        if data is None:
            raise AmpnetError(f"{backend} could not build the engine: {logger.reason()}")
        if timings is not None:
            timings.save()
    if progress is not None:
        progress(1.0)
    return BuiltPlan(bytes(data), trt.__version__, target, _listed(lists))


def _listed(messages: List[str]) -> Optional[List[Layer]]:
    """The layers of the one message that lists them; None where there is none."""
    if len(messages) != 1:
        return None
    try:
        return layers_of_message(messages[0])
    except AmpnetError as error:
        log.warning("%s", error)
        return None


def _made(thing: Any, what: str, logger: Any) -> Any:
    if thing is None:
        raise AmpnetError(f"the library could not make its {what}: {logger.reason()}")
    return thing


def _strongly_typed(trt: Any, options: BuilderOptions) -> bool:
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


def _network_flags(trt: Any, options: BuilderOptions) -> int:
    """EXPLICIT_BATCH, which 8.x needs, and STRONGLY_TYPED, each where there is one to set."""
    known = trt.NetworkDefinitionCreationFlag
    names = ["EXPLICIT_BATCH"] + (["STRONGLY_TYPED"] if _strongly_typed(trt, options) else [])
    return sum(1 << int(getattr(known, name)) for name in names if hasattr(known, name))


def _allow(trt: Any, builder: Any, config: Any, precision: str) -> None:
    """Set the flags of `precision`, in a weakly typed library, or AmpnetError where the GPU would fall back to float32."""
    for name in FLAGS[precision]:
        able = getattr(builder, PLATFORM_CHECKS[name], True) if name in PLATFORM_CHECKS else True
        if not able or not hasattr(trt.BuilderFlag, name):
            raise AmpnetError(f"TensorRT {trt.__version__} on this GPU does not compute in {name}; take another precision")
        config.set_flag(getattr(trt.BuilderFlag, name))
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)


def _keep_landmarks_in_float32(trt: Any, network: Any) -> None:
    """Pin what is computed on landmarks alone: pixels and their fractions must be exact until they are rounded."""
    for layer in _landmark_layers(trt, network):
        layer.precision = trt.DataType.FLOAT
        for i in range(layer.num_outputs):
            layer.set_output_type(i, trt.DataType.FLOAT)


def _landmark_layers(trt: Any, network: Any) -> List[Any]:
    """Layers of floats between the input `landmarks` and the products with image features.

    Layers of integers and truth values are left out: they take no precision.
    """
    image = {network.get_input(i).name for i in range(network.num_inputs)} - {INPUTS[1]}
    landmarks, found = {INPUTS[1]}, []
    for layer in (network.get_layer(i) for i in range(network.num_layers)):  # in topological order, as they were parsed
        inputs = {tensor.name for tensor in map(layer.get_input, range(layer.num_inputs)) if tensor is not None}
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        if inputs & image:
            image.update(tensor.name for tensor in outputs)
        elif inputs & landmarks:
            landmarks.update(tensor.name for tensor in outputs)
            if all(tensor.dtype == trt.DataType.FLOAT for tensor in outputs):
                found.append(layer)
    return found


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


def profiles(backend: str, batch: BatchRange) -> List[BatchRange]:
    """The optimisation profiles of a plan: one up to the batch that it is tuned for, one for all larger batches.

    Kernels are chosen for one batch of each: `batch.opt`, and `batch.max`. TensorRT-RTX compiles kernels for each batch that
    comes, and needs one profile.
    """
    if FAMILIES[backend].ahead or batch.opt == batch.max:
        return [batch]
    return [BatchRange(batch.min, batch.opt, batch.opt), BatchRange(batch.opt + 1, batch.max, batch.max)]


def _profile(builder: Any, network: Any, batch: BatchRange) -> Any:
    profile = builder.create_optimization_profile()
    for tensor in (network.get_input(i) for i in range(network.num_inputs)):
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, (batch.min, *rest), (batch.opt, *rest), (batch.max, *rest))
    return profile


def _parser_errors(parser: Any) -> str:
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    told = []
    for error in errors[:QUOTED]:
        node = f"{error.node_name()} ({error.node_operator()})" if hasattr(error, "node_name") else f"{error.node()}"
        told.append(f"node {node}: {one_line(error.desc())}")
    if len(errors) > QUOTED:
        told.append(f"and {len(errors) - QUOTED} more errors")
    return "; ".join(told) or "it gave no reason"
