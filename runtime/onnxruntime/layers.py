"""The layers of a graph as ONNX Runtime ran them, out of its profile."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from ampnet_opt.core.graph_interface import IMAGE_SHAPES, INPUTS, LANDMARKS_SHAPE, OUTPUT
from ampnet_opt.runtime.layers import CONVOLUTION, OTHER, PRECISIONS, PRODUCT, QUANTISATION, REFORMAT, Layer
from ampnet_opt.runtime.onnxruntime.executor import MODEL, new_session
from ampnet_opt.runtime.sidecar import Sidecar, read_unchanged

ROLES = {
    **dict.fromkeys(("Conv", "FusedConv", "NhwcFusedConv", "QLinearConv", "ConvInteger"), CONVOLUTION),
    **dict.fromkeys(("Gemm", "FusedGemm", "MatMul", "FusedMatMul", "QLinearMatMul", "MatMulIntegerToFloat"), PRODUCT),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), QUANTISATION),
    **dict.fromkeys(("ReorderInput", "ReorderOutput", "Transpose"), REFORMAT),
}
# ONNX Runtime's names of types, where they are not those of `layers.PRECISIONS`.
TYPES = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16"}
KERNEL = "_kernel_time"  # ends the name of an event that is the run of a node


def list_layers(directory: Path, sidecar: Sidecar) -> List[Layer]:
    """The nodes that are left after ONNX Runtime's own optimisation, in the order in which they ran on blank images.

    Without its last step, which changes how feature maps lie in memory: that names nodes for the tensors that they give.
    """
    batch = sidecar.batch.opt
    image, landmarks = (batch, *IMAGE_SHAPES[sidecar.image_input]), (batch, *LANDMARKS_SHAPE)
    faces = np.zeros(image, sidecar.image_input), np.zeros(landmarks, np.float32)
    return [_layer(event) for event in _profiled(directory, sidecar, faces, 1, layouts=False)]


def layer_times(
    directory: Path, sidecar: Sidecar, faces: Tuple[np.ndarray, np.ndarray], runs: int, threads: Optional[int]
) -> List[Tuple[str, str, float]]:
    """(name, operator, seconds of one run) of each node, after one untimed run."""
    events = _profiled(directory, sidecar, faces, runs + 1, threads)
    seconds: Dict[Tuple[str, str], float] = {}
    for event in events[len(events) // (runs + 1) :]:  # the nodes of every run are the same
        key = (_name(event), event["args"]["op_name"])
        seconds[key] = seconds.get(key, 0.0) + event["dur"] * 1e-6 / runs
    return [(name, kernel, took) for (name, kernel), took in seconds.items()]


def _profiled(
    directory: Path,
    sidecar: Sidecar,
    faces: Tuple[np.ndarray, np.ndarray],
    runs: int,
    threads: Optional[int] = None,
    *,
    layouts: bool = True,
) -> List[Dict[str, Any]]:
    """The events of the nodes in `runs` runs of the graph, in their order. layouts: change how feature maps lie."""
    graph = bytes(read_unchanged(directory / MODEL, sidecar.files))
    with TemporaryDirectory() as folder:

        def configure(library: Any, options: Any) -> None:
            options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
            if not layouts:
                options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_EXTENDED

        session = new_session(sidecar.backend, graph, sidecar.precision, threads, configure)
        for _ in range(runs):
            session.run([OUTPUT], dict(zip(INPUTS, faces)))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return [event for event in events if event.get("cat") == "Node" and event["name"].endswith(KERNEL)]


def _name(event: Dict[str, Any]) -> str:
    return str(event["name"][: -len(KERNEL)])


def _layer(event: Dict[str, Any]) -> Layer:
    about = event["args"]
    role = ROLES.get(about["op_name"], OTHER)
    inputs = [next(iter(tensor)) for tensor in about.get("input_type_shape", []) if tensor]
    precision = PRECISIONS.get(TYPES.get(inputs[0], inputs[0]), "") if inputs else ""
    return Layer(_name(event), about["op_name"], role, precision, None, (_name(event),))
