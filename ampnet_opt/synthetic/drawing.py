"""Numbers to a picture: a face drawn at twice its size in flat colours, scaled down and lit."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ampnet_opt.core.graph_interface import IMAGE_SIDE
from ampnet_opt.synthetic import appearance, features
from ampnet_opt.synthetic.geometry import FINE, View, outline, pixels
from ampnet_opt.synthetic.parameters import Person, Pose, Units
from ampnet_opt.synthetic.shading import creases, shade


def draw(person: Person, pose: Pose, units: Units, rng: np.random.Generator) -> np.ndarray:
    """The face before its camera, float32 [224, 224, 3] RGB of 0 to 255."""
    view = View(pose)
    picture = background(rng)
    appearance.shoulders(ImageDraw.Draw(picture), person, view, rng)
    lit = head(picture, person, pose, units, rng=rng)
    kind = str(rng.choice(list(appearance.OCCLUSIONS), p=list(appearance.OCCLUSIONS.values())))
    return wear(lit, kind, person, view, rng)


def head(picture: Image.Image, person: Person, pose: Pose, units: Units, *, rng: np.random.Generator) -> np.ndarray:
    """Draw a head on a picture of 448 x 448, which changes; float32 [224, 224, channels], 0 to 255, scaled down and lit.

    picture: RGB, or RGBA that is transparent where nothing is to be behind the head.
    """
    view, pen = View(pose), ImageDraw.Draw(picture)
    appearance.back_hair(pen, person, view)
    contour, depth = outline(person, units)
    edge = pixels(view(contour, depth=depth))
    features.ears(pen, person, view)
    pen.polygon(edge, fill=person.skin)
    mask = Image.new("L", (IMAGE_SIDE, IMAGE_SIDE))
    ImageDraw.Draw(mask).polygon([(x / FINE, y / FINE) for x, y in edge], fill=255)
    features.cheeks(picture, person, view, rng)
    appearance.beard(picture, person, view, units, edge)
    features.nose(pen, person, view, units)
    features.lips(pen, person, view, units)
    features.eyes_and_mouth(picture, person, pose, units)
    features.brows(pen, person, view, units)
    appearance.front_hair(picture, person, view, rng)
    folds = creases(person, pose, units)
    flat = np.array(picture.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BOX), np.float32)
    light, ambient = _light(rng)
    bright = shade(person, pose, units, light, ambient=ambient, gloss=float(rng.uniform(0, 0.3))) * (1 - folds)
    mottle = Image.fromarray(rng.normal(0, 0.035, (56, 56)).astype(np.float32))
    bright = bright * (1 + np.asarray(mottle.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BILINEAR)))
    inside = np.asarray(mask.filter(ImageFilter.GaussianBlur(0.8)), np.float32) / 255
    flat[:, :, :3] *= (1 + inside * (bright - 1))[:, :, None]
    return flat


def _light(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A direction to the light, mostly from the front and above, and the share of light without direction."""
    direction = np.array([rng.normal(0, 0.5), rng.normal(-0.4, 0.25), 1.0])
    return direction / np.linalg.norm(direction), float(rng.uniform(0.3, 0.6))


def wear(lit: np.ndarray, kind: str, person: Person, view: View, rng: np.random.Generator) -> np.ndarray:
    """What lies over the skin and takes no part in its shading: glasses, and one of the things in front of the face."""
    if person.glasses == "none" and kind == "none":
        return lit
    picture = Image.fromarray(lit.clip(0, 255).astype(np.uint8)).resize((IMAGE_SIDE * FINE,) * 2, Image.Resampling.BILINEAR)
    appearance.glasses(picture, person, view, rng)
    appearance.occlusion(ImageDraw.Draw(picture), kind, person, view, rng)
    return np.asarray(picture.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BOX), np.float32)


def background(rng: np.random.Generator) -> Image.Image:
    """A gradient, blurred noise or blurred shapes, 448 x 448."""
    small = 28
    first, second = rng.uniform(10, 245, (2, 3)) * 0.4 + rng.uniform(10, 245, (2, 1)) * 0.6
    kind = rng.integers(3)
    if kind == 0:
        angle = rng.uniform(0, 2 * np.pi)
        line = np.linspace(-0.7, 0.7, small)
        share = (0.5 + line[None, :] * np.cos(angle) + line[:, None] * np.sin(angle)).clip(0, 1)
        picture = Image.fromarray((first + share[:, :, None] * (second - first)).astype(np.uint8))
    elif kind == 1:
        coarse = (first + rng.normal(0, 40, (7, 7, 1))).clip(0, 255).astype(np.uint8)
        picture = Image.fromarray(coarse)
    else:
        picture = Image.new("RGB", (112, 112), tuple(int(v) for v in first))
        pen = ImageDraw.Draw(picture)
        for _ in range(int(rng.integers(3, 9))):
            x, y, w, h = rng.uniform([0, 0, 8, 8], [112, 112, 60, 60])
            colour = tuple(int(v) for v in (second + rng.normal(0, 45, 3)).clip(0, 255))
            (pen.ellipse if rng.random() < 0.5 else pen.rectangle)((x - w / 2, y - h / 2, x + w / 2, y + h / 2), fill=colour)
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(1, 5))))
    return picture.resize((IMAGE_SIDE * FINE,) * 2, Image.Resampling.BILINEAR)


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
