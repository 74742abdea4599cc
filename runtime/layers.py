"""What an engine really computes in: the layers that the backend itself lists, held against what the graph asked for.

The list comes from OpenVINO's compiled model, or from the JSON of TensorRT's engine inspector, which has had the same
fields since 8.2; `Metadata`, with the names of the ONNX nodes of a layer, since 8.6.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from math import prod
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.text import count

CONVOLUTION, PRODUCT, REFORMAT, QUANTISATION, OTHER = "convolution", "matrix product", "reformat", "quantisation", "other"
WEIGHTED = (CONVOLUTION, PRODUCT)
# The types that inspectors and OpenVINO name, as precisions of ours; an integer activation may be signed or not.
PRECISIONS = {
    **dict.fromkeys(("fp32", "float", "f32"), "fp32"),
    **dict.fromkeys(("fp16", "half", "f16"), "fp16"),
    **dict.fromkeys(("bf16", "bfloat16"), "bf16"),
    **dict.fromkeys(("int8", "uint8", "i8", "u8"), "int8"),
    **dict.fromkeys(("fp8",), "fp8"),
    **dict.fromkeys(("int32", "i32"), "int32"),
    **dict.fromkeys(("int64", "i64"), "int64"),
    **dict.fromkeys(("bool", "boolean"), "bool"),
}
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1, "int32": 4, "int64": 8, "bool": 1}
# OpenVINO's layers that compute nothing, and TensorRT's marks between streams.
NOT_LAYERS = {"Const", "Input", "Output", "signal", "wait"}
# The convolutions and matrix products that the graph wants in the engine's precision, by the names of their nodes -> further
# names that a layer may have instead. What is in floating point by design is not among them.
Expected = Mapping[str, Sequence[str]]
ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


@dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    kind: in the backend's words. role: one of the constants above. precision: of its arithmetic; "" where the list does not
    say. bytes: of its weights; None where it has none, or the list does not say. sources: names of the graph's nodes that it
    computes, or longer names that begin with them and a slash.
    """

    name: str
    kind: str
    role: str
    precision: str
    bytes: Optional[int] = None
    sources: Tuple[str, ...] = ()


def cpu_layers(compiled: Any) -> List[Layer]:
    """The layers of an OpenVINO CompiledModel, in the order of execution; what it computes once, when it is loaded, is not
    among them."""
    return [_cpu_layer(op) for op in compiled.get_runtime_model().get_ordered_ops() if not _runs_once(op)]


def _runs_once(op: Any) -> bool:
    return _info(op)["layerType"] in NOT_LAYERS or _is_constant(op)


def _is_constant(op: Any) -> bool:
    """A constant, or what only moves one."""
    kind = _info(op)["layerType"]
    return kind == "Const" or (kind in {"Reorder", "Transpose"} and _is_constant(_producer(op.input(0))))


def _cpu_layer(op: Any) -> Layer:
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


def trt_layers(text: str) -> List[Layer]:
    """The layers of an engine inspector's JSON, that of a whole engine, in its order.

    An engine that was built without ProfilingVerbosity.DETAILED lists names only; types of tensors are unknown where the
    batch is dynamic and no context was set. Raises AmpnetError when `text` is of no form that is known.
    """
    try:
        # Until 10 the separators within Metadata stand there as they are, which strict JSON does not allow.
        entries = json.loads(text, strict=False)["Layers"]
        return [_trt_layer(entry) for entry in entries if _kind(entry) not in NOT_LAYERS]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AmpnetError(f"the engine inspector's list is of no form that is known ({error!r})") from error


def _kind(entry: Any) -> str:
    return "" if isinstance(entry, str) else entry["LayerType"]


def _trt_layer(entry: Any) -> Layer:
    if isinstance(entry, str):
        return Layer(entry, "", OTHER, "", None, _fused(entry))
    kind, name = entry["LayerType"], entry["Name"]
    role = _trt_role(kind, entry)
    weights = _weights(entry.get("Weights"))
    inputs = [precision for precision in map(_tensor_precision, entry.get("Inputs", [])) if precision]
    precision = weights[0] if weights else inputs[0] if inputs else ""
    if precision == "int8" and inputs and inputs[0] != "int8":
        precision = inputs[0]  # weights that are only stored in INT8
    size = None if weights is None else weights[1] + (_weights(entry.get("Bias")) or ("", 0))[1]
    nodes = tuple(ONNX_NODE.findall(entry.get("Metadata", "")))
    return Layer(name, kind, role, precision, size, nodes or _fused(name))


def _trt_role(kind: str, entry: Dict[str, Any]) -> str:
    words = f"{kind} {entry.get('ParameterType', '')}".lower()
    if "reformat" in words:
        return QUANTISATION if entry.get("Origin") == "QDQ" else REFORMAT
    if "conv" in words:
        return CONVOLUTION
    return PRODUCT if any(word in words for word in ("gemm", "matrixmultiply", "matmul", "fullyconnected")) else OTHER


def _fused(name: str) -> Tuple[str, ...]:
    """What a layer is made of, by its name: "weight + Conv_9 + Relu_10", or "Conv_1 || Conv_2" side by side."""
    return tuple(re.split(r" \+ | \|\| ", name))


def _weights(field: Any) -> Optional[Tuple[str, int]]:
    """(precision, bytes) of `{"Type": "Int8", "Count": 9408}`; None where there are none."""
    if not field or not field["Count"]:
        return None
    precision = PRECISIONS.get(field["Type"].lower(), "")
    return precision, field["Count"] * BYTES.get(precision, 0)


def _tensor_precision(tensor: Dict[str, Any]) -> str:
    """Of "Half", of "Thirty-two wide channel vectorized row major Int8 format", ...; "" for "N/A due to dynamic shapes"."""
    words = re.findall(r"\w+", tensor.get("Format/Datatype", tensor.get("Datatype", "")).lower())
    return next((PRECISIONS[word] for word in words if word in PRECISIONS), "")


def downgraded(layers: List[Layer], precision: str, expected: Expected) -> Dict[str, str]:
    """The nodes in `expected` that no layer computes in `precision` -> what they are in."""
    wrong = {}
    for node, makers in _computing(layers, expected).items():
        known = [layer.precision for layer in makers if layer.precision]
        if known and precision not in known:
            wrong[node] = known[0]
    return wrong


def untold(layers: List[Layer], expected: Expected) -> List[str]:
    """The nodes in `expected` of which the list does not tell what they are computed in."""
    found = _computing(layers, expected)
    return [node for node, makers in found.items() if not any(layer.precision for layer in makers)]


def _computing(layers: List[Layer], expected: Expected) -> Dict[str, List[Layer]]:
    """Node -> the layers that compute it. A layer may only name a node whose result it moves or rounds: convolutions and
    products go before others, and reformats and quantisations do not count."""
    found: Dict[str, List[Layer]] = {node: [] for node in expected}
    nodes = {name: node for node, others in expected.items() for name in (node, *others)}
    for layer in layers:
        if layer.role not in (REFORMAT, QUANTISATION):
            for node in {_node(source, nodes) for source in layer.sources}:
                if node is not None:
                    found[node].append(layer)
    return {node: [x for x in makers if x.role in WEIGHTED] or makers for node, makers in found.items()}


def _node(source: str, nodes: Dict[str, str]) -> Optional[str]:
    """The node that `source` is, or a part of: OpenVINO splits a Conv into Conv/WithoutBiases and an addition."""
    while source and source not in nodes:
        source = source.rpartition("/")[0]
    return nodes.get(source)


def summarise(layers: List[Layer], precision: str, expected: Expected) -> Dict[str, Any]:
    """What a sidecar keeps: counts, names of what is not as asked, and every layer as [kind, precision, bytes, name]."""
    found, wrong, unknown = _computing(layers, expected), downgraded(layers, precision, expected), untold(layers, expected)
    right = [makers[0].role for node, makers in found.items() if node not in wrong and node not in unknown]
    asked = {layer for makers in found.values() for layer in makers}
    floating = [x.precision for x in layers if x.role in WEIGHTED and x.bytes is not None and x not in asked]
    return {
        "precision": precision,
        "as_asked": {role: right.count(role) for role in dict.fromkeys(right)},
        "by_design": {name: floating.count(name) for name in dict.fromkeys(floating)},
        "downgraded": wrong,
        "untold": unknown,
        "reformats": sum(layer.role == REFORMAT for layer in layers),
        "list": [[layer.kind, layer.precision, layer.bytes, layer.name] for layer in layers],
    }


def sentence(record: Dict[str, Any]) -> str:
    """A sidecar's record of layers in one line."""
    if "not_listed" in record:
        return f"layers not listed: {record['not_listed']}"
    counts = [count(number, role) for role, number in record["as_asked"].items()]
    parts = [f"{' and '.join(counts) or 'no layer'} in {record['precision'].upper()}"]
    parts += [f"{count(n, 'layer')} in {(name or 'unknown').upper()} by design" for name, n in record["by_design"].items()]
    parts.append(f"{len(record['downgraded'])} downgraded")
    if record["untold"]:
        parts.append(f"{len(record['untold'])} of which the engine's list does not tell")
    return ", ".join([*parts, count(record["reformats"], "reformat")])
