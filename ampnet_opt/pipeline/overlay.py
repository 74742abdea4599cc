"""Draws what the pipeline found into a frame: boxes, landmarks, labels, a bar for each class. Pillow only."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, List, Sequence, Tuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ampnet_opt.core.text import printable
from ampnet_opt.faces.detection import Detection
from ampnet_opt.pipeline.frames import FrameResult, TrackedFace

# Okabe and Ito's colours, which people with any kind of colour blindness can tell apart, in the order of the classes.
COLOURS = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)),
    (200, 200, 200),
)
PLATE, SHADE = (18, 20, 24), 0.72  # the ground of text, and how much of it covers the picture
TEXT = (255, 255, 255)
SMALLEST_TEXT, LARGEST_TEXT = 11, 0.035  # pixels; share of the picture's longer side
BARS = 64  # pixels: the side of a face from which each class has a bar
MOSAIC, HIDDEN = 6, 1.3  # cells across a blurred face; its sides as multiples of the box's

Rectangle = Tuple[int, int, int, int]  # left, top, right, bottom


def draw(result: FrameResult, classes: Sequence[str], *, blur: bool = False) -> np.ndarray:
    """The frame with its faces drawn in.

    Args:
        result: of the pipeline.
        classes: names by index.
        blur: make all faces, rejected ones too, unrecognisable.

    Returns:
        uint8 [height, width, 3], RGB, a new array.
    """
    picture = Image.fromarray(result.frame.image)
    found = [face.detection for face in result.faces] + [face for face, _ in result.rejected]
    for one in found if blur else ():
        _hide(picture, one)
    pen = ImageDraw.Draw(picture)
    for face in result.faces:
        _outline(pen, face, COLOURS[face.label % len(COLOURS)], landmarks=not blur)
    taken = [_box(one) for one in found]
    for face in result.faces:
        _label(picture, pen, face, classes, taken)
    return np.asarray(picture)


def _hide(picture: Image.Image, face: Detection) -> None:
    """Replace a face by a mosaic whose cells hold the mean of their pixels."""
    x, y, width, height = face.box
    side = HIDDEN * max(width, height)
    across, down = (max(2, round(MOSAIC * length / max(width, height))) for length in (width, height))
    left, top = round(x + (width - side) / 2), round(y + (height - side) / 2)
    right, bottom = min(picture.width, round(left + side)), min(picture.height, round(top + side))
    left, top = max(0, left), max(0, top)
    if right > left and bottom > top:
        part = picture.crop((left, top, right, bottom))
        cells = part.resize((min(across, part.width), min(down, part.height)), Image.Resampling.BOX)
        picture.paste(cells.resize(part.size, Image.Resampling.NEAREST), (left, top))


def _outline(pen: Any, face: TrackedFace, colour: Tuple[int, int, int], *, landmarks: bool) -> None:
    """Box and landmarks, each with a dark rim that shows on a light ground."""
    found = face.detection
    width = max(1, round(found.side / 80))
    left, top, right, bottom = _box(found)
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=PLATE, width=width + 2)
    pen.rectangle((left, top, right, bottom), outline=colour, width=width)
    radius = max(1.0, found.side / 70)
    for x, y in found.landmarks if landmarks else ():
        pen.ellipse((x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1), fill=PLATE)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=TEXT)


def _label(picture: Image.Image, pen: Any, face: TrackedFace, classes: Sequence[str], taken: List[Rectangle]) -> None:
    """Label and bars on a plate beside the face, where it covers least of other faces and plates."""
    longest = max(picture.size)
    size = round(min(max(SMALLEST_TEXT, face.detection.side / 11), max(SMALLEST_TEXT, LARGEST_TEXT * longest)))
    font, gap = _font(size), max(2, size // 4)
    name = printable(classes[face.label])
    title = (
        f"{name} {face.smoothed[face.label]:.0%}"
        if face.track is None
        else (f"{face.track}  {name} {face.smoothed[face.label]:.0%}")
    )
    line = size + gap
    bars = face.detection.side >= BARS
    names = [printable(each) for each in classes] if bars else []
    column = max([_width(font, each) for each in names], default=0)
    width = max(_width(font, title), column + gap + 4 * size if bars else 0) + 2 * gap
    height = line * (1 + len(names)) + gap
    left, top = _place(_box(face.detection), (width, height), picture.size, taken)
    plate = (left, top, left + width, top + height)
    taken.append(plate)
    _shade(picture, plate)
    colour = COLOURS[face.label % len(COLOURS)]
    pen.rectangle((left, top, left + max(1, gap // 2), top + height - 1), fill=colour)
    pen.text((left + gap + 1, top + gap // 2), title, fill=TEXT, font=font)
    room = width - column - 3 * gap
    for row, (each, share) in enumerate(zip(names, face.smoothed), 1):
        y = top + gap // 2 + row * line
        pen.text((left + gap + 1, y), each, fill=TEXT, font=font)
        start, thick = left + 2 * gap + column, max(2, size // 2)
        middle = y + size // 2 + 1
        bar = (start, middle - thick // 2, start + max(1, round(room * float(share))), middle - thick // 2 + thick)
        pen.rectangle(bar, fill=COLOURS[(row - 1) % len(COLOURS)])


def _place(box: Rectangle, size: Tuple[int, int], picture: Tuple[int, int], taken: Sequence[Rectangle]) -> Tuple[int, int]:
    """Left and top of a plate: right, left, below or above the box, where it covers least of what is taken."""
    (left, top, right, bottom), (width, height) = box, size
    best, cost = (0, 0), float("inf")
    for x, y in ((right + 3, top), (left - 3 - width, top), (left, bottom + 3), (left, top - 3 - height)):
        x, y = max(0, min(x, picture[0] - width)), max(0, min(y, picture[1] - height))
        covered = sum(_shared((x, y, x + width, y + height), other) for other in taken)
        if covered < cost:
            best, cost = (x, y), covered
    return best


def _shared(one: Rectangle, other: Rectangle) -> int:
    """Pixels that two rectangles have in common."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, wide) * max(0, high)


def _shade(picture: Image.Image, plate: Rectangle) -> None:
    part = picture.crop(plate)
    picture.paste(Image.blend(part, Image.new("RGB", part.size, PLATE), SHADE), plate[:2])


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
def _width(font: Any, text: str) -> int:
    return round(font.getlength(text)) + 1
