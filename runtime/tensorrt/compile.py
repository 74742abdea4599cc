"""The plan of an engine: its precision, the batches that it takes, and the list of its layers."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from itertools import count
from typing import Any, Dict, List, Optional, Tuple

from ampnet_opt import __version__
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.graph_interface import INPUTS
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.backend import Progress
from ampnet_opt.runtime.compile_options import DEFAULTS, BuilderOptions, CompileOptions
from ampnet_opt.runtime.layers import Layer
from ampnet_opt.runtime.sidecar import BatchRange
from ampnet_opt.runtime.tensorrt.build_log import messages_to
from ampnet_opt.runtime.tensorrt.builder import Profile, serialise, strongly_typed
from ampnet_opt.runtime.tensorrt.layer_message import is_layer_list, layers_of_message
from ampnet_opt.runtime.tensorrt.library import FAMILIES, load_library
from ampnet_opt.runtime.tensorrt.options import require_options

log = logging.getLogger(__name__)

# Builder flags of a weakly typed library: what the float part may be computed in, and whether Q/DQ pairs are obeyed.
FLAGS = {"fp32": (), "fp16": ("FP16",), "bf16": ("BF16",), "int8": ("FP16", "INT8")}
PLATFORM_CHECKS = {"FP16": "platform_has_fast_fp16", "INT8": "platform_has_fast_int8"}
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
    return strongly_typed(load_library(backend), options)


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
    batches = f"batches of {batch.min}, {batch.opt}, {batch.max}"
    title = f"ampnet-opt {__version__}, {backend} {trt.__version__}, {precision}, {batches}, {options.record()}"
    lists: List[str] = []
    thread = f"build {next(_builds)}"

    def prepare(trt: Any, builder: Any, config: Any, network: Any) -> List[Profile]:
        if not strongly_typed(trt, options):
            _allow(trt, builder, config, precision)
            _keep_landmarks_in_float32(trt, network)
        return shapes_over_batches(backend, batch, network)

    with messages_to(options.log, title) as file:

        def hear(severity: str, message: str) -> None:
            # The library has one logger for all builds; one that was stopped may go on in another thread.
            if is_layer_list(message) and threading.current_thread().name == thread:
                lists.append(message)
            if file is not None:
                file(severity, message)

        data, target = serialise(
            backend, graph, prepare, options, asked.compute_capabilities, progress=progress, hear=hear, thread=thread
        )
    if progress is not None:
        progress(1.0)
    return BuiltPlan(data, trt.__version__, target, _listed(lists))


def _listed(messages: List[str]) -> Optional[List[Layer]]:
    """The layers of the one message that lists them; None where there is none."""
    if len(messages) != 1:
        return None
    try:
        return layers_of_message(messages[0])
    except AmpnetError as error:
        log.warning("%s", error)
        return None


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


def profiles(backend: str, batch: BatchRange) -> List[BatchRange]:
    """The optimisation profiles of a plan: one up to the batch that it is tuned for, one for all larger batches.

    Kernels are chosen for one batch of each: `batch.opt`, and `batch.max`. TensorRT-RTX compiles kernels for each batch that
    comes, and needs one profile.
    """
    if FAMILIES[backend].ahead or batch.opt == batch.max:
        return [batch]
    return [BatchRange(batch.min, batch.opt, batch.opt), BatchRange(batch.opt + 1, batch.max, batch.max)]


def shapes_over_batches(backend: str, batch: BatchRange, network: Any) -> List[Profile]:
    """`profiles`, as the shapes of the network's inputs."""
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    rows: Dict[str, Tuple[int, ...]] = {tensor.name: tuple(tensor.shape)[1:] for tensor in tensors}
    return [
        {name: ((part.min, *row), (part.opt, *row), (part.max, *row)) for name, row in rows.items()}
        for part in profiles(backend, batch)
    ]
