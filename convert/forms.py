"""The forms of a graph (`runtime.backend`): which passes each backend and precision needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx

from ampnet_opt.convert.float16 import to_bfloat16, to_half
from ampnet_opt.convert.openvino import cpu_graph
from ampnet_opt.convert.placement import expected_layers
from ampnet_opt.convert.qdq_rules import require_representable
from ampnet_opt.convert.rtx import rtx_graph
from ampnet_opt.convert.weakly_typed import float_weights
from ampnet_opt.core.onnx_bytes import serialised
from ampnet_opt.runtime.backend import RTX, TYPED, TYPED_FORMS, UNSIGNED, WEAK
from ampnet_opt.runtime.build import Prepared

HALF = {"fp16", "int8"}  # precisions whose float part is FP16, where the backend takes its types from the graph


def writes_half(forms: Collection[str], precisions: Collection[str]) -> bool:
    """Whether FP16 is written into a graph, of one of the forms, of an engine of one of the precisions."""
    return bool({*TYPED_FORMS} & {*forms} and HALF & {*precisions})


def in_form(model: onnx.ModelProto, precision: str, form: str, ranges: Mapping[str, float]) -> Prepared:
    """A float graph, or for int8 a Q/DQ graph, in the form that a backend takes; errors as of `build.prepared`.

    Args:
        model: the graph, which is not changed.
        precision: of the engine.
        form: of `runtime.backend`.
        ranges: largest magnitude of each float tensor, for a typed graph.
    """
    if form == UNSIGNED:
        model = cpu_graph(model, precision)
    kept, expected, plain = None, expected_layers(model, precision), model
    if form == WEAK:
        model = float_weights(model)
    elif form in TYPED_FORMS and precision in HALF:
        if form == RTX and precision == "int8":
            model = rtx_graph(model)
        model, kept = to_half(model, ranges)
    elif form in TYPED_FORMS and precision == "bf16":
        model, kept = to_bfloat16(model)
    spare = None
    if precision == "int8":
        require_representable(model)
        spare = serialised(plain) if form == TYPED else None
    return Prepared(precision, serialised(model), float32_layers=kept, expected=expected, float32_scales=spare)
