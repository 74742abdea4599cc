"""A drawn video of several people, with the exact truth of every frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ampnet_opt.core.graph_interface import IMAGE_SIDE
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.synthetic.actors import Actor, State, cast
from ampnet_opt.synthetic.drawing import background, head, wear
from ampnet_opt.synthetic.geometry import FINE, View, landmarks, mix, outline
from ampnet_opt.synthetic.parameters import Colour

NOISE = 2.0  # of 255, standard deviation of a pixel
FOREHEAD = -98.0  # about the hairline, in a face's own coordinates: where detectors' boxes begin


@dataclass(frozen=True)
class TrueFace:
    """A person who is in the picture.

    person: a number, the same from entering to leaving, never given again. box: (x, y, width, height), from the hairline to
    the chin. landmarks: float32 [5, 2], (x, y), image-left eye first. expression: the one that is more than half there.
    visible: share of the face (hairline to chin) that is within the frame and that nobody and no hand covers, 0 to 1. All in
    pixels of the frame, (0, 0) being the outer corner of the top left pixel.
    """

    person: int
    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    expression: str
    visible: float


@dataclass(frozen=True)
class DrawnFrame:
    """image: uint8 [height, width, 3] RGB; time: seconds from 0; faces: of everybody there, hidden ones too."""

    image: np.ndarray
    time: float
    faces: list[TrueFace]


def draw_video(
    seed: int,
    seconds: float,
    *,
    people: int = 3,
    rate: float = 25.0,
    size: tuple[int, int] = (640, 480),
    labels: Sequence[str] = PRESETS["affectnet7"],
) -> Iterator[DrawnFrame]:
    """The frames of a video; the same arguments give the same bytes.

    A frame of 640 x 480 takes about 45 ms for each person in it and 30 for the rest.

    Args:
        seed: of the people, of what they do and of the background.
        seconds: length of the video.
        people: who stand there at once, at most; others pass before and behind them.
        rate: frames a second.
        size: (width, height) in pixels.
        labels: expressions that are shown, in any order.
    """
    actors = cast(seed, seconds, people, labels, size)
    room = _room(seed, size)
    for index in range(round(seconds * rate)):
        time = index / rate
        states = [(actor, state) for actor in actors if (state := actor.at(time)) is not None]
        states.sort(key=lambda item: item[1].scale)  # the far ones first
        yield _frame(room, states, time, np.random.default_rng([seed, index]))


def _frame(room: Image.Image, states: list[tuple[Actor, State]], time: float, rng: np.random.Generator) -> DrawnFrame:
    picture = room.copy()
    shown: list[tuple[np.ndarray, int]] = []  # the pixels of each face that are still seen, and how many there are in all
    for actor, state in states:
        cover = Image.new("L", picture.size)
        seen, whole = _stand(picture, cover, actor, state)
        for mask, _ in shown:
            mask &= np.asarray(cover) < 128
        if state.hand > 0:
            hand = Image.new("L", picture.size)
            _hand(picture, hand, actor, state)
            for mask in [seen, *(mask for mask, _ in shown)]:
                mask &= np.asarray(hand) < 128
        shown.append((seen, whole))
    pixels = np.asarray(picture, np.float32) + NOISE * rng.standard_normal((*picture.size[::-1], 3), np.float32)
    faces = [
        TrueFace(actor.number, _box(actor, state), _points(actor, state), state.label, float(mask.sum()) / whole)
        for (actor, state), (mask, whole) in zip(states, shown)
    ]
    return DrawnFrame(pixels.clip(0, 255).astype(np.uint8), time, faces)


def _room(seed: int, size: tuple[int, int]) -> Image.Image:
    """A background, calmer than behind a single face."""
    picture = background(np.random.default_rng([seed, 1])).resize(size, Image.Resampling.BICUBIC)
    return Image.blend(picture, picture.filter(ImageFilter.GaussianBlur(12)), 0.7)


def _stand(picture: Image.Image, cover: Image.Image, actor: Actor, state: State) -> tuple[np.ndarray, int]:
    """Draw a person on the picture, and in white on `cover`; the pixels of the face, and how many it has in all."""
    person, look = actor.person, np.random.default_rng([actor.number, 7])  # the same strands and light in every frame
    body = np.array([[-54, 92], [54, 92], [150, 150], [190, 900], [-190, 900], [-150, 150]])
    neck = np.array([[-50, 40], [50, 40], [52, 112], [0, 136], [-52, 112]])
    _paint(picture, cover, [(body, actor.clothes), (neck, mix(person.skin, (0, 0, 0), 0.35))], state)
    drawn = head(Image.new("RGBA", (IMAGE_SIDE * FINE,) * 2), person, state.pose, state.units, rng=look)
    drawn = wear(drawn, "none", person, View(state.pose), look)
    part, place = _scaled(Image.fromarray(drawn.clip(0, 255).astype(np.uint8)), state)
    picture.paste(part, place, part)
    cover.paste(255, (*place, place[0] + part.width, place[1] + part.height), part.getchannel("A"))
    contour, depth = outline(person, state.units)
    front = contour[:, 1] > FOREHEAD
    edge = View(state.pose)(contour[front], depth=depth[front])
    return _filled(_to_frame(edge, state), picture.size)


def _scaled(drawn: Image.Image, state: State) -> tuple[Image.Image, tuple[int, int]]:
    """A drawn head at its size on the frame, to a fraction of a pixel, and the place of its top left pixel."""
    zoom = state.scale / state.pose.scale
    origin = np.array([state.x - state.pose.x * zoom, state.y - state.pose.y * zoom])
    low, high = np.ceil(origin), np.floor(origin + IMAGE_SIDE * zoom)
    source = (*((low - origin) / zoom), *((high - origin) / zoom))
    width, height = (int(value) for value in high - low)
    return drawn.resize((width, height), Image.Resampling.BILINEAR, box=source), (int(low[0]), int(low[1]))


def _to_frame(points: np.ndarray, state: State) -> np.ndarray:
    """Pixels of a drawn head [n, 2] in pixels of the frame."""
    return (points - [state.pose.x, state.pose.y]) * (state.scale / state.pose.scale) + [state.x, state.y]


def _points(actor: Actor, state: State) -> np.ndarray:
    return _to_frame(landmarks(actor.person, state.pose, state.units), state).astype(np.float32)


def _box(actor: Actor, state: State) -> tuple[float, float, float, float]:
    contour, depth = outline(actor.person, state.units)
    front = contour[:, 1] > FOREHEAD
    edge = _to_frame(View(state.pose)(contour[front], depth=depth[front]), state)
    (left, top), (right, bottom) = edge.min(axis=0), edge.max(axis=0)
    return float(left), float(top), float(right - left), float(bottom - top)


def _filled(edge: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, int]:
    """Pixels bool [height, width] within a closed line, and how many they would be in a frame without end."""
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in edge], fill=1)
    low = np.floor(edge.min(axis=0))
    width, height = (int(value) for value in np.ceil(edge.max(axis=0)) - low + 1)
    whole = Image.new("L", (width, height))
    ImageDraw.Draw(whole).polygon([(float(x), float(y)) for x, y in edge - low], fill=1)
    return np.array(mask, bool), int(np.asarray(whole).sum())


def _paint(picture: Image.Image, cover: Image.Image, shapes: list[tuple[np.ndarray, Colour]], state: State) -> None:
    """Shapes [n, 2] in upright face coordinates, with soft edges."""
    for points, colour in shapes:
        edge = points * state.scale + [state.x, state.y]
        low, high = np.floor(edge.min(axis=0)) - 2, np.minimum(np.ceil(edge.max(axis=0)), picture.size) + 2
        width, height = (int(value) for value in high - low)
        if width <= 0 or height <= 0:
            continue
        mask = Image.new("L", (width * FINE, height * FINE))
        ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in (edge - low) * FINE], fill=255)
        mask = mask.resize((width, height), Image.Resampling.BOX)
        area = (int(low[0]), int(low[1]), int(low[0]) + width, int(low[1]) + height)
        picture.paste(colour, area, mask)
        cover.paste(255, area, mask)


def _hand(picture: Image.Image, cover: Image.Image, actor: Actor, state: State) -> None:
    """A forearm and a hand that come up from below until the hand lies over eyes, nose and mouth."""
    lift = (1 - state.hand) * 330.0
    skin, dark = mix(actor.person.skin, (0, 0, 0), 0.08), mix(actor.person.skin, (30, 0, 0), 0.3)
    shapes: list[tuple[np.ndarray, Colour]] = [
        (np.array([[-44, 110], [44, 110], [80, 900], [-30, 900]]), mix(actor.clothes, (0, 0, 0), 0.15)),
        (np.array([[-34, 60], [34, 60], [40, 130], [-40, 130]]), skin),
        (_round(0, 30, 62, 66), skin),
    ]
    for x, top in ((-48, -62), (-17, -84), (15, -80), (46, -58)):
        shapes += [
            (_round(x, (top + 20) / 2, 19, (20 - top) / 2 + 10), dark),
            (_round(x, top / 2 + 9, 16, 19 - top / 2), skin),
        ]
    _paint(picture, cover, [(points + np.array([0.0, lift]), colour) for points, colour in shapes], state)


def _round(x: float, y: float, wide: float, high: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    return np.stack([x + wide * np.cos(angle), y + high * np.sin(angle)], axis=1)
