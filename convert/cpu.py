"""The graph as the cpu backend computes it fastest, and engines from it."""

from __future__ import annotations

from pathlib import Path

import onnx

from ampnet_opt.convert.unsigned import to_unsigned
from ampnet_opt.runtime.ir import build_ir


def unsigned_graph(model: onnx.ModelProto, precision: str) -> bytes:
    """`model`, serialised; the Q/DQ graph of int8 with its non-negative activations as UINT8."""
    return (to_unsigned(model) if precision == "int8" else model).SerializeToString()


def build(model: onnx.ModelProto, precision: str, directory: Path) -> tuple[list[str], str]:
    """`build_ir` of a float graph, or for int8 of a Q/DQ graph."""
    return build_ir(unsigned_graph(model, precision), precision, directory)
