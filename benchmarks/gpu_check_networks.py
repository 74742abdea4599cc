"""The two networks of the GPU check, with faces to calibrate on and faces whose logits are known.

`full`: full size, the weights of the recorded cases of tests/, whose logits are recorded there.
`shipped`: the checkpoint that comes with the package, on drawn faces; the reference is PyTorch on the CPU.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import ampnet_opt
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.labels import label_indices
from ampnet_opt.faces.face import Face, load_batches, spread
from ampnet_opt.network.checkpoint import Checkpoint, read_checkpoint
from ampnet_opt.shipped import CHECKPOINT
from ampnet_opt.synthetic.dataset import default_faces

NETWORKS = ("shipped", "full")
CALIBRATION_FACES = 32
TEST_FACES = 70
RECORDED = Path(ampnet_opt.__file__).resolve().parents[1] / "tests" / "support"


@dataclass(frozen=True)
class Network:
    """images uint8 [N, 224, 224, 3], landmarks float32 [N, 5, 2]; logits float32 [N, classes]: what is right.

    labels: int64 [N], None where the weights know nothing. int8_error: relative error of the logits that INT8 may cost,
    twice that of the CPU's INT8 engine; seeded weights, which were never trained, lose more than trained ones.
    """

    checkpoint: Checkpoint
    calibration: list[Face]
    images: np.ndarray
    landmarks: np.ndarray
    logits: np.ndarray
    labels: np.ndarray | None
    int8_error: float


def network(name: str, folder: Path) -> Network:
    """One of `NETWORKS`; its files go to `folder`. Raises AmpnetError when the recorded cases are not there."""
    return _full(folder) if name == "full" else _shipped()


def _shipped() -> Network:
    checkpoint = read_checkpoint(CHECKPOINT)
    faces = spread(default_faces("test"), TEST_FACES)
    images, landmarks = next(load_batches(faces, TEST_FACES))
    with torch.inference_mode():
        pictures = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        logits = checkpoint.model(pictures, torch.from_numpy(landmarks)).numpy()
    labels = np.array(label_indices(checkpoint.classes, [face.label for face in faces]))
    calibration = spread(default_faces("train"), CALIBRATION_FACES)
    return Network(checkpoint, calibration, images, landmarks, logits, labels, 0.05)


def _full(folder: Path) -> Network:
    if not RECORDED.is_dir():
        raise AmpnetError(f"the recorded cases are in {RECORDED}, which is missing: run the check from a clone")
    sys.path.append(str(RECORDED))
    from recorded import DATA, image, published_weights

    path = folder / "full.pth"
    torch.save({"state_dict": {key: torch.from_numpy(np.asarray(v)) for key, v in published_weights().items()}}, path)
    with np.load(DATA / "golden_cases.npz") as cases:
        seeds, landmarks, logits = (cases[name] for name in ("image_seed", "landmarks", "fused_logits"))
    images = np.stack([image(int(seed)) for seed in seeds])
    calibration = []
    for number in range(CALIBRATION_FACES):  # the others are the test
        Image.fromarray(images[number]).save(folder / f"{number}.png")
        calibration.append(Face(folder / f"{number}.png", landmarks[number]))
    rest = slice(CALIBRATION_FACES, None)
    return Network(read_checkpoint(path), calibration, images[rest], landmarks[rest], logits[rest], None, 0.43)
