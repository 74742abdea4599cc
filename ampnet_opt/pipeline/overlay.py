"""Draws what the pipeline found into a frame: boxes, landmarks, labels, a bar for each class.

Pixels are set with numpy: a Pillow picture would be copied in and out, which takes longer than the drawing. Pillow renders
text, once per word and size.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ampnet_opt.core.text import printable
from ampnet_opt.faces.detection import Box, Detection
from ampnet_opt.pipeline.frames import FrameResult, TrackedFace
from ampnet_opt.pipeline.hiding import hide

Colour = Tuple[int, int, int]
Rectangle = Tuple[int, int, int, int]  # left, top, right, bottom; the last two are outside

# Okabe and Ito's colours, which people with any kind of colour blindness can tell apart, in the order of the classes.
COLOURS = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)),
    (200, 200, 200),
)
PLATE = (18, 20, 24)  # the ground of text; an eighth of the picture shines through
TEXT, TRACK = (255, 255, 255), (70, 74, 82)  # TRACK: of a bar, as long as 100 %
SMALLEST_TEXT, LARGEST_TEXT = 11, 0.035  # pixels; share of the picture's longer side
BARS = 64  # pixels: the side of a face from which each class has a bar
INSIDE = 0.2  # share of its own face that a plate with bars may cover


def draw(result: FrameResult, classes: Sequence[str], *, blur: bool = False, also_hidden: Sequence[Box] = ()) -> np.ndarray:
    """The frame with its faces drawn in.

    Args:
        result: of the pipeline.
        classes: names by index.
        blur: make all faces, rejected ones too, unrecognisable, and leave their landmarks out.
        also_hidden: further boxes to make unrecognisable, in pixels of the frame.

    Returns:
        uint8 [height, width, 3], RGB, a new array.
    """
    image = result.frame.image.copy()
    found = [face.detection for face in result.faces] + [face for face, _ in result.rejected]
    for box in [*(one.box for one in found if blur), *also_hidden]:
        hide(image, box)
    for face in result.faces:
        _outline(image, face.detection, COLOURS[face.label % len(COLOURS)], landmarks=not blur)
    taken = [_box(one) for one in found]
    for index, face in enumerate(result.faces):
        taken.append(_label(image, face, [printable(name) for name in classes], taken, own=index))
    return image


def _outline(image: np.ndarray, found: Detection, colour: Colour, *, landmarks: bool) -> None:
    """Box and landmarks, each with a dark rim that shows on a light ground."""
    width = max(1, round(found.side / 80))
    left, top, right, bottom = _box(found)
    _frame(image, (left - 1, top - 1, right + 1, bottom + 1), width + 2, PLATE)
    _frame(image, (left, top, right, bottom), width, colour)
    radius = max(1.5, found.side / 70)
    for x, y in found.landmarks if landmarks else ():
        _disc(image, float(x), float(y), radius + 1, PLATE)
        _disc(image, float(x), float(y), radius, TEXT)


def _label(image: np.ndarray, face: TrackedFace, classes: Sequence[str], taken: Sequence[Rectangle], own: int) -> Rectangle:
    """Title and, where they hide nothing else, bars on a plate beside the face. Returns where the plate is."""
    size = round(max(SMALLEST_TEXT, min(face.detection.side / 11, LARGEST_TEXT * max(image.shape[:2]))))
    gap = max(2, size // 4)
    title = f"{classes[face.label]} {face.smoothed[face.label]:.0%}"
    if face.track is not None:
        title = f"{face.track}  {title}"
    line, column = size + gap, max(_mask(name, size).shape[1] for name in classes)
    narrow = _mask(title, size).shape[1] + 3 * gap
    wide = max(narrow, column + 4 * size + 4 * gap)
    place = None
    if face.detection.side >= BARS:
        place = _place(taken, own, (wide, line * (1 + len(classes)) + gap), image.shape, INSIDE)
    bars = place is not None
    left, top, right, bottom = place or _place(taken, own, (narrow, line + gap), image.shape, None) or (0, 0, 0, 0)
    part = image[top:bottom, left:right]
    part >>= 3
    part += np.full(part.shape, [value * 7 // 8 for value in PLATE], np.uint8)  # faster than three values broadcast
    _fill(image, (left, top, left + gap, bottom), COLOURS[face.label % len(COLOURS)])
    _text(image, left + 2 * gap, top + gap // 2, title, size)
    for row, (name, share) in enumerate(zip(classes, face.smoothed) if bars else (), 1):
        y = top + gap // 2 + row * line
        _text(image, left + 2 * gap, y, name, size)
        start, middle, thick = left + 3 * gap + column, y + line // 2, max(2, size // 2)
        room = right - gap - start
        _fill(image, (start, middle - thick // 2, start + room, middle - thick // 2 + thick), TRACK)
        filled = round(room * float(share))
        bar = (start, middle - thick // 2, start + max(1, filled), middle - thick // 2 + thick)
        _fill(image, bar, COLOURS[(row - 1) % len(COLOURS)])
    return left, top, right, bottom


def _place(
    taken: Sequence[Rectangle], own: int, size: Tuple[int, int], shape: Tuple[int, ...], inside: Optional[float]
) -> Optional[Rectangle]:
    """Where a plate covers least of other faces and plates: right, left, below or above the face, or in its corners.

    inside: with a share, a place must cover nothing else, and no more than this of its own face; None if there is no such.
    """
    (left, top, right, bottom), (width, height) = taken[own], size
    beside = [(right + 3, top), (left - 3 - width, top), (left, bottom + 3), (left, top - 3 - height)]
    corners = [(right - width, top), (left, top), (right - width, bottom - height), (left, bottom - height)]
    places = np.array(beside + corners)
    places = np.maximum(0, np.minimum(places, (shape[1] - width, shape[0] - height)))
    ends = np.minimum(np.add(places, (width, height)), (shape[1], shape[0]))
    boxes = np.array(taken)
    sides = np.minimum(ends[:, None], boxes[:, 2:]) - np.maximum(places[:, None], boxes[:, :2])
    shared = np.maximum(0, sides).prod(axis=2)  # [places, taken], pixels
    covered = shared[:, own]
    others = shared.sum(axis=1) - covered
    if inside is not None:
        fitting = (others == 0) & (covered <= inside * (right - left) * (bottom - top))
        if not fitting.any():
            return None
        covered = np.where(fitting, covered, np.iinfo(covered.dtype).max)
        others[:] = 0
    best = int(np.argmin(2 * others + covered))
    return int(places[best, 0]), int(places[best, 1]), int(ends[best, 0]), int(ends[best, 1])


def _fill(image: np.ndarray, where: Rectangle, colour: Colour) -> None:
    left, top, right, bottom = (max(0, value) for value in where)
    image[top:bottom, left:right] = colour


def _frame(image: np.ndarray, where: Rectangle, width: int, colour: Colour) -> None:
    """A rectangle's border, `width` pixels inwards."""
    left, top, right, bottom = where
    _fill(image, (left, top, right, top + width), colour)
    _fill(image, (left, bottom - width, right, bottom), colour)
    _fill(image, (left, top, left + width, bottom), colour)
    _fill(image, (right - width, top, right, bottom), colour)


def _disc(image: np.ndarray, x: float, y: float, radius: float, colour: Colour) -> None:
    left, top, right, bottom = (round(value) for value in (x - radius, y - radius, x + radius + 1, y + radius + 1))
    left, top = max(0, left), max(0, top)
    part = image[top : max(0, bottom), left : max(0, right)]
    rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
    part[(columns + left - x) ** 2 + (rows + top - y) ** 2 <= radius**2] = colour


def _text(image: np.ndarray, left: int, top: int, text: str, size: int) -> None:
    """Text whose line is `size` pixels high, cut off where the image ends."""
    part = image[top : top + size + size // 3, left : left + _mask(text, size).shape[1]]
    share = _mask(text, size)[: part.shape[0], : part.shape[1]]
    part += ((255 - part) * share >> 8).astype(np.uint8)  # towards white


def _box(face: Detection) -> Rectangle:
    x, y, width, height = face.box
    return round(x), round(y), round(x + width), round(y + height)


@lru_cache(maxsize=32)
def _font(size: int) -> Any:
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has one size
        return ImageFont.load_default()


@lru_cache(maxsize=1024)
def _mask(text: str, size: int) -> np.ndarray:
    """uint16 [height, width, 3], how much of each pixel text covers, 0 to 256; the same in each channel."""
    font = _font(size)
    picture = Image.new("L", (max(1, round(font.getlength(text)) + 1), size + size // 3))
    ImageDraw.Draw(picture).text((0, 0), text, fill=255, font=font)
    covered = np.asarray(picture, np.uint16)[..., None]
    return np.repeat(covered + (covered >> 7), 3, axis=2)
