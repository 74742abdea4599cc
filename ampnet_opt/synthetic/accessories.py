"""What is in front of or around a face: clothes, glasses, and things that hide a part of it."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from ampnet_opt.synthetic.geometry import EYE_Y, MOUTH_Y, View
from ampnet_opt.synthetic.parameters import Person
from ampnet_opt.synthetic.pen import FINE, ellipse, mix, pixels

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
