"""Points, colours and soft edges for drawing at twice the picture's resolution."""

from __future__ import annotations

from typing import Sequence

import numpy as np
from PIL import Image, ImageFilter

from ampnet_opt.core.graph_interface import IMAGE_SIDE
from ampnet_opt.synthetic.geometry import View
from ampnet_opt.synthetic.parameters import Colour

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
