"""Draws faces that are good for trying commands and for nothing else: an oval, eyes, nose and mouth, seeded."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ampnet_opt.faces import COLUMNS
from ampnet_opt.labels import PRESETS

SPLITS = {"train": 64, "test": 28}


def draw(rng: np.random.Generator, label: int) -> tuple[Image.Image, np.ndarray]:
    """A picture of 224 x 224 pixels and its landmarks [5, 2]; `label` bends the mouth."""
    picture = Image.new("RGB", (224, 224), tuple(int(v) for v in rng.integers(0, 120, 3)))
    pen = ImageDraw.Draw(picture)
    x, y = 112 + rng.uniform(-12, 12), 112 + rng.uniform(-10, 10)
    half, bend = rng.uniform(24, 32), 5 * (label - 3)
    skin = tuple(int(v) for v in rng.uniform(0.5, 1) * np.array([235, 195, 170]))
    pen.ellipse((x - 72, y - 92, x + 72, y + 92), fill=skin)
    points = np.array([[x - half, y - 25], [x + half, y - 25], [x, y + 12], [x - half, y + 48], [x + half, y + 48]])
    for eye_x, eye_y in points[:2]:
        pen.ellipse((eye_x - 9, eye_y - 5, eye_x + 9, eye_y + 5), fill="white")
        pen.ellipse((eye_x - 4, eye_y - 4, eye_x + 4, eye_y + 4), fill="black")
    pen.line([tuple(points[2] + (0, -25)), tuple(points[2])], fill="brown", width=4)
    pen.line([tuple(points[3]), (x, y + 48 + bend), tuple(points[4])], fill="darkred", width=6, joint="curve")
    noise = rng.normal(0, 6, (224, 224, 3))
    return Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)), points + rng.normal(0, 1, (5, 2))


def main(folder: Path) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng, names = np.random.default_rng(0), PRESETS["rafdb"]
    with open(folder / "faces.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label", "split", *COLUMNS])
        for split, count in SPLITS.items():
            for i in range(count):
                picture, points = draw(rng, i % len(names))
                name = f"{split}_{i:03}.png"
                picture.save(folder / "images" / name)
                writer.writerow([name, names[i % len(names)], split, *(f"{value:.1f}" for value in points.ravel())])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: placeholder_faces.py FOLDER")
    main(Path(sys.argv[1]))
