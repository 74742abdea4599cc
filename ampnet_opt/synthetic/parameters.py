"""The numbers a drawn face is made of: a person, a pose and the intensities of facial action units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ampnet_opt.core.errors import MisuseError

Colour = tuple[int, int, int]

# Action units (AU) of the seven expressions and their intensities, 0 to 1: the prototypes of EMFACS, after Ekman, Friesen
# and Hager, Facial Action Coding System, the Investigator's Guide (2002).
EXPRESSIONS: dict[str, dict[int, float]] = {
    "neutral": {},
    "happiness": {6: 0.9, 12: 1.0},
    "sadness": {1: 1.0, 4: 0.5, 15: 1.0},
    "surprise": {1: 1.0, 2: 1.0, 5: 0.8, 25: 0.5, 26: 1.0},
    "fear": {1: 0.9, 2: 0.5, 4: 0.7, 5: 1.0, 20: 1.0, 25: 0.8},
    "anger": {4: 1.0, 5: 0.5, 7: 0.9, 23: 1.0},
    "disgust": {9: 1.0, 15: 0.6, 16: 0.7, 10: 0.6},
    "contempt": {12: 1.0, 14: 1.0},
}
ONE_SIDED = {"contempt"}
# What people add to a prototype, one of each row by chance.
VARIANTS: dict[str, tuple[dict[int, float], ...]] = {
    "happiness": ({}, {25: 1.0}, {25: 1.0, 26: 0.4}),
    "sadness": ({}, {17: 0.9}, {43: 0.6}, {17: 0.6, 25: 0.5}),
    "surprise": ({}, {27: 0.6}),
    "fear": ({}, {26: 0.4}),
    "anger": ({}, {24: 0.8, 17: 0.6}, {23: 0.0, 10: 0.7, 16: 0.8, 25: 1.0, 26: 0.4}),
    "disgust": ({}, {25: 0.7}, {4: 0.5, 7: 0.5}),
}
UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 16, 17, 20, 23, 24, 25, 26, 27, 43)
WEAKEST = 0.6  # of a prototype's intensities
RESTING = 0.12  # the highest intensity of the units an expression does not use

SKINS = np.array([[247, 216, 195], [236, 196, 168], [219, 172, 136], [188, 138, 102], [146, 100, 72], [98, 66, 50]], float)
HAIRS = np.array([[22, 18, 17], [48, 34, 26], [88, 60, 40], [140, 100, 62], [196, 164, 112], [170, 168, 166]], float)
HAIR_STYLES = {"bald": 0.12, "short": 0.28, "curly": 0.14, "fringe": 0.11, "side": 0.2, "long": 0.15}  # chances
IRISES = np.array([[52, 32, 20], [92, 62, 34], [96, 108, 70], [84, 118, 140], [120, 150, 170]], float)


@dataclass(frozen=True)
class Person:
    """Colours are RGB. Lengths are factors of an average face's, except where noted."""

    skin: Colour
    hair: Colour
    brow: Colour
    iris: Colour
    lips: Colour
    face_width: float
    jaw_width: float
    chin: float
    eye_distance: float
    eye_size: float
    eye_tilt: float  # pixels by which the outer corner is higher than the inner
    brow_height: float  # pixels above the average
    brow_thickness: float
    brow_arch: float
    nose_length: float
    nose_width: float
    mouth_width: float
    lip_thickness: float
    hair_style: str  # one of HAIR_STYLES
    hairline: float  # pixels above the average
    beard: str  # "none", "stubble", "moustache" or "full"
    glasses: str  # "none", "thin" or "thick"
    age: float  # 0 to 1


@dataclass(frozen=True)
class Pose:
    """Angles in radians: positive yaw turns to the image's right, pitch down, roll clockwise; x, y in pixels of 224."""

    yaw: float
    pitch: float
    roll: float
    scale: float
    x: float
    y: float
    gaze: tuple[float, float] = (0.0, 0.0)


Units = dict[int, tuple[float, float]]  # intensity of every unit on the image's left and right


def require_label(label: str) -> int:
    """The place of an expression in the table, or a MisuseError that names those there are."""
    if label not in EXPRESSIONS:
        raise MisuseError(f"no face can be drawn for class {label!r}; known are {', '.join(EXPRESSIONS)}")
    return list(EXPRESSIONS).index(label)


def sample_units(rng: np.random.Generator, label: str) -> Units:
    """Random intensities of an expression: its prototype, weaker or stronger, with variants and small other movements."""
    variants = VARIANTS.get(label, ({},))
    prototype = EXPRESSIONS[label] | variants[int(rng.integers(len(variants)))]
    strength = rng.uniform(WEAKEST, 1.0)
    one_sided = label in ONE_SIDED
    weak_side = int(rng.integers(2))
    units: Units = {}
    for unit in UNITS:
        rest = rng.uniform(0, RESTING) * (rng.random() < 0.5)
        value = prototype.get(unit, 0.0) * strength * rng.uniform(0.85, 1.1)
        sides = [max(rest, value * rng.uniform(0.9, 1.1)) for _ in range(2)]
        if one_sided and unit in prototype:
            sides[weak_side] = rest
        units[unit] = (min(1.0, sides[0]), min(1.0, sides[1]))
    return units


def sample_person(rng: np.random.Generator) -> Person:
    tone = rng.uniform(0, len(SKINS) - 1)
    skin = _between(SKINS, tone) * rng.uniform(0.93, 1.05) + rng.normal(0, 4, 3)
    age = float(rng.beta(1.2, 1.8))
    darkest = 3.0 if tone > 2.5 else 5.0
    hair = _between(HAIRS, 5.0 if age > 0.65 and rng.random() < 0.5 else min(darkest, rng.uniform(0, 4.3)))
    lips = skin * np.array([0.86, 0.62, 0.62]) + rng.uniform(-10, 12) * np.array([1.0, -0.6, -0.3])
    bearded = rng.random() < 0.38
    return Person(
        skin=_colour(skin),
        hair=_colour(hair + rng.normal(0, 5, 3)),
        brow=_colour(hair * 0.55 + skin * rng.uniform(0.0, 0.25)),
        iris=_colour(_between(IRISES, rng.uniform(0, 1.5) if tone > 2 else rng.uniform(0, 4))),
        lips=_colour(lips),
        face_width=_factor(rng, 0.055),
        jaw_width=_factor(rng, 0.1),
        chin=_factor(rng, 0.05),
        eye_distance=_factor(rng, 0.035),
        eye_size=_factor(rng, 0.08),
        eye_tilt=float(rng.normal(1.0, 1.6)),
        brow_height=float(rng.normal(0, 2)),
        brow_thickness=_factor(rng, 0.28),
        brow_arch=float(rng.uniform(0.3, 1.4)),
        nose_length=_factor(rng, 0.06),
        nose_width=_factor(rng, 0.13),
        mouth_width=_factor(rng, 0.06),
        lip_thickness=_factor(rng, 0.2),
        hair_style=str(rng.choice(list(HAIR_STYLES), p=list(HAIR_STYLES.values()))),
        hairline=float(rng.normal(0, 7)),
        beard=str(rng.choice(["stubble", "moustache", "full"])) if bearded else "none",
        glasses=str(rng.choice(["none", "thin", "thick"], p=[0.84, 0.1, 0.06])),
        age=age,
    )


def sample_pose(rng: np.random.Generator) -> Pose:
    """Angles, size and place as in tightly cropped faces found by a detector: eyes about 81 pixels apart."""
    return Pose(
        yaw=float(np.radians(np.clip(rng.normal(0, 14.5), -28, 28))),
        pitch=float(np.radians(np.clip(rng.normal(0, 6), -14, 14))),
        roll=float(np.radians(np.clip(rng.normal(0, 7), -20, 20))),
        scale=float(np.clip(rng.normal(1.02, 0.07), 0.84, 1.22)),
        x=float(112.5 + np.clip(rng.normal(0, 5), -12, 12)),
        y=float(128.5 + np.clip(rng.normal(0, 4), -10, 10)),
        gaze=(float(np.clip(rng.normal(0, 1.8), -4, 4)), float(np.clip(rng.normal(0, 0.9), -2, 2))),
    )


def _between(colours: np.ndarray, place: float) -> np.ndarray:
    lower = min(int(place), len(colours) - 2)
    return colours[lower] + (place - lower) * (colours[lower + 1] - colours[lower])


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = (int(value) for value in np.clip(values, 0, 255))
    return red, green, blue


def _factor(rng: np.random.Generator, deviation: float) -> float:
    return float(1 + np.clip(rng.normal(0, deviation), -2.2 * deviation, 2.2 * deviation))
