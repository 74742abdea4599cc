"""The layers that TensorRT for RTX lists while it builds a plan: a message that begins with `Layers:`, a line for each.

The list needs no GPU. Kernels are compiled on the GPU that loads the plan, so the list is the same for all of them.
"""

from __future__ import annotations

import re
from math import prod
from typing import List, Tuple

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.runtime.layers import BYTES, CONVOLUTION, OTHER, PRECISIONS, PRODUCT, Layer

TITLE = "Layers:"
ROLES = {"correlation": CONVOLUTION, "gemm": PRODUCT}
FUSED_ROLES = {"Corr": CONVOLUTION, "Fc": PRODUCT}  # of a fusion, by a word of its name, as in __myl_CorrAdd_myl0_213
NOT_KERNELS = {"signal", "wait", "shape_call"}  # marks between streams, and work of the processor
LINE = re.compile(
    r"Name: (?P<name>.*), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*)\], Constants: \[(?P<constants>.*)\], "
    r"Outputs: \[(?P<outputs>.*)\], TacticName: .*, StreamId: \d+,.* Metadata: ?(?P<metadata>.*)"
)
TENSOR = re.compile(r"Dimensions: \[(?P<shape>[-\d,]*)\],(?:[^{}]*,)? Datatype: (?P<type>\w+), Format: [^{}]*}")
NODE = "[ONNX Layer: "

Tensor = Tuple[Tuple[int, ...], str]  # shape, where -1 is the batch; precision, "" for a type that is not known


def is_layer_list(message: str) -> bool:
    """Whether a message of the library is the list that `layers_of_message` reads."""
    return message.startswith(TITLE)


def layers_of_message(message: str) -> List[Layer]:
    """The kernels of a plan, in the library's order; marks between streams are left out.

    A kernel's precision is that of its weights, or of its first input where it has none. Raises AmpnetError when `message`
    is of no form that is known.
    """
    lines = message.partition("\n\n")[0].splitlines()[1:]  # tables of inputs and outputs follow an empty line
    matches = [LINE.fullmatch(line.rstrip()) for line in lines]
    if not matches or None in matches:
        example = next((line for line, match in zip(lines, matches) if match is None), "it is empty")
        raise AmpnetError(f"the library's list of layers is of no form that is known: {example[:80]}")
    return [_layer(match) for match in matches if match is not None and match["kind"] not in NOT_KERNELS]


def _layer(match: re.Match[str]) -> Layer:
    inputs, constants, outputs = (_tensors(match[field]) for field in ("inputs", "constants", "outputs"))
    # Factors of a product (alpha, beta) and single numbers have one dimension; weights and biases have more.
    arrays = [(shape, precision) for shape, precision in constants if len(shape) > 1]
    role = _role(match["kind"], match["name"])
    operands = [precision for _, precision in inputs[:1]]
    if role != OTHER:
        operands += [precision for _, precision in arrays[:1] or inputs[1:2]]
    return Layer(
        name=match["name"],
        kind=match["kind"],
        role=role,
        # Weights that are only stored in INT8 are computed in the type of the input.
        precision=next((precision for precision in operands if precision != "int8"), "int8") if operands else "",
        bytes=sum(map(_size, arrays)) if arrays else None,
        sources=tuple(part.rstrip("]\x1e\x1f") for part in match["metadata"].split(NODE) if part),
        written=tuple((precision, _size((shape, precision))) for shape, precision in outputs),
    )


def _role(kind: str, name: str) -> str:
    words = re.findall("[A-Z][a-z]*", name) if kind == "runtime_fusion" else []
    return ROLES.get(kind) or next((FUSED_ROLES[word] for word in words if word in FUSED_ROLES), OTHER)


def _tensors(text: str) -> List[Tensor]:
    found = []
    for match in TENSOR.finditer(text):
        shape = tuple(int(size) for size in match["shape"].split(",") if size)
        found.append((shape, PRECISIONS.get(match["type"].lower(), "")))
    return found


def _size(tensor: Tensor) -> int:
    """Bytes of a tensor, for one image where it has a batch."""
    shape, precision = tensor
    return abs(prod(shape)) * BYTES.get(precision, 0)
