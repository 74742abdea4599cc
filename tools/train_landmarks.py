"""Trains the network that refines landmarks, ampnet_opt/shipped/landmarks.onnx, on two cores.

usage: python tools/train_landmarks.py FACES.csv [-o OUT.onnx] [--seeds 1000] [--steps 7000]

FACES.csv: faces with landmarks, of which the split `train` is used. Beside them it draws frames of videos whose truth is
exact, which takes some minutes. If it is stopped, the same command goes on with the training from OUT.pt.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

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
CELLS = SIDE // 4  # of the network's maps, a side
FIRST_SEED, SEEDS = 100_000, 1000  # of the drawn videos
BATCH, STEPS, RATE = 128, 7000, 4e-3  # RATE is the highest
KEPT = 250  # steps from which training can go on

Faces = tuple[Tensor, Tensor]  # crops uint8 [N, 4, 112, 112] and landmarks float32 [N, 5, 2]


def stored(image: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A crop to cut others from, uint8 [4, 112, 112], its last channel 255 within the picture; its landmarks [5, 2]."""
    transform = placed(landmarks, STORED, APART / WIDER)
    within = np.full((*image.shape[:2], 1), 255, np.uint8)
    square = np.linalg.inv(np.vstack([transform, [0, 0, 1]]))
    points = landmarks @ square[:2, :2].T + square[:2, 2]
    return cut(np.concatenate([image, within], 2), transform, STORED).transpose(2, 0, 1), points.astype(np.float32)


def real_faces(faces: Sequence[Face]) -> tuple[np.ndarray, np.ndarray]:
    crops = [stored(read_image(face.file), face.landmarks) for face in faces]
    return np.stack([crop for crop, _ in crops]), np.stack([points for _, points in crops])


def drawn_faces(seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Faces of videos, five frames of each, that are at least half visible."""
    crops = []
    for seed in seeds:
        for frame in draw_video(seed, 40, people=1 + seed % 4, rate=0.125):
            crops += [stored(frame.image, face.landmarks) for face in frame.faces if face.visible >= 0.5]
    return np.stack([crop for crop, _ in crops]), np.stack([points for _, points in crops])


class LandmarkNet(nn.Module):
    """An image float32 [N, 3, 64, 64] RGB, 0 to 255, to where the five points lie off `SHAPE`, [N, 10], in eye distances.

    Each point has a map of 16 x 16 cells, whose softmax says how likely the point lies there; the point is the mean place
    (integral regression: Sun et al. 2018). Maps of 8 x 8 and 4 x 4 cells, which see more of the face, are added on the way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(_convolution(3, 16, 2), _convolution(16, 32, 2), _Residual(32))
        self.middle = nn.Sequential(_convolution(32, 48, 2), _Residual(48))
        self.coarse = nn.Sequential(_convolution(48, 64, 2), _Residual(64))
        self.to_middle, self.to_fine = nn.Conv2d(64, 48, 1), nn.Conv2d(48, 32, 1)
        self.joined = _convolution(32, 32)
        self.maps = nn.Conv2d(32, 5, 1)
        centres = ((torch.arange(CELLS) + 0.5) / CELLS - 0.5) / APART
        self.places: Tensor
        self.shape: Tensor
        self.register_buffer("places", torch.stack(torch.meshgrid(centres, centres, indexing="xy"), 2).flatten(0, 1))
        self.register_buffer("shape", torch.tensor(SHAPE, dtype=torch.float32))

    def features(self, image: Tensor) -> Tensor:
        """What the maps are made of, [N, 32, 16, 16]."""
        fine = self.fine(image * (1 / 128) - 1)
        middle = self.middle(fine)
        middle = middle + functional.interpolate(self.to_middle(self.coarse(middle)), scale_factor=2.0)
        joined: Tensor = self.joined(fine + functional.interpolate(self.to_fine(middle), scale_factor=2.0))
        return joined

    def points(self, features: Tensor) -> Tensor:
        likely = self.maps(features).flatten(2).softmax(2)
        return (torch.matmul(likely, self.places) - self.shape).flatten(1)

    def forward(self, image: Tensor) -> Tensor:
        return self.points(self.features(image))


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

    crops: uint8 [N, 4, 112, 112]; points: float32 [N, 5, 2]. Shifted, scaled and turned as the landmarks of the first stage
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
    seen = functional.grid_sample(crops.float(), grid, align_corners=False)
    image, within = seen[:, :3], seen[:, 3:] / 255
    at = points * (2 / STORED) - 1 - offset[:, None]
    at = torch.linalg.solve(matrix[:, None], at[..., None])[..., 0] / 2
    at = torch.where(mirror[:, None, None] < 0, at[:, MIRRORED], at)
    answers = at / APART - torch.tensor(SHAPE, dtype=torch.float32)

    outside = (within.amin((1, 2, 3)) < 1).nonzero()[:, 0]
    image[outside] = _bordered(image, within, outside, random)
    _cover(image, random)
    _coarsen(image, random)
    grey = torch.rand(count, generator=random) < 0.3
    image[grey] = image[grey].mean(1, keepdim=True)
    gain, tint, lift = (normal(1, 1, 1) * 0.2).exp(), (normal(3, 1, 1) * 0.06).exp(), normal(1, 1, 1) * 20
    middle = image.mean((1, 2, 3), keepdim=True)
    image.mul_(gain * tint).add_(middle * (1 - gain) * tint + lift)
    image.addcmul_(torch.randn(image.shape, generator=random), uniform(0, 8, 1, 1, 1))
    return image.clamp_(0, 255), answers.flatten(1)


def _bordered(image: Tensor, within: Tensor, rows: Tensor, random: torch.Generator) -> Tensor:
    """The images of these rows; outside the picture black as at a frame's border, one colour, or what lies round a face."""
    kind = torch.rand(len(rows), 1, 1, 1, generator=random)
    colour = torch.rand(len(rows), 3, 1, 1, generator=random) * 255
    other = image[(rows + 1) % len(image)].flip(2)
    rest = torch.where(kind < 0.4, torch.zeros(()), torch.where(kind < 0.7, colour, other))
    return image[rows] * within[rows] + rest * (1 - within[rows])


def _cover(image: Tensor, random: torch.Generator) -> None:
    """Cover a part of one in six of the images by a rectangle of one colour, as a hand or another head does."""
    for row in (torch.rand(len(image), generator=random) < 1 / 6).nonzero()[:, 0]:
        low = torch.rand(2, generator=random) * 1.1 - 0.2
        high = low + torch.rand(2, generator=random) * 0.35 + 0.15
        (left, top), (right, bottom) = ((at * SIDE).int().clamp(0, SIDE).tolist() for at in (low, high))
        image[row, :, top:bottom, left:right] = torch.rand(3, 1, 1, generator=random) * 255


def _coarsen(image: Tensor, random: torch.Generator) -> None:
    """Scale three in eight of the images down, and up again, as faces of fewer pixels look."""
    for part in image.chunk(8)[:3]:
        side = int(torch.randint(SIDE // 2 - 6, SIDE, (), generator=random))
        small = functional.interpolate(part, size=(side, side), mode="area")
        part.copy_(functional.interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False))


def batch(sources: Sequence[Faces], step: int) -> tuple[Tensor, Tensor]:
    """Images and answers of a step, the same whenever they are asked for: as many of each source, in any order."""
    random = torch.Generator().manual_seed(step)
    order = torch.randperm(BATCH, generator=random)
    chosen = [torch.randint(len(crops), (BATCH // len(sources),), generator=random) for crops, _ in sources]
    crops = torch.cat([crops[rows] for (crops, _), rows in zip(sources, chosen, strict=True)])
    points = torch.cat([points[rows] for (_, points), rows in zip(sources, chosen, strict=True)])
    images, answers = augmented(crops[order], points[order], random)
    return images.contiguous(memory_format=torch.channels_last), answers


def train(sources: Sequence[Faces], steps: int, state: Path, about: dict[str, str]) -> LandmarkNet:
    """The network after these steps, in eval mode.

    The loss is the mean distance from the truth in eye distances. The rate rises for a twentieth of the steps, then falls to
    nothing along a cosine. Convolutions compute in BF16, about twice as fast on a processor that has it. One thread makes
    the next batch while the other trains: shared by both, small operations would leave each waiting for the other.

    state: the file that training is kept in every `KEPT` steps; if it is there, training goes on from it.
    """
    torch.manual_seed(0)
    network = LandmarkNet().train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.05)
    parts = {"network": network, "optimiser": optimiser, "schedule": schedule}
    first = _taken_up(state, parts, about) if state.exists() else 1
    total = 0.0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(batch, sources, first)
        for step in range(first, steps + 1):
            images, answers = waiting.result()
            waiting = pool.submit(batch, sources, step + 1)
            with torch.autocast("cpu", torch.bfloat16):
                features = network.features(images)
            off = (network.points(features.float()) - answers).unflatten(1, (5, 2))
            loss = off.square().sum(2).add(1e-6).sqrt().mean()  # smooth at no distance
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
            if step % KEPT == 0:
                print(f"step {step} of {steps}: {total / KEPT:.2%} of an eye distance off", flush=True)
                total = 0.0
                kept = {name: part.state_dict() for name, part in parts.items()}
                with new_file(state) as unfinished:
                    torch.save({"step": step, "about": about, **kept}, unfinished)
    return network.eval()


def _taken_up(state: Path, parts: dict[str, Any], about: dict[str, str]) -> int:
    """The step to go on with. parts: get what the file keeps of them."""
    kept = torch.load(state, weights_only=True)
    if kept["about"] != about:
        raise SystemExit(f"{state} is of other faces or steps; delete it to start anew")
    for name, part in parts.items():
        part.load_state_dict(kept[name])
    print(f"{state}: {kept['step']} steps are done", flush=True)
    return int(kept["step"]) + 1


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
    (got,) = onnx_session(graph.SerializeToString()).run([OUTPUT], {INPUT: trial.numpy()})
    with torch.inference_mode():
        worst = float(np.abs(got - network(trial).numpy()).max())
    if not worst <= 1e-4:
        raise SystemExit(f"the exported graph differs from PyTorch by {worst:.2g} of the distance between the eyes")
    return graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=LANDMARKS)
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"number of drawn videos, from seed {FIRST_SEED} on")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of training, each with {BATCH} faces")
    given = parser.parse_args()
    torch.set_num_threads(1)
    real = real_faces(read_faces(given.faces, "train"))
    last = FIRST_SEED + given.seeds
    seeds = [range(start, min(start + 20, last)) for start in range(FIRST_SEED, last, 20)]
    parts = []
    with ProcessPoolExecutor(min(2, len(seeds)), get_context("spawn")) as pool:
        for some, part in zip(seeds, pool.map(drawn_faces, seeds), strict=True):
            print(f"videos drawn: {some.stop - FIRST_SEED} of {given.seeds}", flush=True)
            parts.append(part)
    drawn = np.concatenate([crops for crops, _ in parts]), np.concatenate([points for _, points in parts])
    about = {
        "trained_on": f"{len(real[0])} real faces, split train; {len(drawn[0])} faces of drawn videos",
        "drawn_seeds": f"{FIRST_SEED} to {last - 1}",
        "faces_sha256": sha256(given.faces),
        "steps": str(given.steps),
    }
    state = given.output.with_suffix(".pt")
    sources = [(torch.from_numpy(crops), torch.from_numpy(points)) for crops, points in (real, drawn)]
    network = train(sources, given.steps, state, about)
    with new_file(given.output) as unfinished:
        unfinished.write_bytes(exported(network, about).SerializeToString())
    state.unlink(missing_ok=True)
    print(f"{given.output}: {given.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
