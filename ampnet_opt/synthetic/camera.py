"""What a camera and a file do to a face: sharpness, brightness, colour, noise, compression and borders."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

from ampnet_opt.core.graph_interface import IMAGE_SIDE

GREY = 0.7  # the share of grey pictures


def photograph(scene: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 [224, 224, 3] RGB of a scene float [224, 224, 3] of 0 to 255. Nothing moves: landmarks stay where they are."""
    grey = rng.random() < GREY
    gain, gamma, lowest = rng.uniform(0.8, 1.25), np.exp(rng.normal(0, 0.18)), rng.uniform(0, 14)
    levels = lowest + (255 - lowest) * (gain * np.arange(256) / 255).clip(0, 1) ** gamma
    picture = Image.fromarray(scene.clip(0, 255).astype(np.uint8))
    if grey:
        picture = picture.convert("L")
    blur = float(rng.choice([0.0, rng.uniform(0.4, 1.0), rng.uniform(1.0, 2.2)], p=[0.3, 0.5, 0.2]))
    if blur:
        picture = picture.filter(ImageFilter.GaussianBlur(blur))
    shot = levels.astype(np.float32)[np.asarray(picture)]
    if not grey:
        shot = shot * (1 + rng.normal(0, 0.07, 3)).astype(np.float32)  # white balance
    noise = np.float32(abs(rng.normal(0, 4)))
    shot = shot + noise * rng.standard_normal(shot.shape, np.float32)
    picture = Image.fromarray(shot.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.6:
        packed = io.BytesIO()
        picture.save(packed, "JPEG", quality=int(rng.integers(30, 95)))
        picture = Image.open(packed, formats=["JPEG"])
    return _bordered(np.array(picture.convert("RGB")), rng)


def _bordered(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sometimes black at the left and right, as of a narrow crop that was made square."""
    if rng.random() < 0.12:
        left, right = (int(v) for v in rng.integers(4, 24) + rng.integers(-3, 4, 2))
        picture[:, : max(0, left)] = 0
        picture[:, IMAGE_SIDE - max(1, right) :] = 0
    return picture
