"""From an ONNX graph to an engine of the cpu backend: OpenVINO reads the graph and writes its own files."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.graph_interface import INPUTS
from ampnet_opt.core.text import one_line
from ampnet_opt.runtime.openvino.executor import MODEL
from ampnet_opt.runtime.openvino.library import core, load_openvino

HALF = {"fp16", "bf16"}
CROPS = {"GatherND", "MatMul"}  # what cuts patches out of the feature map


def build_ir(graph: bytes, precision: str, directory: Path) -> Tuple[List[str], str]:
    """Write `engine.xml` and `engine.bin`; returns their names and OpenVINO's version.

    graph: a serialised ONNX model, float32, for int8 with Q/DQ pairs. Half precisions store FP16 weights. Raises AmpnetError
    when OpenVINO is missing or cannot read the graph, OSError when the files cannot be written.
    """
    openvino = load_openvino()
    try:
        network = core().read_model(graph)
    except RuntimeError as error:
        raise AmpnetError(f"OpenVINO {openvino.__version__} cannot read the graph: {one_line(error)}") from error
    _number(network)
    path = directory / MODEL
    try:
        openvino.save_model(network, path, compress_to_fp16=precision in HALF)
    except RuntimeError as error:  # how its writer reports a full disk, in no more words than "iostream error"
        raise OSError(f"OpenVINO's writer failed, as on a full disk ({one_line(error)})") from error
    tree = ElementTree.parse(path)
    if precision in HALF:
        _keep_landmarks_exact(tree.getroot())
    for element in tree.iter():  # indentation is a sixth of the file
        element.tail = None
        element.text = (element.text or "").strip() or None
    tree.write(path)
    return [path.name, path.with_suffix(".bin").name], openvino.__version__


def _number(network: Any) -> None:
    """Name the nodes that OpenVINO adds by their place: its own numbers count all that a process has made.

    Equal graphs then give equal files, which the cache of compiled models knows again.
    """
    for place, node in enumerate(network.get_ordered_ops()):
        if node.get_friendly_name() == node.get_name():
            node.set_friendly_name(f"added_{node.get_type_name()}_{place}")


def _keep_landmarks_exact(network: ElementTree.Element) -> None:
    """Mark all layers from the landmarks to the crops as precise: in half precision a box could move by a cell.

    Positions in pixels lose their fractions there, and numbers of cells their last digits.
    """
    layers = {layer.get("id"): layer for layer in network.iterfind("layers/layer")}
    readers: Dict[Optional[str], List[Optional[str]]] = {}
    for edge in network.iterfind("edges/edge"):
        readers.setdefault(edge.get("from-layer"), []).append(edge.get("to-layer"))
    waiting = [number for number, layer in layers.items() if layer.get("name") == INPUTS[1]]
    seen = set()
    while waiting:
        number = waiting.pop()
        if number in seen:
            continue
        seen.add(number)
        layer = layers[number]
        info = layer.find("rt_info")
        if info is None:
            info = ElementTree.Element("rt_info")
            layer.insert(1 if layer.find("data") is not None else 0, info)
        ElementTree.SubElement(info, "attribute", name="precise", version="0")
        if layer.get("type") not in CROPS:
            waiting += readers.get(number, [])
