"""Where the features of a face lie: curves on an ellipsoid, moved by action units, turned by the pose and projected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np
from PIL import Image, ImageFilter

from ampnet_opt.core.graph_interface import IMAGE_SIDE
from ampnet_opt.synthetic.parameters import Colour, Person, Pose, Units

# The face's own coordinates: x to the image's right, y down, in pixels of a face whose eyes are 80 apart; (0, 0) is midway
# between eyes and mouth.
HEAD = np.array([86.0, 120.0, 95.0])  # semi-axes of the ellipsoid
HEAD_Y = -30.0
PIVOT_Z = 58.0  # depth of the point the head turns about, so that a turned face still lies about mid-picture
EYE_Y, MOUTH_Y, NOSE_Y = -41.0, 41.0, 5.0


@dataclass(frozen=True)
class View:
    """The projection of one head into the picture."""

    pose: Pose

    def __call__(
        self, points: np.ndarray, lift: float | np.ndarray = 0.0, depth: float | np.ndarray | None = None
    ) -> np.ndarray:
        """Face coordinates [n, 2] to pixels [n, 2].

        lift: pixels by which they stand out of the ellipsoid. depth: their depth, in place of the ellipsoid's.
        """
        points = np.asarray(points, float).reshape(-1, 2)
        x, y = points[:, 0], points[:, 1]
        z = surface(x, y) + lift if depth is None else np.broadcast_to(depth, x.shape)
        return self._turn(x, y, z - PIVOT_Z)

    def _turn(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        pose = self.pose
        x, z = x * np.cos(pose.yaw) + z * np.sin(pose.yaw), z * np.cos(pose.yaw) - x * np.sin(pose.yaw)
        y = y * np.cos(pose.pitch) + z * np.sin(pose.pitch)
        x, y = x * np.cos(pose.roll) - y * np.sin(pose.roll), x * np.sin(pose.roll) + y * np.cos(pose.roll)
        return np.stack([pose.x + pose.scale * x, pose.y + pose.scale * y], axis=1)


def surface(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Depth of the ellipsoid's front at face coordinates."""
    return HEAD[2] * np.sqrt(np.maximum(0.0, 1 - (x / HEAD[0]) ** 2 - ((y - HEAD_Y) / HEAD[1]) ** 2))


@dataclass(frozen=True)
class Eye:
    """One eye in face coordinates. upper, lower: the lids' edges [n, 2] from the inner to the outer corner."""

    centre: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    iris: np.ndarray
    radius: float


@dataclass(frozen=True)
class Mouth:
    """Edges [n, 2] from left to right corner: of the upper lip (top, inner) and of the lower lip (inner, bottom)."""

    upper_top: np.ndarray
    upper_inner: np.ndarray
    lower_inner: np.ndarray
    lower_bottom: np.ndarray
    gap: float


def eye(person: Person, pose: Pose, units: Units, side: int) -> Eye:
    """side: 0 for the image's left, 1 for its right."""
    u, out = {unit: both[side] for unit, both in units.items()}, 2 * side - 1
    x, half = 40.0 * person.eye_distance, 17.5 * person.eye_size
    t = np.linspace(-1, 1, 13)
    up = person.eye_size * (8.4 + 5.4 * u[5] - 2.0 * u[6] - 2.2 * u[7] - 1.5 * u[9] - 4.5 * u[43])
    low = person.eye_size * (5.6 + 1.2 * u[5] - 4.2 * u[6] - 2.6 * u[7] - 1.8 * u[9])
    line = -person.eye_tilt * t
    bow = 1 - np.abs(t) ** 2.3
    upper = np.stack([out * (x + half * t), EYE_Y + line - max(1.0, up) * bow], axis=1)
    lower = np.stack([out * (x + half * t), EYE_Y + line + max(0.3, low) * (1 - t**2)], axis=1)
    iris = np.array([out * x + pose.gaze[0], EYE_Y - 1.0 + pose.gaze[1]])
    return Eye(np.array([out * x, EYE_Y]), upper, lower, iris, 7.4 * person.eye_size**0.5)


def brow(person: Person, units: Units, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Middle line [n, 2] of a brow in face coordinates, inner end first, and its half thickness [n]."""
    u, out = {unit: both[side] for unit, both in units.items()}, 2 * side - 1
    t = np.linspace(0, 1, 11)
    base = EYE_Y - 21.0 - person.brow_height
    inner = -12.0 * u[1] + 10.0 * u[4] + 8.0 * u[9] - 2.0 * u[2]
    outer = -11.0 * u[2] + 1.0 * u[4] + 1.5 * u[6] + 2.0 * u[1]
    middle = -8.0 * u[2] + 5.5 * u[4] + 3.5 * u[9] - 3.0 * u[1] - 4.0 * person.brow_arch
    start = 14.0 - 5.5 * u[4] - 2.0 * u[9]
    x = start + (64.0 * person.eye_distance - start) * t
    y = inner * (1 - t) ** 2 + middle * 2 * t * (1 - t) * 1.3 + outer * t**2 + 5.0 * t**2
    thickness = person.brow_thickness * 4.0 * (0.75 + 0.9 * t * (1 - t)) * (1 - 0.75 * t**3)
    return np.stack([out * x, base + y], axis=1), thickness


def mouth(person: Person, units: Units) -> Mouth:
    u = {unit: (both[0] + both[1]) / 2 for unit, both in units.items()}
    t = np.linspace(-1, 1, 25)
    corners = corner_points(person, units)
    open_ = max(0.0, 7.5 * u[25] + 27.0 * u[26] + 12.0 * u[27] + 5.0 * u[16] * u[25] - 0.7)
    press = max(0.0, 1 - 0.6 * u[23] - 0.55 * u[24])
    raised = 5.0 * u[10] + 2.5 * u[9] + 2.0 * u[25]
    upper_y = MOUTH_Y - raised + 1.5 * u[12] - 2.5 * u[17]
    lower_y = max(upper_y, MOUTH_Y - 0.4 * raised + 1.5 * u[12] - 2.5 * u[17]) + open_ + 1.5 * u[16]
    side = np.where(t < 0, corners[0, 1], corners[1, 1])
    x = np.where(t < 0, -t * corners[0, 0], t * corners[1, 0])
    # A pulled corner bends the line near the corner, a dropped jaw rounds it.
    sharp = 2.0 + 0.5 * (u[15] + u[20])
    bow = 1 - np.abs(t) ** sharp
    upper = side + (upper_y - side) * bow
    lower = side + (lower_y - side) * (1 - np.abs(t) ** (sharp + 0.4))
    full = (1 - t**2) ** 0.65
    thick = person.lip_thickness * press * (1 - 0.2 * u[12] - 0.2 * u[20])
    cupid = 1 - 0.22 * np.exp(-((t / 0.13) ** 2))
    top = upper - 7.0 * thick * full * cupid
    bottom = lower + (9.0 * thick + 1.5 * u[16] + 2.0 * u[17]) * full
    top, upper, lower, bottom = (np.stack([x, y], axis=1) for y in (top, upper, lower, bottom))
    return Mouth(top, upper, lower, bottom, gap=lower_y - upper_y)


def corner_points(person: Person, units: Units) -> np.ndarray:
    """Mouth corners [2, 2] in face coordinates, image-left first."""
    corners = []
    for side in (0, 1):
        u = {unit: both[side] for unit, both in units.items()}
        half = person.mouth_width * (
            33.5 + 8.0 * u[12] + 3.0 * u[14] + 9.0 * u[20] - 4.0 * u[23] - 6.5 * u[26] - 3.0 * u[27] - 2.0 * u[17]
        )
        y = MOUTH_Y - 12.0 * u[12] - 1.0 * u[14] + 10.0 * u[15] + 4.0 * u[20] + 5.0 * u[26] + 3.0 * u[27] + 1.0 * u[16]
        corners.append(((2 * side - 1) * half, y))
    return np.array(corners)


def nose_tip(person: Person, units: Units) -> np.ndarray:
    wrinkle = (units[9][0] + units[9][1]) / 2
    return np.array([0.0, EYE_Y + (NOSE_Y - EYE_Y) * person.nose_length - 2.5 * wrinkle])


NOSE_LIFT = 17.0


def landmarks(person: Person, pose: Pose, units: Units) -> np.ndarray:
    """The five points float32 [5, 2] in pixels: eye centres, nose tip, mouth corners, image-left first."""
    view = View(pose)
    eyes = view(np.stack([eye(person, pose, units, side).centre for side in (0, 1)]))
    nose = view(nose_tip(person, units), lift=NOSE_LIFT)
    return np.concatenate([eyes, nose, view(corner_points(person, units))]).astype(np.float32)


def outline(person: Person, units: Units) -> tuple[np.ndarray, np.ndarray]:
    """The head's contour in face coordinates [n, 2]; from the left ear over the top, and its depth [n]."""
    u = {unit: (both[0] + both[1]) / 2 for unit, both in units.items()}
    drop = 17.0 * u[26] + 9.0 * u[27] + 3.0 * u[25] - 2.0 * u[17]
    angle = np.linspace(np.pi, 2 * np.pi, 21)
    top = np.stack([HEAD[0] * person.face_width * np.cos(angle), HEAD_Y + 4 + 118 * np.sin(angle)], axis=1)
    s = np.linspace(0, 1, 10)[1:]
    chin = HEAD_Y + 118 * person.chin + drop
    # A superellipse between ear and chin: a larger exponent squares the jaw.
    power = 2.35 * person.jaw_width
    jaw_y = HEAD_Y + 4 + (chin - HEAD_Y - 4) * np.sin(s * np.pi / 2)
    jaw_x = HEAD[0] * person.face_width * np.cos(s * np.pi / 2) ** (2 / power)
    right = np.stack([jaw_x, jaw_y], axis=1)
    left = right[::-1][1:] * [-1, 1]
    contour = np.concatenate([top, right, left])
    depth = np.clip(38.0 * (contour[:, 1] - HEAD_Y) / 118, 0, 42)
    return contour, depth


FINE = 2  # pixels drawn per pixel of the picture, a side
Pixels = list[tuple[float, float]]


def pixels(points: np.ndarray) -> Pixels:
    return [(float(x), float(y)) for x, y in points * FINE]


def mix(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, share: float) -> Colour:
    red, green, blue = (int(a + share * (b - a)) for a, b in zip(first, second))
    return red, green, blue


def ellipse(view: View, x: float, y: float, wide: float, high: float, *, lift: float = 0.0) -> Pixels:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return pixels(view(np.stack([x + wide * np.cos(angle), y + high * np.sin(angle)], axis=1), lift=lift))


def grown(layer: Image.Image, blur: float) -> Image.Image:
    soft = layer.filter(ImageFilter.GaussianBlur(blur))
    return soft.resize((IMAGE_SIDE * FINE,) * 2, Image.Resampling.BILINEAR)
