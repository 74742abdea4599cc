"""Trains the network that refines landmarks, ampnet_opt/shipped/landmarks.onnx, on two cores.

usage: python tools/train_landmarks.py FACES.csv [-o OUT.onnx]

FACES.csv: faces with landmarks, of which the split `train` is used. Beside them it draws frames of videos whose truth is
exact (seeds from 100,000 on), which takes some minutes.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxsim
import torch
from torch import Tensor, nn
from torch.nn import functional

from ampnet_opt.convert.export import OPSET
from ampnet_opt.core.files import new_file, sha256
from ampnet_opt.core.onnx_session import onnx_session
from ampnet_opt.core.pictures import read_image
from ampnet_opt.detection.refinement import APART, INPUT, OUTPUT, SHAPE, SIDE, cut, placed
from ampnet_opt.faces.face import Face, read_faces
from ampnet_opt.shipped import LANDMARKS
from ampnet_opt.synthetic.video import draw_video

STORED, WIDER = 112, 1.5  # pixels of a stored crop, which shows this much more than what the network sees
MIRRORED = [1, 0, 2, 4, 3]  # which point a mirrored one becomes
SEEDS = (range(100_000, 100_100), range(101_000, 101_100))  # of the drawn videos, for two processes
BATCH = 128
CYCLES = ((1200, 4e-3), (1100, 3e-3))  # steps and the highest rate


def stored(image: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A crop to cut others from, uint8 [112, 112, 4], its last channel 255 within the picture; its landmarks [5, 2]."""
    transform = placed(landmarks, STORED, APART / WIDER)
    within = np.full((*image.shape[:2], 1), 255, np.uint8)
    square = np.linalg.inv(np.vstack([transform, [0, 0, 1]]))
    points = landmarks @ square[:2, :2].T + square[:2, 2]
    return cut(np.concatenate([image, within], 2), transform, STORED), points.astype(np.float32)


def real_faces(faces: list[Face]) -> tuple[np.ndarray, np.ndarray]:
    crops = [stored(read_image(face.file), face.landmarks) for face in faces]
    return np.stack([crop for crop, _ in crops]), np.stack([points for _, points in crops])


def drawn_faces(seeds: range) -> tuple[np.ndarray, np.ndarray]:
    """Faces of videos, five frames of each, that are at least half visible."""
    crops = []
    for seed in seeds:
        for frame in draw_video(seed, 40, people=1 + seed % 4, rate=0.125):
            crops += [stored(frame.image, face.landmarks) for face in frame.faces if face.visible >= 0.5]
    return np.stack([crop for crop, _ in crops]), np.stack([points for _, points in crops])


class LandmarkNet(nn.Module):
    """An image float32 [N, 3, 64, 64] RGB, 0 to 255, to where the five points lie off `SHAPE`, [N, 10], in eye distances."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _convolution(3, 16, 2),
            _convolution(16, 32, 2),
            _convolution(32, 48, 2),
            _Residual(48),
            _convolution(48, 64, 2),
            nn.Flatten(),
            nn.Linear(64 * (SIDE // 16) ** 2, 48),
            nn.ReLU(),
            nn.Linear(48, 10),
        )

    def forward(self, image: Tensor) -> Tensor:
        points: Tensor = self.layers(image * (1 / 128) - 1)
        return points


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = _convolution(channels, channels)[:2]

    def forward(self, values: Tensor) -> Tensor:
        return functional.relu(values + self.second(self.first(values)))


def augmented(crops: Tensor, points: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """What the network may see of stored crops, float32 [N, 3, 64, 64], and its answers [N, 10].

    crops: uint8 [N, 112, 112, 4]; points: float32 [N, 5, 2]. Shifted, scaled and turned as the landmarks of the first stage
    are off, mirrored, coarser, blurred, in other light, grey, with noise, partly covered, at the border of a picture.
    """
    count = len(crops)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=random) * (high - low) + low

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=random)

    turn = normal() * 0.07
    zoom = (normal() * 0.08).exp() / WIDER
    shift = normal(2) * 0.07 * APART / WIDER * STORED
    mirror = torch.where(torch.rand(count, generator=random) < 0.5, -1.0, 1.0)
    # From the network's square, -1 to 1, to the stored one: turned, scaled, shifted; the mirror acts in the network's.
    cosine, sine = zoom * turn.cos(), zoom * turn.sin()
    matrix = torch.stack([cosine * mirror, -sine, sine * mirror, cosine], 1).reshape(-1, 2, 2)
    offset = shift * (2 / STORED)
    grid = functional.affine_grid(torch.cat([matrix, offset[:, :, None]], 2), [count, 4, SIDE, SIDE], align_corners=False)
    seen = functional.grid_sample(crops.permute(0, 3, 1, 2).float(), grid, align_corners=False)
    image, within = seen[:, :3], seen[:, 3:] / 255
    at = points * (2 / STORED) - 1 - offset[:, None]
    at = torch.linalg.solve(matrix[:, None], at[..., None])[..., 0] / 2
    at = torch.where(mirror[:, None, None] < 0, at[:, MIRRORED], at)
    answers = at / APART - torch.tensor(SHAPE, dtype=torch.float32)

    # Outside the picture: black as at a frame's border, one colour, or what lies round another face.
    kind = torch.rand(count, 1, 1, 1, generator=random)
    colour = uniform(0, 255, 3, 1, 1)
    other = image.roll(1, 0).flip(2)
    rest = torch.where(kind < 0.4, torch.zeros(()), torch.where(kind < 0.7, colour, other))
    image = image * within + rest * (1 - within)
    image = _covered(image, uniform, torch.rand(count, generator=random))
    image = _coarser(image, random)
    grey = image.mean(1, keepdim=True)
    image = torch.where(torch.rand(count, 1, 1, 1, generator=random) < 0.3, grey, image)
    gain, tint, lift = (normal(1, 1, 1) * 0.2).exp(), (normal(3, 1, 1) * 0.06).exp(), normal(1, 1, 1) * 20
    middle = image.mean((1, 2, 3), keepdim=True)
    image = ((image - middle) * gain + middle) * tint + lift
    image = image + torch.randn(image.shape, generator=random) * uniform(0, 8, 1, 1, 1)
    return image.clamp(0, 255), answers.flatten(1)


def _covered(image: Tensor, uniform: Callable[..., Tensor], chance: Tensor) -> Tensor:
    """One in six of the images with a rectangle of one colour over a part, as a hand, a microphone or another head."""
    low, size = uniform(-0.2, 0.9, 2), uniform(0.15, 0.5, 2)
    place = (torch.arange(SIDE) + 0.5) / SIDE
    inside = [(place >= low[:, i : i + 1]) & (place < (low + size)[:, i : i + 1]) for i in range(2)]
    mask = (inside[0][:, :, None] & inside[1][:, None, :])[:, None] & (chance < 1 / 6)[:, None, None, None]
    return torch.where(mask, uniform(0, 255, 3, 1, 1), image)


def _coarser(image: Tensor, random: torch.Generator) -> Tensor:
    """Some of the images as from faces of fewer pixels: scaled down, and up again."""
    parts = list(image.chunk(8))
    for number in range(3):
        side = int(torch.randint(SIDE // 2 - 6, SIDE, (), generator=random))
        small = functional.interpolate(parts[number], size=(side, side), mode="area")
        parts[number] = functional.interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return torch.cat(parts)


def train(real: tuple[np.ndarray, np.ndarray], drawn: tuple[np.ndarray, np.ndarray]) -> LandmarkNet:
    """The network after both of `CYCLES`, in eval mode; half of each batch is real, half drawn."""
    torch.manual_seed(0)
    sources = [(torch.from_numpy(crops), torch.from_numpy(points)) for crops, points in (real, drawn)]
    network = LandmarkNet().train()
    for steps, rate in CYCLES:
        _cycle(network, sources, steps, rate)
    return network.eval()


def _cycle(network: LandmarkNet, sources: list[tuple[Tensor, Tensor]], steps: int, rate: float) -> None:
    """One rise and fall of the rate; every cycle begins with the same batches.

    The loss is the mean distance along each axis in eye distances; the rate rises for a twentieth of the steps, then falls
    to nothing along a cosine.
    """
    random = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.05)
    total = 0.0
    for step in range(1, steps + 1):
        chosen = [torch.randint(len(crops), (BATCH // 2,), generator=random) for crops, _ in sources]
        crops = torch.cat([crops[rows] for (crops, _), rows in zip(sources, chosen, strict=True)])
        points = torch.cat([points[rows] for (_, points), rows in zip(sources, chosen, strict=True)])
        order = torch.randperm(BATCH, generator=random)
        images, answers = augmented(crops[order], points[order], random)
        loss = (network(images) - answers).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        total += float(loss.detach())
        if step % 50 == 0:
            print(f"step {step} of {steps}: off by {total / 50:.2%} of an eye distance along an axis", flush=True)
            total = 0.0


def exported(network: LandmarkNet, about: dict[str, str]) -> onnx.ModelProto:
    """Its graph of opset 17 for one image, batch norms folded, checked against PyTorch. about: goes into the metadata."""
    trial = torch.rand((1, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1)) * 255
    with warnings.catch_warnings(), TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # as in convert/export.py, the tracing exporter: it writes opset 17 itself
        path = Path(folder) / "traced.onnx"
        names = {"input_names": [INPUT], "output_names": [OUTPUT]}
        torch.onnx.export(network, (trial,), path, dynamo=False, opset_version=OPSET, **names)
        graph, simplified = onnxsim.simplify(onnx.load_model(path))
    if not simplified:
        raise SystemExit("onnxsim changed the graph's results")
    for key, value in about.items():
        graph.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(graph, full_check=True)
    (got,) = onnx_session(graph).run([OUTPUT], {INPUT: trial.numpy()})
    with torch.inference_mode():
        worst = float(np.abs(got - network(trial).numpy()).max())
    if not worst <= 1e-4:
        raise SystemExit(f"the exported graph differs from PyTorch by {worst:.2g} of the distance between the eyes")
    return graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=LANDMARKS)
    given = parser.parse_args()
    torch.set_num_threads(2)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        parts = list(pool.map(drawn_faces, SEEDS))
    drawn = np.concatenate([crops for crops, _ in parts]), np.concatenate([points for _, points in parts])
    real = real_faces(read_faces(given.faces, "train"))
    network = train(real, drawn)
    about = {
        "trained_on": f"{len(real[0])} real faces, split train; {len(drawn[0])} faces of drawn videos",
        "drawn_seeds": ", ".join(f"{seeds.start} to {seeds.stop - 1}" for seeds in SEEDS),
        "faces_sha256": sha256(given.faces),
        "steps": " and ".join(str(steps) for steps, _ in CYCLES),
    }
    with new_file(given.output) as unfinished:
        unfinished.write_bytes(exported(network, about).SerializeToString())
    print(f"{given.output}: {given.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
