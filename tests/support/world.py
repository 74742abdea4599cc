"""What the tests of the commands share and none may change: checkpoints, faces and engines, made by the commands."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from console_script import succeeds, write_csv
from PIL import Image

from ampnet_opt import synthetic
from ampnet_opt.core.labels import PRESETS

CLASSES = PRESETS["rafdb"]
POINTS = [80, 90, 144, 90, 112, 120, 88, 155, 136, 155]


@dataclass(frozen=True)
class World:
    """What all tests share and none may change: a checkpoint, six faces, and an fp32 and an int8 engine."""

    folder: Path
    checkpoint: Path
    images: Path
    data: Path
    fp32: Path
    int8: Path
    built: subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class AnalysedWorld:
    """A seeded checkpoint, labelled faces of three splits, and the sensitivity of its blocks."""

    checkpoint: Path
    faces: Path
    sensitivity: Path


def make_world(folder: Path) -> World:
    checkpoint, images, engines = folder / "narrow.safetensors", folder / "images", folder / "engines"
    succeeds("init", checkpoint, "--width", 0.125)
    images.mkdir()
    rng = np.random.default_rng(0)
    rows: list[list[object]] = []
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (224, 224, 3), np.uint8)).save(images / f"{i}.png")
        rows.append([f"{i}.png", CLASSES[i % 2], "train" if i < 4 else "test", *(point + i for point in POINTS)])
    data = write_csv(folder / "faces.csv", rows)
    options = ("--int8", "--fp32", "--backend", "cpu", "--data", data, "--calibration", "minmax")
    built = succeeds("build", checkpoint, "-o", engines, *options)
    return World(folder, checkpoint, images, data, engines / "cpu-fp32", engines / "cpu-int8", built)


def analyse_world(folder: Path) -> AnalysedWorld:
    made = AnalysedWorld(folder / "net.safetensors", folder / "faces" / "faces.csv", folder / "sensitivity.json")
    succeeds("init", made.checkpoint, "--width", 0.125)
    synthetic.write(folder / "faces", {"train": 1, "val": 1, "test": 1}, PRESETS["rafdb"], seed=9)
    options = ("--data", made.faces, "--units", "block", "--picture", folder / "picture.png")
    told = succeeds("sensitivity", made.checkpoint, *options, "-o", made.sensitivity).stdout
    assert "(all in INT8)" in told and "40 blocks" not in told and "39 blocks" in told
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert {"net.safetensors", "faces", "sensitivity.json", "picture.png"} == {path.name for path in folder.iterdir()}
    return made
