"""Rows of one face: a repeated face is no further evidence, and rows that contradict each other are none at all."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Dict, List, Sequence, Tuple

import numpy as np

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.files import sha256
from ampnet_opt.core.text import one_line

if TYPE_CHECKING:
    from ampnet_opt.faces.face import Face

# Two faces of a picture lie at least a face apart; two people's clicks on one face, a small part of it.
APART = 0.5  # of the spread of a face's landmarks, root mean square per coordinate


def first_of_each(faces: Sequence[Face]) -> List[int]:
    """For each face, the index of the first that is the same: the same picture, or a copy of it, with the same landmarks.

    Several faces of one picture differ in their landmarks. A picture is read only if it is as large as another one whose
    face has the same landmarks.
    """
    places = [_place(face) for face in faces]
    sizes = {place: os.path.getsize(place) for place in set(places)}
    likely = [(np.ascontiguousarray(face.landmarks, "<f4").tobytes(), sizes[place]) for face, place in zip(faces, places)]
    often = Counter(likely)
    contents = {place: sha256(place) for place in {place for place, alike in zip(places, likely) if often[alike] > 1}}
    first: Dict[Tuple[Tuple[bytes, int], str], int] = {}
    keys = ((alike, contents.get(place, place)) for place, alike in zip(places, likely))
    return [first.setdefault(key, row) for row, key in enumerate(keys)]


def unseen(faces: Sequence[Face], earlier: Sequence[Face]) -> Tuple[int, List[Face]]:
    """How many of the faces are in `earlier`, and the faces that are not, nor a copy of their picture under another name."""
    first = first_of_each([*earlier, *faces])[len(earlier) :]
    known = [(face, row) for face, row in zip(faces, first) if row < len(earlier)]
    shared = sum(_place(face) == _place(earlier[row]) for face, row in known)
    return shared, [face for face, row in zip(faces, first) if row >= len(earlier)]


def require_agreement(table: str, faces: Sequence[Face]) -> None:
    """MisuseError that names both lines, where two rows of one face differ in label, split or landmarks.

    Rows are of one face if they name one picture, and their landmarks, in whatever form they are, lie on each other or
    close by. Clearly different ones are of two faces of the picture.
    """
    rows_of: Dict[str, List[Face]] = {}
    for face in faces:
        rows_of.setdefault(_place(face), []).append(face)
    for rows in rows_of.values():
        points = np.stack([face.landmarks.ravel() for face in rows]) if len(rows) > 1 else np.zeros((0, 10))
        for i in range(1, len(points)):
            near = np.sqrt(np.square(points[:i] - points[i]).mean(1)) <= APART * _spread(points[i])
            if near.any():
                _require_equal(table, rows[int(near.argmax())], rows[i])


def _require_equal(table: str, one: Face, other: Face) -> None:
    equal = {
        "label": one.label == other.label,
        "split": one.split == other.split,
        "set of landmarks": np.array_equal(one.landmarks, other.landmarks),
    }
    for what, same in equal.items():
        if not same:
            raise MisuseError(
                f"{table}: one face of {one_line(one.file.name, 80)} has one {what} in line {one.line} and another in line "
                f"{other.line}; keep one row"
            )


def _spread(points: np.ndarray) -> float:
    """Root mean square of ten numbers about the middle of the face, be they x and y by turns, or first all x."""
    grouped = points.reshape(5, 2), points.reshape(2, 5).T
    return float(min(np.sqrt(np.square(form - form.mean(0)).mean()) for form in grouped))


def _place(face: Face) -> str:
    return os.path.normpath(str(face.file))
