"""Hair on and around the head."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ampnet_opt.core.graph_interface import IMAGE_SIDE
from ampnet_opt.synthetic.geometry import HEAD_Y, View, corner_points, mouth, nose_tip
from ampnet_opt.synthetic.parameters import Person, Units
from ampnet_opt.synthetic.pen import FINE, Pixels, mix, pixels


def back_hair(pen: ImageDraw.ImageDraw, person: Person, view: View) -> None:
    if person.hair_style == "bald":
        return
    dark = mix(person.hair, (0, 0, 0), 0.25)
    angle = np.linspace(np.pi, 2 * np.pi, 20)
    wide, length = (100.0, 105.0) if person.hair_style == "long" else (92.0, -25.0)
    top = np.stack([wide * person.face_width * np.cos(angle), HEAD_Y - 4 + 132 * np.sin(angle)], axis=1)
    down = np.array(
        [[wide * 1.04, length * 0.5], [wide * 0.98, length], [-wide * 0.98, length], [-wide * 1.04, length * 0.5]]
    )
    pen.polygon(pixels(view(np.concatenate([top, down]), depth=-12.0)), fill=dark)


def front_hair(picture: Image.Image, person: Person, view: View, rng: np.random.Generator) -> None:
    """Hair over the forehead and the temples, with strands lighter and darker than its colour."""
    if person.hair_style == "bald":
        return
    line = {"short": -106.0, "curly": -98.0, "fringe": -76.0, "side": -92.0, "long": -98.0}[person.hair_style]
    line -= person.hairline
    t = np.linspace(-1, 1, 19)
    parting = float(rng.uniform(-0.5, 0.5)) if person.hair_style in ("side", "long") else 0.0
    arch = {"short": 26.0, "curly": 30.0, "fringe": 8.0, "side": 34.0, "long": 46.0}[person.hair_style]
    y = line + arch * np.abs(t - parting) ** 2 + rng.normal(0, 1.6, len(t))
    if person.hair_style == "side":
        y = y + 16 * np.maximum(0, np.sign(parting or 1.0) * (parting - t)) * (1 - t**2)
    x = 80.0 * person.face_width * t
    front = np.stack([x, y], axis=1)
    low = {"short": -30.0, "curly": -34.0, "fringe": -20.0, "side": -24.0, "long": 120.0}[person.hair_style]
    edge = 92.0 * person.face_width
    temple_right = np.array([[edge * 0.95, low], [edge * 1.0, low], [edge * 1.05, -60.0]])
    angle = np.linspace(2 * np.pi, np.pi, 16)
    over = np.stack([edge * 1.04 * np.cos(angle), HEAD_Y - 10 + 128 * np.sin(angle)], axis=1)
    whole = np.concatenate([front, temple_right, over, temple_right[::-1] * [-1, 1]])
    depth = np.clip(75.0 * (1 - (whole[:, 0] / edge) ** 2), 24, 75)
    pen = ImageDraw.Draw(picture)
    pen.polygon(pixels(view(whole, depth=depth)), fill=person.hair)
    if person.hair_style == "curly":
        _curls(pen, person, view(whole, depth=depth) * FINE, rng)
        return
    start = rng.uniform(-0.95, 0.95, 70)
    bottom = np.stack([80.0 * person.face_width * start, np.interp(start, t, y) - 2], axis=1)
    top = np.stack([bottom[:, 0] * 0.8 + 14 * (parting - start), bottom[:, 1] - rng.uniform(20, 60, len(start))], axis=1)
    ends = view(np.concatenate([bottom, top]), depth=np.tile(75 * (1 - (start * 0.9) ** 2), 2)) * FINE
    for (x0, y0), (x1, y1), shade in zip(ends[: len(start)], ends[len(start) :], rng.normal(-0.06, 0.1, len(start))):
        colour = mix(person.hair, (255, 240, 220) if shade > 0 else (0, 0, 0), min(0.5, abs(float(shade))))
        pen.line([(x0, y0), (x1, y1)], fill=colour, width=2)


def _curls(pen: ImageDraw.ImageDraw, person: Person, edge: np.ndarray, rng: np.random.Generator) -> None:
    """Round locks within and along the edge [n, 2] of the hair, in drawn pixels."""
    ends = rng.integers(0, len(edge), (110, 2))
    places = edge[ends[:, 0]] + rng.beta(0.5, 0.5, (110, 1)) * (edge[ends[:, 1]] - edge[ends[:, 0]])
    middle = edge.mean(axis=0)
    for (x, y), radius, shade in zip(places, rng.uniform(9, 19, 110), rng.uniform(0, 0.2, 110)):
        if y < middle[1]:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=mix(person.hair, (0, 0, 0), float(shade)))
    for x, y in edge:
        radius = float(rng.uniform(9, 16))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=person.hair)


def beard(picture: Image.Image, person: Person, view: View, units: Units, edge: Pixels) -> None:
    if person.beard == "none":
        return
    layer = Image.new("L", (112, 112))
    pen = ImageDraw.Draw(layer)
    strength = {"stubble": 75, "moustache": 225, "full": 225}[person.beard]
    if person.beard != "moustache":
        pen.polygon([(x / 4, y / 4) for x, y in edge], fill=strength)
        t = np.linspace(-1, 1, 15)
        clear = np.stack([t * 84, 12 + 22 * (1 - t**2) - 30 * t**6], axis=1)
        above = np.concatenate([clear, [[110, -160], [-110, -160]]])
        pen.polygon([(x / 4, y / 4) for x, y in pixels(view(above))], fill=0)
    corners, tip = corner_points(person, units), nose_tip(person, units)
    lip = mouth(person, units).upper_top
    x = lip[:, 0] * 1.12
    high = np.stack([x, tip[1] + 13 + 0.012 * x**2 * (corners[0, 1] - tip[1]) / 35], axis=1)
    band = np.concatenate([lip * [1.15, 1.0], np.minimum(high, lip * [10, 1] + [500, -1])[::-1]])
    pen.polygon([(px / 4, py / 4) for px, py in pixels(view(band, lift=3.0))], fill=strength)
    soft = layer.filter(ImageFilter.GaussianBlur(2.2)).resize((IMAGE_SIDE * FINE,) * 2, Image.Resampling.BILINEAR)
    picture.paste(mix(person.hair, person.skin, 0.12), (0, 0), soft)
