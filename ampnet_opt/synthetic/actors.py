"""What people do in a drawn video: walk in, stand, turn, talk, change expression, hide behind a hand, pass others, leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np

from ampnet_opt.synthetic.parameters import Colour, Person, Pose, Units, sample_person, sample_units

BLEND = 0.4  # seconds in which one expression becomes another
HAND = 0.25  # seconds in which a hand comes up
HEAD_SCALE = 0.68  # of a pose, so that hair and all lie within a picture of 224 pixels
EYES = 80.0  # distance of the eyes in a face's own coordinates


@dataclass(frozen=True)
class State:
    """An actor at one moment.

    x, y: where (0, 0) of the face's coordinates lies, in pixels of the frame. scale: pixels of the frame per unit of a face.
    label: the expression that makes up more than half of `units`. hand: 0 out of sight to 1 over the face.
    """

    x: float
    y: float
    scale: float
    pose: Pose
    units: Units
    label: str
    hand: float


@dataclass(frozen=True)
class Actor:
    """One person's visit, from entering to leaving.

    path: rows (time, x, y, scale), between which the person goes smoothly. expressions: (start, label, units).
    covers, talks: (start, end) in seconds. phases: of the ways in which the head moves, in radians.
    """

    number: int
    person: Person
    clothes: Colour
    path: np.ndarray
    expressions: Sequence[tuple[float, str, Units]]
    covers: Sequence[tuple[float, float]]
    talks: Sequence[tuple[float, float]]
    phases: np.ndarray

    def at(self, time: float) -> State | None:
        """None before the person enters and after it has left."""
        if not self.path[0, 0] <= time <= self.path[-1, 0]:
            return None
        x, y, scale = self._place(time)
        speed = (self._place(time + 0.05)[0] - x) / 0.05 / (EYES * scale)  # eye distances a second
        wave = np.sin(np.array([1.3, 0.9, 0.7, 1.1, 0.8]) * time + self.phases[:5])
        pose = Pose(
            yaw=float(0.26 * wave[0] + 0.1 * np.clip(speed, -1.5, 1.5)),  # beyond 28 degrees an eye would leave the head
            pitch=float(0.1 * wave[1]),
            roll=float(0.1 * wave[2]),
            scale=HEAD_SCALE,
            x=112.0,
            y=136.0,
            gaze=(float(1.5 * wave[3]), 0.0),
        )
        units, label = self._face(time)
        x, y = float(x + 5 * scale * wave[3]), float(y + 4 * scale * wave[4])
        return State(x, y, float(scale), pose, units, label, self._hand(time))

    def _place(self, time: float) -> np.ndarray:
        times, places = self.path[:, 0], self.path[:, 1:]
        index = int(np.clip(np.searchsorted(times, time, side="right") - 1, 0, len(times) - 2))
        share = smooth((time - times[index]) / (times[index + 1] - times[index]))
        return places[index] + share * (places[index + 1] - places[index])

    def _face(self, time: float) -> tuple[Units, str]:
        index = max(i for i, (start, _, _) in enumerate(self.expressions) if i == 0 or start <= time)
        start, label, units = self.expressions[index]
        if index:
            share = smooth((time - start) / BLEND)
            _, before, old = self.expressions[index - 1]
            units = {
                unit: (a + share * (units[unit][0] - a), b + share * (units[unit][1] - b)) for unit, (a, b) in old.items()
            }
            label = label if share >= 0.5 else before
        for begin, end in self.talks:
            if begin <= time <= end:
                wide = (
                    0.5 - 0.25 * np.cos(2 * np.pi * 3.7 * (time - begin)) - 0.25 * np.cos(2 * np.pi * 5.9 * (time - begin))
                )
                opened = float(wide) * smooth((time - begin) / 0.2) * smooth((end - time) / 0.2)
                units = _raised(_raised(units, 25, 0.5 * opened), 26, 0.3 * opened)
        if np.sin(1.7 * time + self.phases[5]) > 0.995:  # a blink about every four seconds
            units = _raised(units, 43, 1.0)
        return units, label

    def _hand(self, time: float) -> float:
        return max((smooth((time - a) / HAND) * smooth((b - time) / HAND) for a, b in self.covers), default=0.0)


def cast(seed: int, seconds: float, people: int, labels: Sequence[str], size: tuple[int, int]) -> list[Actor]:
    """The actors of a video: `people` places at which one after the other stands, and now and then somebody who passes.

    Args:
        seed: of everything.
        seconds: length of the video.
        people: who stand there at once, at most.
        labels: expressions that are shown.
        size: (width, height) of a frame in pixels.
    """
    rng = np.random.default_rng([seed, people])
    width, height = size
    step = width / people
    actors: list[Actor] = []
    for place in range(people):
        time = float(rng.uniform(-6, 2))  # some are there as it begins
        while time < seconds:
            # As large as its place allows: a head is 2.4 eye distances wide.
            scale = min(step / (3.1 * EYES), 0.8) * float(rng.uniform(0.75, 1.0)) * height / 480
            x, y = step * (place + 0.5) + float(rng.uniform(-0.06, 0.06)) * step, float(rng.uniform(0.38, 0.5)) * height
            left = x < width / 2 if people > 1 else rng.random() < 0.5
            away = (-1.6 * EYES * scale) if left else width + 1.6 * EYES * scale
            walk = abs(x - away) / float(rng.uniform(150, 260)) + 0.4
            stay = float(rng.uniform(8, 18))
            times = np.cumsum([time, walk, stay, walk])
            path = np.array(
                [
                    [times[0], away, y, scale],
                    [times[1], x, y, scale],
                    [times[2], x + float(rng.uniform(-0.05, 0.05)) * step, y, scale * float(rng.uniform(0.92, 1.08))],
                    [times[3], away, y, scale],
                ]
            )
            actors.append(_actor(len(actors), path, labels, rng, covers=True))
            time = float(times[3] + rng.uniform(0.5, 2.5))
    time = float(rng.uniform(3, 6))
    while time < seconds - 4:
        scale = float(rng.uniform(0.3, 0.62)) * height / 480
        y, rim = float(rng.uniform(0.36, 0.5)) * height, 1.6 * EYES * scale
        ends = (-rim, width + rim) if rng.random() < 0.5 else (width + rim, -rim)
        path = np.array([[time, ends[0], y, scale], [time + float(rng.uniform(3.5, 6)), ends[1], y, scale]])
        actors.append(_actor(len(actors), path, labels, rng, covers=False))
        time += float(rng.uniform(8, 13))
    return actors


def smooth(share: float) -> float:
    """From 0 to 1, at rest at both ends."""
    share = min(1.0, max(0.0, share))
    return share * share * (3 - 2 * share)


def _actor(number: int, path: np.ndarray, labels: Sequence[str], rng: np.random.Generator, *, covers: bool) -> Actor:
    start, end = float(path[0, 0]), float(path[-1, 0])
    expressions: list[tuple[float, str, Units]] = []
    time = start
    while time < end:
        others = [label for label in labels if not expressions or label != expressions[-1][1]]
        label = str(rng.choice(others))
        expressions.append((time, label, sample_units(rng, label)))
        time += float(rng.uniform(2.5, 5))
    hidden = []
    time = start + float(rng.uniform(4, 8))
    while covers and time < end - 2:
        hidden.append((time, time + float(rng.uniform(0.7, 1.6))))
        time += float(rng.uniform(6, 12))
    talks = [(start + a, start + a + float(rng.uniform(1.5, 4))) for a in np.arange(rng.uniform(0, 4), end - start, 7.0)]
    clothes = rng.uniform(20, 230, 3) * 0.6 + rng.uniform(20, 230) * 0.4
    red, green, blue = (int(value) for value in clothes)
    return Actor(
        number=number,
        person=sample_person(rng),
        clothes=(red, green, blue),
        path=path,
        expressions=expressions,
        covers=hidden,
        talks=talks,
        phases=rng.uniform(0, 2 * np.pi, 6),
    )


def _raised(units: Units, unit: int, least: float) -> Units:
    left, right = units[unit]
    return {**units, unit: (max(left, least), max(right, least))}
