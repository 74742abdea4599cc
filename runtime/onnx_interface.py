"""The inputs and outputs of an ONNX file, read and rewritten without the onnx package, which boards do not have.

Only the few fields that say a graph's interface are decoded (onnx/onnx.proto and protobuf's "Encoding" document); nodes and
weights are copied as they are.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional, Tuple

# Numbers of fields in onnx.proto.
MODEL_GRAPH = 7
INITIALIZER, SPARSE_INITIALIZER, INPUT, OUTPUT, VALUE_INFO = 5, 15, 11, 12, 13
TENSOR_NAME, SPARSE_VALUES = 8, 1  # of TensorProto; of SparseTensorProto
VALUE_NAME, VALUE_TYPE = 1, 2
TENSOR_TYPE, ELEMENT_TYPE, SHAPE, DIMENSION, DIMENSION_VALUE, DIMENSION_NAME = 1, 1, 2, 1, 1, 2
FLOAT = 1  # TensorProto.DataType
# Protobuf's wire types, and the bytes of those of a fixed size.
VARINT, BYTES = 0, 2
FIXED = {1: 8, 5: 4}


class FlexibleGraph(NamedTuple):
    """A graph of one picture.

    Attributes:
        content: the serialised model, whose input is float32 [1, 3, height, width] with free height and width.
        input: name of its input. outputs: names of its outputs, in order.
        name: what it is, for messages: "face detector".
    """

    content: bytes
    input: str
    outputs: List[str]
    name: str


class _Field(NamedTuple):
    number: int
    wire: int
    value: memoryview  # of a BYTES field its payload, of others the encoded number
    whole: memoryview  # with its key and length


def output_size(path: Path) -> Optional[int]:
    """The last dimension of the first output of an ONNX file; None where it says none, or is none."""
    try:
        with open(path, "rb") as file:
            model = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))  # mapped, since weights are skipped
        _, dimensions = _tensor_type(_first(_first(model, MODEL_GRAPH), OUTPUT))
    except (OSError, ValueError):  # ValueError: of an empty file, too
        return None
    return dimensions[-1] or None if dimensions else None


def with_free_size(model: bytes, name: str) -> FlexibleGraph:
    """The model with free height and width, whatever size it was exported for, and a batch of one.

    Shapes of its outputs and in between are dropped, as they hold for the old size only; libraries infer them. Weights
    that are listed as inputs are taken off that list, so that libraries may fold them.

    name: of `FlexibleGraph`. Raises ValueError, with the reason in words, when these are no bytes of an ONNX model with one
    image input.
    """
    parts: List[bytes] = []
    found = None
    for field in _fields(memoryview(model)):
        if field.number == MODEL_GRAPH and field.wire == BYTES:
            graph, tensor, outputs = _free_graph(field.value)
            found = tensor, outputs
            parts.append(_bytes_field(MODEL_GRAPH, graph))
        else:
            parts.append(bytes(field.whole))
    if found is None:
        raise ValueError("it holds no graph")
    return FlexibleGraph(b"".join(parts), *found, name)


def _free_graph(graph: memoryview) -> Tuple[bytes, str, List[str]]:
    fields = list(_fields(graph))
    weights = {_weight_name(field) for field in fields if field.number in (INITIALIZER, SPARSE_INITIALIZER)}
    inputs = [field.value for field in fields if field.number == INPUT and _text(field.value, VALUE_NAME) not in weights]
    if len(inputs) != 1:
        raise ValueError(f"it has {len(inputs)} inputs, not one")
    kind, dimensions = _tensor_type(inputs[0])
    if kind != FLOAT or len(dimensions) != 4 or dimensions[1] not in (0, 3):
        raise ValueError("its input is no float32 image [1, 3, height, width]")
    name = _text(inputs[0], VALUE_NAME)
    outputs = [_text(field.value, VALUE_NAME) for field in fields if field.number == OUTPUT]
    replaced = (INPUT, OUTPUT, VALUE_INFO)
    parts = [bytes(field.whole) for field in fields if field.number not in replaced]
    parts.append(_bytes_field(INPUT, _value(name, _image_shape())))
    parts += [_bytes_field(OUTPUT, _value(output, b"")) for output in outputs]
    return b"".join(parts), name, outputs


def _weight_name(field: _Field) -> str:
    tensor = field.value
    if field.number == SPARSE_INITIALIZER:
        tensor = _first(tensor, SPARSE_VALUES)
    return _text(tensor, TENSOR_NAME)


def _tensor_type(value: memoryview) -> Tuple[int, List[int]]:
    """Element type and dimensions of a ValueInfoProto; 0 stands for a dimension without a number."""
    tensor = _first(_first(value, VALUE_TYPE), TENSOR_TYPE)
    kinds = [
        _varint(field.value, 0)[0] for field in _fields(tensor) if field.number == ELEMENT_TYPE and field.wire == VARINT
    ]
    dimensions = []
    for field in _fields(_first(tensor, SHAPE)):
        if field.number == DIMENSION and field.wire == BYTES:
            values = [_varint(one.value, 0)[0] for one in _fields(field.value) if one.number == DIMENSION_VALUE]
            dimensions.append(values[-1] if values else 0)
    return kinds[-1] if kinds else 0, dimensions


def _image_shape() -> bytes:
    """TensorShapeProto [1, 3, height, width]."""
    numbers = [_key(DIMENSION_VALUE, VARINT) + _encoded(size) for size in (1, 3)]
    names = [_bytes_field(DIMENSION_NAME, name) for name in (b"height", b"width")]
    return _bytes_field(SHAPE, b"".join(_bytes_field(DIMENSION, one) for one in (*numbers, *names)))


def _value(name: str, shape: bytes) -> bytes:
    """ValueInfoProto of a float32 tensor; without a shape, of any."""
    tensor = _key(ELEMENT_TYPE, VARINT) + _encoded(FLOAT) + shape
    return _bytes_field(VALUE_NAME, name.encode()) + _bytes_field(VALUE_TYPE, _bytes_field(TENSOR_TYPE, tensor))


def _fields(message: memoryview) -> Iterator[_Field]:
    place = 0
    while place < len(message):
        start = place
        key, place = _varint(message, place)
        number, wire = key >> 3, key & 7
        begin = place
        if wire == VARINT:
            _, place = _varint(message, place)
        elif wire == BYTES:
            length, begin = _varint(message, place)
            place = begin + length
        elif wire in FIXED:
            place += FIXED[wire]
        else:
            raise ValueError("it is no ONNX file")
        if place > len(message) or number == 0:
            raise ValueError("it is no ONNX file, or cut off")
        yield _Field(number, wire, message[begin:place], message[start:place])


def _first(message: memoryview, number: int) -> memoryview:
    """The payload of a message's field, empty where it has none."""
    return next((f.value for f in _fields(message) if f.number == number and f.wire == BYTES), memoryview(b""))


def _text(message: memoryview, number: int) -> str:
    return bytes(_first(message, number)).decode("utf-8", "replace")


def _varint(message: memoryview, place: int) -> Tuple[int, int]:
    """A number in base 128, lowest digit first, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):  # 64 bits take ten bytes at most
        if place >= len(message):
            break
        digit = message[place]
        place += 1
        number |= (digit & 0x7F) << shift
        if digit < 0x80:
            return number, place
    raise ValueError("it is no ONNX file, or cut off")


def _key(number: int, wire: int) -> bytes:
    return _encoded(number << 3 | wire)


def _encoded(number: int) -> bytes:
    digits = bytearray()
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(digits) + bytes([number])


def _bytes_field(number: int, payload: bytes) -> bytes:
    return _key(number, BYTES) + _encoded(len(payload)) + payload
