"""The layers that OpenVINO lists of a compiled model."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any, Dict, List

from ampnet_opt.runtime.layers import CONVOLUTION, OTHER, PRECISIONS, PRODUCT, QUANTISATION, REFORMAT, WEIGHTED, Layer
from ampnet_opt.runtime.openvino.executor import MODEL, Executor
from ampnet_opt.runtime.sidecar import Sidecar

NOT_LAYERS = {"Const", "Input", "Output"}  # compute nothing


def list_layers(directory: Path, sidecar: Sidecar) -> List[Layer]:
    """The layers of an engine, compiled for the batch that it is tuned for."""
    executor = Executor(directory / MODEL, sidecar.precision, None, {sidecar.batch.opt})
    try:
        return layers_of(executor.compiled(sidecar.batch.opt))
    finally:
        executor.close()


def layers_of(compiled: Any) -> List[Layer]:
    """The layers of an OpenVINO CompiledModel, in the order of execution; what it computes once, when it is loaded, is not
    among them."""
    return [_layer(op) for op in compiled.get_runtime_model().get_ordered_ops() if not _runs_once(op)]


def _runs_once(op: Any) -> bool:
    return _info(op)["layerType"] in NOT_LAYERS or _is_constant(op)


def _is_constant(op: Any) -> bool:
    """A constant, or what only moves one."""
    kind = _info(op)["layerType"]
    return kind == "Const" or (kind in {"Reorder", "Transpose"} and _is_constant(_producer(op.input(0))))


def _layer(op: Any) -> Layer:
    info = _info(op)
    kind = info["layerType"]
    # The other constants are biases and scales of what was fused into it.
    weights = [port for port in op.inputs() if _is_constant(_producer(port))][:1]
    roles = {"Convolution": CONVOLUTION, "FullyConnected": PRODUCT, "Reorder": REFORMAT, "FakeQuantize": QUANTISATION}
    # "_fake" is OpenVINO's mark of a reorder that only renames: what it reads lies as its reader wants it.
    role = OTHER if op.get_friendly_name().endswith("_fake") else roles.get(kind, OTHER)
    size = sum(prod(port.get_shape()) * port.get_element_type().size for port in weights) if role in WEIGHTED else None
    sources = tuple(name for name in info.get("originalLayersNames", "").split(",") if name)
    return Layer(op.get_friendly_name(), kind, role, PRECISIONS.get(info["runtimePrecision"], ""), size, sources)


def _info(op: Any) -> Dict[str, str]:
    return {key: str(getattr(value, "value", value)) for key, value in op.get_rt_info().items()}


def _producer(port: Any) -> Any:
    return port.get_source_output().get_node()
