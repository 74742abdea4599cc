"""Light on a face: a height field of the head and its features, lit from one direction."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ampnet_opt.core.graph_interface import IMAGE_SIDE
from ampnet_opt.synthetic.geometry import EYE_Y, HEAD, HEAD_Y, MOUTH_Y, View, corner_points, nose_tip
from ampnet_opt.synthetic.parameters import Person, Pose, Units

STEP = 2  # pixels of the picture per point of the height field


def shade(person: Person, pose: Pose, units: Units, light: np.ndarray, *, ambient: float, gloss: float) -> np.ndarray:
    """Brightness float32 [224, 224] of a matte surface (Lambert), about 1 where it faces the camera.

    light: a unit vector towards it. ambient: the share of light without direction. gloss: of the shine (Blinn and Phong).
    """
    count = IMAGE_SIDE // STEP
    grid = (np.arange(count, dtype=np.float32) + 0.5) * STEP
    view = View(pose)
    cos, sin = np.cos(pose.roll), np.sin(pose.roll)
    centre = view(np.array([[0.0, HEAD_Y]]), depth=20.0)[0]
    dx, dy = (grid - centre[0])[None, :] / pose.scale, (grid - centre[1])[:, None] / pose.scale
    x, y = dx * cos + dy * sin, dy * cos - dx * sin
    height = HEAD[2] * np.sqrt(np.maximum(0.02, 1 - (x / (HEAD[0] * 1.12)) ** 2 - (y / (HEAD[1] * 1.12)) ** 2))
    for px, py, amount, wide, high in _bumps(person, units):
        at = view(np.array([[px, py]]))[0]
        ox, oy = (at - centre) / pose.scale
        bx, by = ox * cos + oy * sin, oy * cos - ox * sin
        height = height + amount * np.exp(-(((x - bx) / wide) ** 2) - ((y - by) / high) ** 2)
    gy, gx = np.gradient(height * pose.scale, STEP)
    length = np.sqrt(1 + gx**2 + gy**2)
    facing = (light[2] - gx * light[0] - gy * light[1]) / length
    half = (light + np.array([0, 0, 1.0])) / np.linalg.norm(light + np.array([0, 0, 1.0]))
    shine = np.maximum((half[2] - gx * half[0] - gy * half[1]) / length, 0) ** 32
    bright = ambient + (1 - ambient) * np.maximum(facing, 0) / max(0.45, float(light[2])) + gloss * shine
    small = Image.fromarray(bright.astype(np.float32))
    return np.asarray(small.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC))


def _bumps(person: Person, units: Units) -> list[tuple[float, float, float, float, float]]:
    """(x, y, height, half width, half height) of the features that stand out, in face coordinates."""
    u = {unit: (both[0] + both[1]) / 2 for unit, both in units.items()}
    tip, corners = nose_tip(person, units), corner_points(person, units)
    eyes = 40.0 * person.eye_distance
    wide = person.nose_width
    bumps = [
        (0.0, tip[1] - 3, 19.0, 11.0 * wide, 11.0),
        (0.0, tip[1] - 24, 11.0, 8.0 * wide, 20.0),
        (-12.5 * wide, tip[1] + 2, 8.0, 6.0, 6.5),
        (12.5 * wide, tip[1] + 2, 8.0, 6.0, 6.5),
        (0.0, EYE_Y - 22, 4.0 + 3.0 * u[4], 26.0, 9.0),
        (0.0, MOUTH_Y - 8, 3.0, 18.0, 9.0),
        (0.0, MOUTH_Y + 17 + 12 * u[26], -4.0, 15.0, 5.0),
        (0.0, MOUTH_Y + 33 + 13 * u[26], 8.0 + 5.0 * u[17], 17.0, 12.0),
    ]
    for out, side in ((-1.0, 0), (1.0, 1)):
        raise_, pull = units[6][side], units[12][side]
        bumps += [
            (out * eyes, EYE_Y - 2, -9.0, 19.0, 12.0),
            (out * eyes * 1.05, EYE_Y - 19, 4.5, 24.0, 7.0),
            (out * eyes * 1.25, 4.0 - 8.0 * raise_, 5.0 + 6.0 * raise_ + 3.0 * pull, 19.0, 15.0),
            (float(corners[side, 0]) + out * 5, float(corners[side, 1]), -3.5 - 2.0 * pull, 6.0, 9.0),
        ]
    return bumps


def creases(person: Person, pose: Pose, units: Units) -> np.ndarray:
    """Darkness float32 [224, 224], 0 to 1, of folds and wrinkles: those of an expression, deeper with age."""
    view, layer = View(pose), Image.new("L", (IMAGE_SIDE, IMAGE_SIDE))
    pen = ImageDraw.Draw(layer)

    def line(points: list[tuple[float, float]], strength: float, width: float) -> None:
        if strength > 0.05:
            curve = _smooth(np.array(points, float))
            ends = [(float(x), float(y)) for x, y in view(curve, lift=2.0)]
            pen.line(ends, fill=round(255 * min(1.0, strength)), width=max(1, round(width * pose.scale)))

    tip, corners, old = nose_tip(person, units), corner_points(person, units), 0.35 * max(0.0, person.age - 0.35)
    u = {unit: (both[0] + both[1]) / 2 for unit, both in units.items()}
    for k in range(3):  # a raised brow folds the forehead
        y = EYE_Y - 38 - 10 * k - 3 * u[1]
        bend = 5.0 * (u[1] - u[2])
        line([(-34, y + bend), (0, y - bend), (34, y + bend)], 0.5 * max(u[1], u[2]) - 0.12 + old, 1.6)
    for out, side in ((-1.0, 0), (1.0, 1)):
        v = {unit: both[side] for unit, both in units.items()}
        wing, corner = 15.0 * person.nose_width, corners[side]
        line([(out * 5, EYE_Y - 26), (out * 4.5, EYE_Y - 18), (out * 6, EYE_Y - 9)], 0.75 * v[4] + old - 0.05, 2.2)
        fold = max(0.85 * v[12], 0.8 * v[9], 0.7 * v[10], 0.4 * v[15], 0.5 * v[20], 0.5 * v[14])
        far = out * (abs(corner[0]) + 9 + 4 * v[12])
        middle = (out * (wing + 14 + 7 * v[12]), tip[1] + 14 - 3 * v[9])
        line([(out * (wing + 1), tip[1] - 2), middle, (far, corner[1] + 2)], 0.65 * fold + 2 * old, 2.4)
        line([(out * wing, tip[1] - 4), (out * (wing + 2), tip[1] + 3), (out * (wing - 3), tip[1] + 9)], 0.5, 1.6)
        line([(out * 8, EYE_Y + 2), (out * 9, EYE_Y + 14), (out * 11, EYE_Y + 22)], 0.65 * v[9], 1.8)
        line([(out * 14, EYE_Y + 4), (out * 17, EYE_Y + 13), (out * 15, EYE_Y + 24)], 0.6 * v[9], 1.8)
        eye_x = 40.0 * person.eye_distance
        for k in (-1, 0, 1):  # crow's feet
            line([(out * (eye_x + 21), EYE_Y + 4 * k), (out * (eye_x + 32), EYE_Y + 9 * k - 2)], 0.5 * v[6] - 0.1 + old, 1.3)
        bag = EYE_Y + 13 - 2 * v[6]
        bag_line = [(out * (eye_x - 18), bag - 6), (out * eye_x, bag), (out * (eye_x + 18), bag - 6)]
        line(bag_line, 0.4 * max(v[6], v[7]) + old, 1.8)
        line([(out * (abs(corner[0]) + 3), corner[1] - 4), (out * (abs(corner[0]) + 4), corner[1] + 6)], 0.8 * v[14], 2.4)
        droop = [(out * (abs(corner[0]) + 2), corner[1] + 1), (out * (abs(corner[0]) + 3), corner[1] + 12)]
        line(droop, 0.6 * v[15] + 1.5 * old, 2.2)
    for k in (0, 1):
        line([(-9, EYE_Y - 1 + 7 * k), (0, EYE_Y - 4 + 7 * k), (9, EYE_Y - 1 + 7 * k)], 0.6 * u[9], 1.8)
    chin = MOUTH_Y + 22 + 12 * u[26]
    line([(-13, chin + 3), (0, chin), (13, chin + 3)], 0.5 * u[17] + 0.12, 2.0)
    soft = layer.filter(ImageFilter.GaussianBlur(1.0 * pose.scale))
    return np.asarray(soft, np.float32) * (0.75 / 255)


def _smooth(points: np.ndarray) -> np.ndarray:
    """A curve through three points (a parabola), or the line of two."""
    if len(points) == 2:
        return points
    t = np.linspace(0, 1, 9)[:, None]
    first, middle, last = points
    return first * (1 - t) * (1 - 2 * t) + middle * 4 * t * (1 - t) + last * t * (2 * t - 1)
