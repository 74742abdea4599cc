"""From a PyTorch network to one ONNX graph: image and landmarks in, logits out."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxsim
import torch
from torch import Tensor, nn

from ampnet_opt.convert.graph import constants_to_initializers
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.graph_interface import IMAGE_SIDE, INPUTS, OUTPUT, ImageInput
from ampnet_opt.core.onnx_bytes import serialised
from ampnet_opt.core.onnx_session import onnx_session
from ampnet_opt.core.processor import release_memory
from ampnet_opt.network.checkpoint import Checkpoint

__all__ = ["OPSET", "ImageInput", "check_against", "export", "module_path", "random_faces"]

# The newest opset that TensorRT 8.5's parser reads (8.6 reads it too); per-channel Q/DQ needs at least 13.
OPSET = 17
TOLERANCE = 1e-3  # largest difference of a logit between PyTorch and ONNX Runtime, both float32


class _CameraInput(nn.Module):
    """Takes what a camera gives, uint8 [N, 224, 224, 3] RGB, and normalises it inside the graph."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, landmarks: Tensor) -> Tensor:
        # TensorRT-RTX moves floats, not bytes: the cast comes first.
        logits: Tensor = self.model(image.float().permute(0, 3, 1, 2) * (1 / 255), landmarks)
        return logits


def export(checkpoint: Checkpoint, image_input: ImageInput = "uint8") -> onnx.ModelProto:
    """The network as a simplified, checked graph of opset 17 with a dynamic batch.

    Batch norms are folded.

    Args:
        checkpoint: the network, in eval mode.
        image_input: dtype of the input `image`.

    Returns:
        A graph with the inputs `image`, uint8 [N, 224, 224, 3] or float32 [N, 3, 224, 224] in [0, 1], and `landmarks`,
        float32 [N, 5, 2] in pixels, and the output `logits`, float32 [N, classes]. Metadata: classes, patch radius, image
        input, the checkpoint's hash, whether it was trained.

    Raises:
        AmpnetError: the graph and the network disagree.
    """
    model = checkpoint.model if image_input == "float32" else _CameraInput(checkpoint.model)
    image, landmarks = random_faces(2, image_input)
    program = _trace(model.eval(), torch.from_numpy(image), torch.from_numpy(landmarks))
    graph: onnx.ModelProto
    graph, simplified = onnxsim.simplify(program)
    if not simplified:
        raise AmpnetError("onnxsim changed the graph's results; the checkpoint's weights are probably not finite")
    for key, value in {
        "classes": json.dumps(checkpoint.classes),
        "patch_radius": str(checkpoint.model.config.patch_radius),
        "image_input": image_input,
        "checkpoint_sha256": checkpoint.sha256,
        "trained": json.dumps(checkpoint.trained),
    }.items():
        graph.metadata_props.add(key=key, value=value)
    constants_to_initializers(graph.graph)
    onnx.checker.check_model(serialised(graph), full_check=True)
    check_against(model, graph, *random_faces(4, image_input, seed=1))
    release_memory()  # several times the weights, of the exporter and the session
    return graph


def module_path(node: str) -> str:
    """The module that an exported node belongs to: "/model/trunk/trunk.0/trunk.0.1/Relu" -> "trunk.0.1".

    The exporter names a child of a container by the container's name as well; `model` is what normalises uint8 images.
    """
    parts: list[str] = []
    for part in node.removeprefix("/model").split("/")[1:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    return ".".join(parts)


def check_against(model: nn.Module, graph: onnx.ModelProto, images: np.ndarray, landmarks: np.ndarray) -> float:
    """Compare a network in PyTorch with its graph in ONNX Runtime.

    The images also run with the landmarks in reverse order, so that a graph with the boxes of its traced image baked in
    cannot pass.

    Args:
        model: takes what the graph takes.
        graph: exported from it.
        images: as the graph takes them.
        landmarks: float32 [N, 5, 2], pixels.

    Returns:
        The largest difference of a logit.

    Raises:
        AmpnetError: it is over `TOLERANCE`.
    """
    session = onnx_session(serialised(graph))
    worst = 0.0
    for points in (landmarks, landmarks[::-1].copy()):
        (got,) = session.run([OUTPUT], dict(zip(INPUTS, (images, points), strict=True)))
        with torch.inference_mode():
            expected = model(torch.from_numpy(images), torch.from_numpy(points)).numpy()
        worst = max(worst, float(np.abs(got - expected).max()))
    if not worst <= TOLERANCE:
        raise AmpnetError(f"the exported graph differs from PyTorch by {worst:.2g} in a logit (allowed: {TOLERANCE:g})")
    return worst


def _trace(model: nn.Module, image: Tensor, landmarks: Tensor) -> onnx.ModelProto:
    with warnings.catch_warnings(), TemporaryDirectory() as folder:
        # The tracing exporter writes opset 17 itself, in 4 s; the newer one writes 18 in 25 s, to be converted down.
        warnings.simplefilter("ignore")
        path = Path(folder) / "traced.onnx"
        torch.onnx.export(
            model,
            (image, landmarks),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_axes={name: {0: "N"} for name in (*INPUTS, OUTPUT)},
        )
        return onnx.load_model(path)


def random_faces(count: int, image_input: ImageInput, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of the graph where no faces are at hand.

    Returns:
        Noise as images, `count` of the dtype `image_input`; points anywhere in them, float32 [count, 5, 2].
    """
    rng = np.random.default_rng(seed)
    landmarks = rng.uniform(0, IMAGE_SIDE, (count, 5, 2)).astype(np.float32)
    if image_input == "uint8":
        return rng.integers(0, 256, (count, IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8), landmarks
    return rng.random((count, 3, IMAGE_SIDE, IMAGE_SIDE), np.float32), landmarks
