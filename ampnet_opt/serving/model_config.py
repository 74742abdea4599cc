"""`config.pbtxt` of Triton: what a model takes and gives, as protobuf's text format has it. Standard library only.

The fields are those of `ModelConfig` in Triton's model_config.proto.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple

from ampnet_opt.core.graph_interface import IMAGE_SHAPES, INPUTS, LANDMARKS_SHAPE, OUTPUT
from ampnet_opt.runtime.sidecar import Sidecar

CONFIG = "config.pbtxt"  # of a model, in its folder
LABELS = "labels.txt"  # beside config.pbtxt: a class a line, in the order of the logits
TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
# What a model that takes encoded pictures takes and gives.
PICTURE = "picture"
FACES = ("boxes", "scores", "landmarks", "labels", "probabilities")


@dataclass(frozen=True)
class Served:
    """How Triton runs the engines of one of our backends.

    Attributes:
        head: the lines that name Triton's backend.
        device: KIND_CPU or KIND_GPU.
        files: of the engine -> of the model's version folder.
        parameters: of Triton's backend, by the engine's precision; a precision that is missing cannot be served.
    """

    head: str
    device: str
    files: Dict[str, str]
    parameters: Dict[str, Dict[str, str]]


SERVED = {
    "tensorrt": Served(
        'platform: "tensorrt_plan"', "KIND_GPU", {"engine.plan": "model.plan"}, {"fp32": {}, "fp16": {}, "int8": {}}
    ),
    # Triton's OpenVINO backend knows HINT_BF16, and no parameter that asks for FP16 or keeps FP32.
    "cpu": Served(
        'backend: "openvino"',
        "KIND_CPU",
        {"engine.xml": "model.xml", "engine.bin": "model.bin"},
        {"fp32": {}, "int8": {}, "bf16": {"HINT_BF16": "YES"}},
    ),
    "onnxruntime": Served('platform: "onnxruntime_onnx"', "KIND_CPU", {"engine.onnx": "model.onnx"}, {"fp32": {}}),
}


def network_config(name: str, sidecar: Sidecar) -> str:
    """The configuration of a model that takes faces and landmarks and gives logits; its batch is the engine's profile."""
    served, batch = SERVED[sidecar.backend], sidecar.batch
    lines = [
        f"name: {quoted(name)}",
        served.head,
        f"max_batch_size: {batch.max}",
        *_tensor("input", INPUTS[0], TYPES[sidecar.image_input], IMAGE_SHAPES[sidecar.image_input]),
        *_tensor("input", INPUTS[1], "TYPE_FP32", LANDMARKS_SHAPE),
        *_tensor("output", OUTPUT, "TYPE_FP32", (len(sidecar.classes),), LABELS),
        *_instances(served.device),
    ]
    if batch.max > 1:
        preferred = f" preferred_batch_size: [ {batch.opt} ] " if batch.opt > 1 else ""
        lines.append(f"dynamic_batching {{{preferred}}}")
    return _text([*lines, *_parameters(served.parameters[sidecar.precision])])


def faces_config(name: str, sidecar: Sidecar) -> str:
    """The configuration of a model of the Python backend that takes one encoded picture and gives its faces."""
    classes = len(sidecar.classes)
    outputs: Dict[str, Tuple[str, Tuple[int, ...]]] = {
        "boxes": ("TYPE_FP32", (-1, 4)),
        "scores": ("TYPE_FP32", (-1,)),
        "landmarks": ("TYPE_FP32", (-1, *LANDMARKS_SHAPE)),
        "labels": ("TYPE_STRING", (-1,)),
        "probabilities": ("TYPE_FP32", (-1, classes)),
    }
    lines = [
        f"name: {quoted(name)}",
        'backend: "python"',
        "max_batch_size: 0",
        *_tensor("input", PICTURE, "TYPE_STRING", (1,)),
        *(line for output in FACES for line in _tensor("output", output, *outputs[output])),
        *_instances("KIND_CPU"),
    ]
    return _text([*lines, *_parameters({"classes": ",".join(sidecar.classes)})])


def labels_text(classes: Sequence[str]) -> str:
    """The file that gives each logit its name."""
    return _text([" ".join(name.split()) for name in classes])


def quoted(text: str) -> str:
    """A string of protobuf's text format: every byte beyond printable ASCII as its octal escape."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in text.encode("utf-8"))
    return f'"{"".join(plain)}"'


def _tensor(kind: str, name: str, data_type: str, shape: Sequence[int], labels: str = "") -> List[str]:
    """An input or output; shape: without the batch."""
    dims = ", ".join(map(str, shape))
    named = f" label_filename: {quoted(labels)}" if labels else ""
    return [f"{kind} [ {{ name: {quoted(name)} data_type: {data_type} dims: [ {dims} ]{named} }} ]"]


def _instances(device: str) -> List[str]:
    return [f"instance_group [ {{ count: 1 kind: {device} }} ]"]


def _parameters(values: Dict[str, str]) -> List[str]:
    return [
        f"parameters {{ key: {quoted(key)} value {{ string_value: {quoted(value)} }} }}" for key, value in values.items()
    ]


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
