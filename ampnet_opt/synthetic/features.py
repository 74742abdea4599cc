"""The parts of a face, each drawn with a pen of twice the picture's resolution."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from ampnet_opt.synthetic.geometry import (
    EYE_Y,
    FINE,
    View,
    brow,
    ellipse,
    eye,
    grown,
    mix,
    mouth,
    nose_tip,
    pixels,
)
from ampnet_opt.synthetic.parameters import Person, Pose, Units


def ears(pen: ImageDraw.ImageDraw, person: Person, view: View) -> None:
    if person.hair_style == "long":
        return
    angle = np.linspace(0, 2 * np.pi, 20)
    for out in (-1, 1):
        ring = np.stack([out * 87 * person.face_width + 11 * np.cos(angle), -22 + 25 * np.sin(angle)], axis=1)
        pen.polygon(pixels(view(ring, depth=-12.0)), fill=mix(person.skin, (0, 0, 0), 0.15))
        inner = np.stack([out * 89 * person.face_width + 5 * np.cos(angle), -24 + 15 * np.sin(angle)], axis=1)
        pen.polygon(pixels(view(inner, depth=-12.0)), fill=mix(person.skin, (30, 0, 0), 0.4))


def cheeks(picture: Image.Image, person: Person, view: View, rng: np.random.Generator) -> None:
    """A blush on the cheeks and the eyes' darker sockets, soft-edged."""
    layer = Image.new("L", (56, 56))
    pen = ImageDraw.Draw(layer)
    blush = float(rng.uniform(0.0, 0.22))
    for out in (-1, 1):
        spot = [(x / 8, y / 8) for x, y in ellipse(view, out * 48, 12, 17, 15)]
        pen.polygon(spot, fill=int(255 * blush))
    picture.paste(mix(person.skin, (200, 60, 60), 0.6), (0, 0), grown(layer, 2.0))
    layer = Image.new("L", (56, 56))
    pen = ImageDraw.Draw(layer)
    for out in (-1, 1):
        pen.polygon([(x / 8, y / 8) for x, y in ellipse(view, out * 39, EYE_Y, 23, 15)], fill=int(60 + 60 * person.age))
    picture.paste(mix(person.skin, (40, 10, 20), 0.5), (0, 0), grown(layer, 1.2))


def nose(pen: ImageDraw.ImageDraw, person: Person, view: View, units: Units) -> None:
    tip, dark = nose_tip(person, units), mix(person.skin, (30, 0, 0), 0.7)
    for out in (-1, 1):
        nostril = ellipse(view, out * 6.8 * person.nose_width, tip[1] + 8.5, 4.2 * person.nose_width, 2.3, lift=11.0)
        pen.polygon(nostril, fill=dark)


def lips(pen: ImageDraw.ImageDraw, person: Person, view: View, units: Units) -> None:
    m = mouth(person, units)
    pen.polygon(
        pixels(view(np.concatenate([m.upper_top, m.upper_inner[::-1]]), lift=3.0)), fill=mix(person.lips, (0, 0, 0), 0.14)
    )
    pen.polygon(pixels(view(np.concatenate([m.lower_inner, m.lower_bottom[::-1]]), lift=3.0)), fill=person.lips)
    shine = m.lower_inner[8:17] * 0.45 + m.lower_bottom[8:17] * 0.55
    pen.line(pixels(view(shine, lift=3.0)), fill=mix(person.lips, (255, 255, 255), 0.22), width=3)
    seam = mix(person.lips, (20, 0, 0), 0.75)
    pen.line(pixels(view(m.upper_inner, lift=3.0)), fill=seam, width=3)


def eyes_and_mouth(picture: Image.Image, person: Person, pose: Pose, units: Units) -> None:
    """Eyeballs seen between the lids, teeth and tongue between the lips: one layer, cut out by their openings."""
    view, layer, holes = View(pose), picture.copy(), Image.new("L", picture.size)
    pen, cut = ImageDraw.Draw(layer), ImageDraw.Draw(holes)
    scale = pose.scale * FINE
    m = mouth(person, units)
    if m.gap > 1.2:
        _inside(pen, m.upper_inner, m.lower_inner, view=view, units=units, person=person)
        cut.polygon(pixels(view(np.concatenate([m.upper_inner, m.lower_inner[::-1]]), lift=3.0)), fill=255)
    for side in (0, 1):
        e = eye(person, pose, units, side)
        hole = pixels(view(np.concatenate([e.upper, e.lower[::-1]]), lift=-3.0))
        cut.polygon(hole, fill=255)
        pen.polygon(ellipse(view, e.centre[0], e.centre[1], 26, 20), fill=mix((236, 232, 226), person.skin, 0.12))
        ((x, y),) = view(e.iris, lift=-3.0) * FINE
        for share, fill in ((1.0, mix(person.iris, (0, 0, 0), 0.5)), (0.86, person.iris), (0.45, (8, 6, 6))):
            r = e.radius * share * scale
            pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        r = 1.5 * scale
        pen.ellipse((x + 1.2 * r - r, y - 1.8 * r - r, x + 1.2 * r + r, y - 1.8 * r + r), fill=(255, 255, 255))
        shadow = [(px, py + 1.2 * scale) for px, py in pixels(view(e.upper, lift=-3.0))]
        pen.line(shadow, fill=(70, 55, 50), width=max(1, round(1.6 * scale)))
    picture.paste(layer, (0, 0), holes)
    pen = ImageDraw.Draw(picture)
    for side in (0, 1):
        e = eye(person, pose, units, side)
        pen.line(pixels(view(e.upper, lift=-3.0)), fill=(28, 18, 16), width=round(1.9 * scale), joint="curve")
        pen.line(
            pixels(view(e.lower, lift=-3.0)), fill=mix(person.skin, (50, 10, 10), 0.55), width=max(1, round(0.9 * scale))
        )
        fold = e.upper[1:-1] * [1, 1] - [0, 3.8 - 1.2 * units[5][side]]
        pen.line(pixels(view(fold)), fill=mix(person.skin, (40, 10, 10), 0.4), width=max(1, round(1.0 * scale)))


def _inside(
    pen: ImageDraw.ImageDraw, upper: np.ndarray, lower: np.ndarray, *, view: View, units: Units, person: Person
) -> None:
    u = {unit: (both[0] + both[1]) / 2 for unit, both in units.items()}
    pen.polygon(pixels(view(np.concatenate([upper, lower[::-1]]) * [1.0, 1.0], lift=3.0)), fill=(52, 14, 16))
    gap = float((lower - upper)[:, 1].max())
    if gap > 10:
        tongue = lower[5:-5] + np.array([0, 3.0])
        pen.polygon(pixels(view(np.concatenate([tongue, tongue[::-1] - [0, 0.38 * gap]]))), fill=(150, 66, 68))
    white = (232, 226, 212)
    teeth = min(gap, 2.0 + 7.0 * u[12] + 6.0 * u[10] + 5.0 * u[20] + 3.0 * u[9])
    row = upper[1:-1]
    drop = np.stack([np.zeros(len(row)), teeth * (1 - np.linspace(-1, 1, len(row)) ** 4)], axis=1)
    pen.polygon(pixels(view(np.concatenate([row - [0, 4], (row + drop)[::-1]]), lift=1.0)), fill=white)
    low = max(0.0, min(gap - teeth - 1.0, 6.0 * u[16] + 4.5 * u[20]))
    if low > 1.0:
        row = lower[4:-4]
        pen.polygon(
            pixels(view(np.concatenate([row + np.array([0, 4]), (row - [0, low])[::-1]]), lift=1.0)),
            fill=mix(white, (0, 0, 0), 0.1),
        )
    for x in np.arange(-20, 21, 8.0):
        line = pixels(view(np.array([[x, upper[12, 1] - 6], [x, upper[12, 1] + teeth - 1.5]]), lift=1.0))
        pen.line(line, fill=mix(white, (60, 40, 30), 0.35), width=1)


def brows(pen: ImageDraw.ImageDraw, person: Person, view: View, units: Units) -> None:
    for side in (0, 1):
        middle, half = brow(person, units, side)
        edge = np.concatenate([middle - np.stack([0 * half, half], 1), (middle + np.stack([0 * half, half], 1))[::-1]])
        pen.polygon(pixels(view(edge, lift=2.0)), fill=person.brow)
        out = 2 * side - 1
        for (x, y), h in zip(middle[:-1], half[:-1]):  # hairs
            hair = np.array([[x, y + 0.8 * h], [x + out * 6, y - h]])
            pen.line(pixels(view(hair, lift=2.0)), fill=mix(person.brow, (0, 0, 0), 0.25), width=2)
