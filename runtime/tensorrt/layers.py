"""The layers that TensorRT's engine inspector lists of a plan.

Its JSON has had the same fields since 8.2; `Metadata`, with the names of the ONNX nodes of a layer, since 8.6.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.graph_interface import INPUTS
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.layers import BYTES, CONVOLUTION, OTHER, PRECISIONS, PRODUCT, QUANTISATION, REFORMAT, Layer
from ampnet_opt.runtime.sidecar import Sidecar
from ampnet_opt.runtime.tensorrt.plan import LoadedPlan, engine_plan

NOT_LAYERS = {"signal", "wait"}  # marks between streams
# Ends the names of the layers of all profiles but the first: the same layers once more, for larger batches.
OTHER_PROFILE = re.compile(r" \[profile [1-9]\d*\]$")
ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


def list_layers(directory: Path, sidecar: Sidecar) -> List[Layer]:
    """The layers of a plan that this machine can run; only such a machine can open it."""
    with cuda.current():
        return layers_of(_inspected(engine_plan(directory, sidecar), sidecar))


def _inspected(plan: LoadedPlan, sidecar: Sidecar) -> str:
    """The engine inspector's JSON for the batch that the engine is tuned for: without shapes it may not know types."""
    context = plan.create_context(cuda_graph=False)
    for name in INPUTS:
        context.set_input_shape(name, (sidecar.batch.opt, *tuple(plan.engine.get_tensor_shape(name))[1:]))
    inspector = plan.engine.create_engine_inspector()
    inspector.execution_context = context
    return str(inspector.get_engine_information(plan.library.LayerInformationFormat.JSON))


def layers_of(text: str) -> List[Layer]:
    """The layers of an engine inspector's JSON, that of a whole engine, in its order.

    Of several optimisation profiles, the layers of the first are listed. An engine that was built without
    ProfilingVerbosity.DETAILED lists names only; types of tensors are unknown where the batch is dynamic and no context was
    set. Raises AmpnetError when `text` is of no form that is known.
    """
    try:
        # Until 10 the separators within Metadata stand there as they are, which strict JSON does not allow.
        entries = json.loads(text, strict=False)["Layers"]
        return [
            _layer(entry) for entry in entries if _kind(entry) not in NOT_LAYERS and not OTHER_PROFILE.search(_name(entry))
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AmpnetError(f"the engine inspector's list is of no form that is known ({error!r})") from error


def _kind(entry: Any) -> str:
    return "" if isinstance(entry, str) else entry["LayerType"]


def _name(entry: Any) -> str:
    return entry if isinstance(entry, str) else entry["Name"]


def _layer(entry: Any) -> Layer:
    if isinstance(entry, str):
        return Layer(entry, "", OTHER, "", None, _fused(entry))
    kind, name = entry["LayerType"], entry["Name"]
    role = _role(kind, entry)
    weights = _weights(entry.get("Weights"))
    inputs = [precision for precision in map(_tensor_precision, entry.get("Inputs", [])) if precision]
    precision = weights[0] if weights else inputs[0] if inputs else ""
    if precision == "int8" and inputs and inputs[0] != "int8":
        precision = inputs[0]  # weights that are only stored in INT8
    size = None if weights is None else weights[1] + (_weights(entry.get("Bias")) or ("", 0))[1]
    nodes = tuple(ONNX_NODE.findall(entry.get("Metadata", "")))
    return Layer(name, kind, role, precision, size, nodes or _fused(name))


def _role(kind: str, entry: Dict[str, Any]) -> str:
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
