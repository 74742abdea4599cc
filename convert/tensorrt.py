"""From an ONNX graph to a plan, with TensorRT 8.5 to 11 or TensorRT for RTX.

What differs between versions is asked of the library's module, not of its version. In short: 8.x is weakly typed (a float32
graph, and flags that allow FP16 and INT8), the others strongly typed (the graph's own types are the plan's types).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np
import onnx
from onnx import TensorProto

from ampnet_opt.convert.graph import GraphIndex, add_constant, replace_nodes
from ampnet_opt.errors import AmpnetError, MisuseError
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.sidecar import INPUTS, BatchRange
from ampnet_opt.runtime.trt import load_library, new_logger, one_line, this_platform

log = logging.getLogger(__name__)

# Builder flags of a weakly typed library: what the float part may be computed in, and whether Q/DQ pairs are obeyed.
FLAGS = {"fp32": (), "fp16": ("FP16",), "bf16": ("BF16",), "int8": ("FP16", "INT8")}
PLATFORM_CHECKS = {"FP16": "platform_has_fast_fp16", "INT8": "platform_has_fast_int8"}
QUOTED = 5  # parser errors that a message quotes

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Plan:
    """A serialised engine. version: of the library that built it. target: what it runs on, for the sidecar."""

    data: bytes
    version: str
    target: dict[str, Any]


def require_library(backend: str) -> None:
    """AmpnetError when the backend's module, or the GPU that it needs to build, is missing."""
    load_library(backend)
    if backend == "tensorrt":
        cuda.gpu()


def needs_typed_graph(backend: str) -> bool:
    """Whether the graph must itself say what is computed in FP16 (casts), beside what is INT8 (Q/DQ).

    Raises AmpnetError when the backend's module is missing.
    """
    return _strongly_typed(load_library(backend))


def build_plan(
    backend: str,
    model: onnx.ModelProto,
    precision: str,
    batch: BatchRange,
    progress: Progress | None = None,
    compute_capabilities: Sequence[str] = (),
) -> Plan:
    """Compile `model`, with inputs `image` and `landmarks` of a dynamic first dimension, for batches in `batch`.

    backend: tensorrt or tensorrt-rtx. precision: fp32, fp16, bf16 or int8; where `needs_typed_graph`, the graph has to be
    of that precision already, else it is float32, for int8 with Q/DQ pairs. progress: called with the part done, 0 to 1,
    never with less than before; from another thread where the library reports it (from 10 on), and with 1 at the end. What
    it raises stops the build and is raised here, as is Ctrl-C. compute_capabilities: of the GPUs that an RTX plan is for,
    by default all from 8.0 on that the library knows. Raises AmpnetError when the module or the GPU that it needs is
    missing, or the library refuses the graph.
    """
    trt = load_library(backend)
    target: dict[str, Any] = {}
    if backend == "tensorrt":
        if compute_capabilities:
            raise MisuseError("a tensorrt engine is built for the GPU of this machine; only tensorrt-rtx takes others")
        gpu = cuda.gpu()  # asked first: without a GPU the library fails in ways that explain nothing
        target = {"gpu": gpu.name, "compute_capability": gpu.compute_capability, "platform": this_platform()}
    logger = new_logger(trt)
    builder = _made(trt.Builder(logger), "builder", logger)
    config = _made(builder.create_builder_config(), "configuration", logger)
    # TF32 is on by default and rounds float32 products to 10 bits: FP32 here means FP32.
    config.clear_flag(trt.BuilderFlag.TF32)
    if hasattr(config, "num_compute_capabilities"):
        target = {"compute_capabilities": _set_capabilities(trt, config, compute_capabilities)}

    model = casts_first(model)
    if not _strongly_typed(trt):
        model = float_weights(model)
    network = _made(builder.create_network(_network_flags(trt)), "network", logger)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        raise AmpnetError(f"{backend} cannot read the graph: {_parser_errors(parser)}")
    if not _strongly_typed(trt):
        _allow(trt, builder, config, precision)
        _keep_landmarks_in_float32(trt, network)
    if config.add_optimization_profile(_profile(builder, network, batch)) < 0:
        raise AmpnetError(f"{backend} refuses batches of {batch.min} to {batch.max} for this graph: {logger.reason()}")

    logger.errors.clear()
    data = _build(trt, builder, network, config, progress)
    for warning in logger.warnings:
        log.debug("%s: %s", backend, warning)
    if data is None:
        raise AmpnetError(f"{backend} could not build the engine: {logger.reason()}")
    if progress is not None:
        progress(1.0)
    return Plan(bytes(data), trt.__version__, target)


def _made(thing: Any, what: str, logger: Any) -> Any:
    if thing is None:
        raise AmpnetError(f"the library could not make its {what}: {logger.reason()}")
    return thing


def _strongly_typed(trt: Any) -> bool:
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") or not hasattr(trt.BuilderFlag, "FP16")


def _network_flags(trt: Any) -> int:
    """EXPLICIT_BATCH, which 8.x needs, and STRONGLY_TYPED, each where there is one."""
    known = trt.NetworkDefinitionCreationFlag
    return sum(1 << int(getattr(known, name)) for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED") if hasattr(known, name))


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


def _landmark_layers(trt: Any, network: Any) -> list[Any]:
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


def _set_capabilities(trt: Any, config: Any, wanted: Sequence[str]) -> list[str]:
    """Say which GPUs an RTX plan is for; returns their compute capabilities, in order."""
    known = {f"{int(n[2:-1])}.{n[-1]}": m for n, m in trt.ComputeCapability.__members__.items() if n.startswith("SM")}
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


# --- building, so that it can be stopped -------------------------------------------------------------------------


class _Watch:
    """What a build and the thread that waits for it tell each other: the part done, and what stopped it."""

    def __init__(self, progress: Progress | None) -> None:
        self.stopped = threading.Event()
        self.error: BaseException | None = None
        self._progress = progress
        self._shown = 0.0
        self._phases: dict[str, list[float]] = {}  # open phases: [steps done, steps], the outermost first

    def start(self, phase: str, steps: int) -> None:
        self._phases[phase] = [0, max(1, steps)]

    def step(self, phase: str, step: int) -> bool:
        """Count a finished step; False when the build is to stop."""
        if phase in self._phases:
            self._phases[phase][0] = step + 1
        self._report()
        return not self.stopped.is_set()

    def finish(self, phase: str) -> None:
        self._phases.pop(phase, None)

    def _report(self) -> None:
        part, share = 0.0, 1.0
        for done, steps in self._phases.values():  # each phase is one step of the phase around it
            part, share = part + share * done / steps, share / steps
        if self._progress is not None and not self.stopped.is_set() and part > self._shown:
            self._shown = min(1.0, part)
            try:
                self._progress(self._shown)
            except BaseException as error:
                self.error = error
                self.stopped.set()


def _monitor(trt: Any, watch: _Watch) -> Any:
    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watch.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watch.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            watch.finish(phase_name)

    return Monitor()


def _build(trt: Any, builder: Any, network: Any, config: Any, progress: Progress | None) -> Any:
    """The serialised network, or None when the library failed.

    The library works in a thread of its own, because Python hears Ctrl-C in the main thread only, and not in the middle of
    a call. A library without progress reports cannot be asked to stop: its thread is left behind, to end with the process.
    """
    watch, results = _Watch(progress), []
    monitored = hasattr(trt, "IProgressMonitor")
    if monitored:
        config.progress_monitor = monitor = _monitor(trt, watch)  # noqa: F841 (the library keeps no reference)

    # Waited for instead of the thread: Python 3.11 takes a thread for ended when its join is interrupted.
    done = threading.Event()

    def work() -> None:
        try:
            if not watch.stopped.is_set():
                results.append(builder.build_serialized_network(network, config))
        except BaseException as error:
            watch.error = watch.error or error
        finally:
            done.set()

    thread = threading.Thread(target=work, daemon=True)
    try:
        thread.start()
        while not done.wait(0.1):
            pass
    except BaseException:
        watch.stopped.set()
        while monitored and thread.ident is not None and not done.wait(0.1):
            pass
        raise
    if watch.error is not None:
        raise watch.error
    return results[0]


# --- what a version's parser does not read -----------------------------------------------------------------------


def casts_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, with the transposition of a uint8 input moved behind its cast to floating point; the results are the same.

    No TensorRT computes on uint8: an input of that type may be cast, and nothing else (8.5 and later; the parser refuses a
    uint8 tensor that is neither input nor output).
    """
    index = GraphIndex(model.graph)
    bytes_in = {i.name for i in model.graph.input if i.type.tensor_type.elem_type == TensorProto.UINT8}
    moved = [node for node in model.graph.node if node.op_type == "Transpose" and node.input[0] in bytes_in]
    if not any(reader.op_type == "Cast" for node in moved for reader in index.readers(node.output[0])):
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    nodes: list[onnx.NodeProto] = []
    transposes = {node.output[0]: node for node in changed.graph.node if node.name in {m.name for m in moved}}
    for node in changed.graph.node:
        transpose = transposes.get(node.input[0]) if node.op_type == "Cast" else None
        if transpose is None:
            nodes.append(node)
            continue
        cast, turned = onnx.NodeProto(), onnx.NodeProto()
        cast.CopyFrom(node)
        turned.CopyFrom(transpose)
        turned.output[0], turned.name = node.output[0], f"{transpose.name}_{node.name}"
        cast.input[0] = transpose.input[0]
        cast.output[0] = turned.input[0] = f"{node.output[0]}_untransposed"
        nodes += [cast, turned]
    read = {name for node in nodes for name in node.input}
    replace_nodes(changed.graph, [n for n in nodes if n.output[0] in read or n.output[0] not in transposes])
    return changed


def float_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, with every INT8 weight before a DequantizeLinear stored in float32, before a Q and the DQ; equal bit for bit.

    The parsers of TensorRT 8 read INT8 zero points, but no INT8 weights ("invalid weights type of Int8"). The builder
    folds the pair of a constant. Each float is the INT8 value times its scale, and the scales are not denormal, so that
    quantising gives the same INT8 value back.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    index = GraphIndex(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        stored = index.constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if stored is not None and stored.data_type == TensorProto.INT8:
            if len(node.input) < 3:  # without a zero point, QuantizeLinear would make uint8
                zeros = np.zeros_like(index.array(node.input[1]), np.int8)
                node.input.append(add_constant(graph, f"{node.output[0]}_zero_point", zeros))
            quantise = onnx.NodeProto()
            quantise.CopyFrom(node)  # the same scale, zero point and axis
            quantise.op_type, quantise.name = "QuantizeLinear", f"{node.name}_Q"
            quantise.input[0] = add_constant(graph, f"{node.output[0]}_float", _dequantised(index, node))
            quantise.output[0] = node.input[0] = f"{node.output[0]}_quantized"
            nodes.append(quantise)
        nodes.append(node)
    replace_nodes(graph, nodes)
    return changed


def _dequantised(index: GraphIndex, node: onnx.NodeProto) -> np.ndarray:
    """What a DequantizeLinear of a constant gives; all zero points of our graphs are 0."""
    values, scale = index.array(node.input[0]), index.array(node.input[1])
    if scale.ndim:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1) % values.ndim
        scale = scale.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    return values.astype(np.float32) * scale
