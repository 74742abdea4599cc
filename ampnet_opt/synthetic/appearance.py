"""What is in front of or around a face: clothes, glasses, and things that hide a part of it."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ampnet_opt.core.graph_interface import IMAGE_SIDE
from ampnet_opt.synthetic.geometry import (
    EYE_Y,
    FINE,
    HEAD_Y,
    MOUTH_Y,
    Pixels,
    View,
    corner_points,
    ellipse,
    mix,
    mouth,
    nose_tip,
    pixels,
)
from ampnet_opt.synthetic.parameters import Person, Units

OCCLUSIONS = {"none": 0.86, "hand": 0.03, "microphone": 0.03, "scarf": 0.03, "hat": 0.03, "strand": 0.02}  # chances


def shoulders(pen: ImageDraw.ImageDraw, person: Person, view: View, rng: np.random.Generator) -> None:
    """Neck and clothes, behind the head."""
    shade = mix(person.skin, (0, 0, 0), 0.35)
    pen.polygon(pixels(view(np.array([[-52, 40], [52, 40], [56, 180], [-56, 180]]), depth=0.0)), fill=shade)
    clothes = tuple(int(v) for v in rng.uniform(10, 240) + rng.normal(0, 25, 3))
    cut = float(rng.uniform(96, 130))
    body = [[-170, 200], [-150, 122], [-54, cut - 18], [0, cut + 16], [54, cut - 18], [150, 122], [170, 200]]
    pen.polygon(pixels(view(np.array(body), depth=0.0)), fill=clothes)


def glasses(picture: Image.Image, person: Person, view: View, rng: np.random.Generator) -> None:
    if person.glasses == "none":
        return
    pen = ImageDraw.Draw(picture)
    dark = float(rng.uniform(15, 110)) if person.glasses == "thin" else float(rng.uniform(5, 50))
    colour, width = mix((dark,) * 3, (110, 60, 30), 0.25), 3 if person.glasses == "thin" else 7
    wide, high, power = rng.uniform(25, 30), rng.uniform(17, 23), rng.uniform(0.55, 1.0)
    angle = np.linspace(0, 2 * np.pi, 40)
    x, y = (np.sign(v) * np.abs(v) ** power for v in (np.cos(angle), np.sin(angle)))
    for out in (-1, 1):
        rim = np.stack([out * 40 * person.eye_distance + wide * x, EYE_Y + 3 + high * y], axis=1)
        pen.line(pixels(view(rim, depth=88.0)), fill=colour, width=width, joint="curve")
        hinge = out * (40 * person.eye_distance + wide)
        arm = view(np.array([[hinge, EYE_Y - 3], [out * 88, EYE_Y - 4]]), depth=np.array([86.0, 0.0]))
        pen.line(pixels(arm), fill=colour, width=width)
    inner = 40 * person.eye_distance - wide
    bridge = view(np.array([[-inner, EYE_Y], [0, EYE_Y - 4], [inner, EYE_Y]]), depth=90.0)
    pen.line(pixels(bridge), fill=colour, width=width)


def occlusion(pen: ImageDraw.ImageDraw, kind: str, person: Person, view: View, rng: np.random.Generator) -> None:
    """Draw one of OCCLUSIONS over the face; eyes and mouth stay mostly free, so that the expression can be read."""
    side = -1.0 if rng.random() < 0.5 else 1.0
    if kind == "hand":
        for i in range(4):  # fingers on a cheek
            x, y = side * (66 - 2 * i), 20 + 19 * i
            finger = np.array([[x - side * 18, y - 9], [x + side * 70, y + 22]])
            shade = mix(person.skin, (40, 10, 0), 0.12 + 0.06 * i)
            pen.line(pixels(view(finger, depth=70.0)), fill=shade, width=round(17 * FINE * view.pose.scale))
            pen.polygon(ellipse(view, x - side * 18, y - 9, 8.6, 8.6), fill=shade)
    elif kind == "microphone":
        rod = view(np.array([[side * 12, MOUTH_Y + 48], [side * 40, 190]]), depth=100.0)
        pen.line(pixels(rod), fill=(28, 28, 30), width=24)
        pen.polygon(ellipse(view, side * 10, MOUTH_Y + 40, 17, 15, lift=20.0), fill=(44, 44, 48))
    elif kind == "scarf":
        colour = mix((float(rng.uniform(20, 220)),) * 3, rng.uniform(0, 255, 3), 0.5)
        band = np.array([[-130, 58], [-70, 66], [0, MOUTH_Y + 37], [70, 66], [130, 58], [140, 200], [-140, 200]])
        pen.polygon(pixels(view(band, depth=40.0)), fill=colour)
        for x in range(-100, 101, 25):
            pen.line(
                pixels(view(np.array([[x, 62], [x * 0.7, 150]]), depth=40.0)), fill=mix(colour, (0, 0, 0), 0.25), width=3
            )
    elif kind == "hat":
        colour = mix((float(rng.uniform(10, 200)),) * 3, rng.uniform(0, 255, 3), 0.4)
        brim = np.array([[-108, -86], [0, -80], [108, -86], [112, -230], [-112, -230]])
        pen.polygon(pixels(view(brim, depth=45.0)), fill=colour)
        pen.line(pixels(view(brim[:3], depth=45.0)), fill=mix(colour, (0, 0, 0), 0.4), width=10)
    elif kind == "strand":
        for offset in rng.uniform(-9, 9, 14):
            hair = np.array([[side * 30 + offset, -120], [side * 58 + offset, -50], [side * 72 + offset * 1.4, 40]])
            pen.line(pixels(view(hair, depth=70.0)), fill=mix(person.hair, (0, 0, 0), float(rng.uniform(0, 0.3))), width=5)


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
