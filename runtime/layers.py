"""What an engine really computes in: the layers that the backend itself lists, held against what the graph asked for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.text import count, listed
from ampnet_opt.runtime.backend import find_backend
from ampnet_opt.runtime.sidecar import Sidecar

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
# The convolutions and matrix products that the graph wants in the engine's precision, by the names of their nodes -> further
# names that a layer may have instead. What is in floating point by design is not among them.
Expected = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    kind: in the backend's words. role: one of the constants above. precision: of its arithmetic; "" where the list does not
    say. bytes: of its weights; None where it has none, or the list does not say. sources: names of the graph's nodes that it
    computes, or longer names that begin with them and a slash. written: (precision, bytes for one image) of each tensor that
    it writes; () where the list does not say.
    """

    name: str
    kind: str
    role: str
    precision: str
    bytes: Optional[int] = None
    sources: Tuple[str, ...] = ()
    written: Tuple[Tuple[str, int], ...] = ()


def list_layers(directory: Path, sidecar: Sidecar, expected: Expected) -> Dict[str, Any]:
    """The record, for the sidecar, of an engine's layers; {"not_listed": why} where this machine cannot open the engine."""
    try:
        layers = find_backend(sidecar.backend).layers(directory, sidecar)
    except AmpnetError as error:
        return {"not_listed": str(error)}
    return summarise(layers, sidecar.precision, expected)


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
            for node in {node_of(source, nodes) for source in layer.sources}:
                if node is not None:
                    found[node].append(layer)
    return {node: [x for x in makers if x.role in WEIGHTED] or makers for node, makers in found.items()}


def node_of(source: str, nodes: Dict[str, str]) -> Optional[str]:
    """The node that `source` is, or a part of: OpenVINO splits a Conv into Conv/WithoutBiases and an addition."""
    while source and source not in nodes:
        source = source.rpartition("/")[0]
    return nodes.get(source)


def summarise(layers: List[Layer], precision: str, expected: Expected) -> Dict[str, Any]:
    """What a sidecar keeps: counts, names of what is not as asked, and every layer as [kind, precision, bytes, name].

    written: bytes of activations that the engine writes for one image, by precision; {} where the list does not say.
    """
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
        "written": _written(layers),
        "list": [[layer.kind, layer.precision, layer.bytes, layer.name] for layer in layers],
    }


def _written(layers: List[Layer]) -> Dict[str, int]:
    """Bytes by precision, the most first."""
    total: Counter[str] = Counter()
    for layer in layers:
        for precision, size in layer.written:
            total[precision or "other"] += size
    return {precision: size for precision, size in total.most_common() if size}


def sentence(record: Dict[str, Any]) -> str:
    """A sidecar's record of layers in one line."""
    if "not_listed" in record:
        return f"layers not listed: {record['not_listed']}"
    counts = [count(number, role) for role, number in record["as_asked"].items()]
    *first, last = counts or ["no layer"]
    parts = [f"{' and '.join(filter(None, (', '.join(first), last)))} in {record['precision'].upper()}"]
    parts += [f"{count(n, 'layer')} in {(name or 'unknown').upper()} by design" for name, n in record["by_design"].items()]
    parts.append(f"{len(record['downgraded'])} downgraded")
    if record["untold"]:
        parts.append(f"{len(record['untold'])} of unlisted precision")
    parts.append(count(record["reformats"], "reformat"))
    sizes = record.get("written")  # not in engines from before it was counted
    if sizes:
        each = ", ".join(f"{name.upper()} {size / 1e6:.1f}" for name, size in sizes.items())
        parts.append(f"{sum(sizes.values()) / 1e6:.1f} MB of activations written for an image ({each})")
    return ", ".join(parts)


def layer_warnings(record: Dict[str, Any]) -> List[str]:
    """What a record says of layers that are not in the precision that the graph asks for, or may not be: a line for each
    precision that they are in."""
    wanted = str(record.get("precision", "")).upper()
    others: Dict[str, List[str]] = {}
    for node, name in record.get("downgraded", {}).items():
        others.setdefault(name.upper(), []).append(node)
    found = [f"{count(len(nodes), 'layer')} in {name}, not in {wanted}: {listed(nodes)}" for name, nodes in others.items()]
    untold = record.get("untold", [])
    if untold:
        found.append(
            f"the precision of {count(len(untold), 'layer')} that should be in {wanted} is unlisted: {listed(untold)}"
        )
    return found
