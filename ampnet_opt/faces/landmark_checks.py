"""Whether five landmarks can be a face of their picture, and what becomes of a table's: pixels, an error or a warning.

A face is known by its shape, its place and its size. What cannot be one is refused with the likely cause; what is unlikely
is warned of. numpy and Pillow only.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.pictures import SMALLEST_SIDE, image_header
from ampnet_opt.core.text import one_line

if TYPE_CHECKING:
    from ampnet_opt.faces.landmark_formats import Form

log = logging.getLogger(__name__)

AUTO = "auto"  # form of landmarks: pixels, unless the table looks like another form: then it is refused

LOOKED_AT = 500  # pictures, spread evenly, whose size is read before they are; it takes 0.1 ms each
MOST = 0.5  # share of faces from which on it is the table that is wrong, not a row

# The mean of 5,981 real faces, eyes one apart: x to the right, y down, z towards the camera. Depths are those with which
# views of this one face come nearest to all of them.
MEAN_FACE = np.array(
    [[-0.5, -0.51, 0.0], [0.5, -0.51, 0.0], [0.0, 0.024, 0.55], [-0.424, 0.498, 0.14], [0.424, 0.498, 0.14]]
)
YAWS, PITCHES = range(-75, 76, 15), (-30, 0, 30)  # degrees of the views
# Of `shape_error`. The most of the 5,981 faces, profiles among them, is 0.051, of the drawn ones 0.033. Points in a wrong
# order have 0.36 to 0.7 at the median; of 5,981 faces whose points are in order, none reaches the second limit.
UNUSUAL, NO_FACE = 0.08, 0.12
SMALLEST = 4.0  # pixels; the points of a face of 16 pixels, the smallest picture, are 6 apart
TILTED = 60.0  # degrees; the most of the 5,981 faces is 45
OUTSIDE = 0.1  # of the points' extent
# The points of faces that fill their pictures, as the network was trained on: 0.19 to 0.67 of the longer side, 0.28 to
# 0.55 without the outermost thousandth; their centre from 0.2 to 0.75 of the width and from 0.38 to 0.7 of the height.
SMALL = 0.2
CENTRE = np.array([[0.15, 0.3], [0.85, 0.85]])


@dataclass(frozen=True)
class Given:
    """Landmarks [N, 5, 2] float32 as they were given, and what they belong to.

    source: what gives them, name: what row `i` is called, for messages. picture: where picture `i` lies, or its size
    (width, height) where that is known already.
    """

    source: str
    name: Callable[[int], str]
    points: np.ndarray
    picture: Callable[[int], Path | Tuple[int, int]]


def to_pixels(given: Given, form: str, strict: bool = True) -> np.ndarray:
    """The landmarks float32 [N, 5, 2] in pixels of the upright pictures, in our order; a warning when some are improbable.

    form: as `landmark_formats.parse_form` reads it. strict: refuse a single row with impossible landmarks, too. Raises
    MisuseError that names the first face with impossible landmarks and the likely cause, and for tables that look like
    another form than they were said to be; with a form that is named, improbable landmarks are never refused.
    """
    named, count = form_of(form), len(given.points)
    looked = np.arange(count) if named is not None and named.needs_size else _spread(count)
    sizes, orientations = np.full((count, 2), np.nan), np.ones(count, int)
    _look(given, looked, sizes, orientations)
    points = given.points if named is None else _converted(given.points, named, sizes, orientations)
    if not count:
        return points
    if named is None:
        _refuse_unrotated(given, points, sizes, orientations)
    bad = _rows_with(impossible(points, sizes))
    if bad:
        _look(given, np.array([row for row in bad if row not in set(looked.tolist())][:LOOKED_AT], int), sizes, orientations)
        _refuse_impossible(given, points, sizes, orientations, bad=bad, named=named, strict=strict)
    seen = np.array([row for row in looked if row not in set(bad)], int)
    reasons = improbable(points[seen], sizes[seen])
    odd = _rows_with(reasons)
    if named is None and len(odd) > MOST * len(seen):
        _refuse_other_form(given, points[seen], sizes[seen], orientations[seen], rows=seen, odd=odd, reasons=reasons)
    if odd:
        few = f"{len(odd)} of {len(seen)}{' ' if len(looked) == count else ' looked-at '}faces"
        small = "; ampnet-opt prepare cuts faces out" if "picture" in reasons[odd[0]] else ""
        log.warning(
            one_line(
                f"{given.source}: {few} have improbable landmarks, first {given.name(int(seen[odd[0]]))} "
                f"({reasons[odd[0]]}){small}"
            )
        )
    return points


def form_of(text: str) -> Optional[Form]:
    """As `landmark_formats.parse_form`, which is not imported where no form is named."""
    if text == AUTO:
        return None
    from ampnet_opt.faces.landmark_formats import parse_form

    return parse_form(text)


def _converted(points: np.ndarray, form: Form, sizes: np.ndarray, orientations: np.ndarray) -> np.ndarray:
    from ampnet_opt.faces.landmark_formats import convert, known_sizes

    return convert(points, form, known_sizes(sizes), orientations)


def size_of(file: Path) -> Tuple[float, float, int]:
    """Width and height of the upright picture and its EXIF orientation; (nan, nan, 1) for what is no picture."""
    try:
        (width, height), orientation = image_header(file)
    except AmpnetError:  # what cannot be read is refused when it is
        return np.nan, np.nan, 1
    if min(width, height) < SMALLEST_SIDE:
        return np.nan, np.nan, 1
    return width, height, orientation if orientation in range(1, 9) else 1


def _look(given: Given, rows: np.ndarray, sizes: np.ndarray, orientations: np.ndarray) -> None:
    for row in rows:
        picture = given.picture(int(row))
        if isinstance(picture, tuple):
            sizes[row] = picture
        else:
            *sizes[row], orientations[row] = size_of(picture)


def _refuse_unrotated(given: Given, points: np.ndarray, sizes: np.ndarray, orientations: np.ndarray) -> None:
    rotated = np.flatnonzero(orientations != 1)
    if not len(rotated):
        return
    from ampnet_opt.faces.landmark_formats import Form, convert

    form = Form("unrotated")
    as_stored = convert(points[rotated], form, sizes[rotated], orientations[rotated])
    wrong, right = ~_upright(points[rotated], sizes[rotated]), _upright(as_stored, sizes[rotated])
    if (wrong & right).sum() > MOST * len(rotated):
        raise MisuseError(_look_like(given, int(rotated[np.argmax(wrong & right)]), len(rotated), form, "not upright"))


def _upright(points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    shape, centre = shape_of(points), points.mean(1)
    inside = ((centre >= 0) & (centre <= sizes)).all(1)
    return np.asarray((shape.error <= NO_FACE) & (np.abs(shape.roll) <= TILTED) & inside)


def _refuse_impossible(
    given: Given,
    points: np.ndarray,
    sizes: np.ndarray,
    orientations: np.ndarray,
    *,
    bad: List[int],
    named: Optional[Form],
    strict: bool,
) -> None:
    reason = impossible(points[bad[:1]], sizes[bad[:1]])[0]
    if named is not None:
        if strict or len(bad) > MOST * len(points):
            raise MisuseError(_message(given, bad[0], len(bad), f"{reason}; they were read as {named.option}"))
        return
    from ampnet_opt.faces.landmark_formats import likely_slip

    most, part = len(bad) > MOST * len(points), bad[:LOOKED_AT]
    form = _likely_form(points[part], sizes[part], orientations[part]) if most else None
    if form is not None:
        raise MisuseError(_look_like(given, bad[0], len(bad), form, reason))
    if not (strict or most):
        return
    alone = _likely_form(points[bad[:1]], sizes[bad[:1]], orientations[bad[:1]])
    cause = likely_slip(points[bad[0]], sizes[bad[0]], typical) or ("" if alone is None else alone.words)
    raise MisuseError(_message(given, bad[0], len(bad), f"{reason}; the likely cause: {cause}" if cause else reason))


def _refuse_other_form(
    given: Given,
    points: np.ndarray,
    sizes: np.ndarray,
    orientations: np.ndarray,
    *,
    rows: np.ndarray,
    odd: List[int],
    reasons: List[str],
) -> None:
    form = _likely_form(points, sizes, orientations)
    if form is not None:
        words = _look_like(given, int(rows[odd[0]]), len(odd), form, reasons[odd[0]], kind="improbable")
        raise MisuseError(f"{words}, --landmarks-format pixels takes them as they are")


def _likely_form(points: np.ndarray, sizes: np.ndarray, orientations: np.ndarray) -> Optional[Form]:
    from ampnet_opt.faces.landmark_formats import likely_form

    return likely_form(points, sizes, orientations, typical=typical, shape_error=lambda moved: shape_of(moved).error)


def _look_like(given: Given, row: int, count: int, form: Form, reason: str, *, kind: str = "impossible") -> str:
    return (
        f"{_message(given, row, count, reason, kind)}; the likely cause: {form.words}; "
        f"--landmarks-format {form.option} converts them"
    )


def _message(given: Given, row: int, count: int, reason: str, kind: str = "impossible") -> str:
    many = f"{count} of {len(given.points)} faces have {kind} landmarks, first " if len(given.points) > 1 else ""
    single = "" if many else f"{kind} landmarks of "
    return f"{given.source}: {many}{single}{given.name(row)} ({reason})"


def _rows_with(reasons: Sequence[str]) -> List[int]:
    return [row for row, reason in enumerate(reasons) if reason]


def _spread(count: int) -> np.ndarray:
    few = min(count, LOOKED_AT)
    return np.arange(few) * count // max(few, 1)


class Shape(NamedTuple):
    """Of each face: how far it is from a face in any view, how far its mirror image is, and its roll in degrees."""

    error: np.ndarray
    mirrored_error: np.ndarray
    roll: np.ndarray


def shape_of(points: np.ndarray) -> Shape:
    """Full Procrustes distance, squared (0: equal, 1: nothing in common), to the nearest view of the mean face.

    points: [N, 5, 2]. A view is the mean face turned by yaw and pitch, seen by an orthographic camera; place, size and roll
    are free (Dryden and Mardia, "Statistical Shape Analysis", 2016, section 4.1: of complex numbers, 1 - |<view, points>|^2
    for unit vectors). Roll is clockwise from upright, -180 to 180. Equal points have the distance 1.
    """
    complex_points = points[..., 0].astype(np.float64) + 1j * points[..., 1].astype(np.float64)
    centred = complex_points - complex_points.mean(-1, keepdims=True)
    length = np.maximum((np.abs(centred) ** 2).sum(-1, keepdims=True), 1e-12)
    views = _views()
    direct, mirrored = centred @ views.conj().T, centred @ views.T
    nearest = np.abs(direct).argmax(-1)
    return Shape(
        (1 - np.abs(direct) ** 2 / length).min(-1),
        (1 - np.abs(mirrored) ** 2 / length).min(-1),
        np.degrees(np.angle(np.take_along_axis(direct, nearest[:, None], -1)[:, 0])),
    )


def impossible(points: np.ndarray, sizes: np.ndarray) -> List[str]:
    """Why the landmarks [N, 5, 2] of each face can be no face of its picture, "" if they can.

    sizes: (width, height) of the pictures [N, 2], NaN where unknown. Turned, large, small and cut-off faces are possible.
    """
    shape, extent, centre = shape_of(points), _extent(points), points.mean(1)
    return _first_of(
        [
            (extent < SMALLEST, f"all five points lie within {SMALLEST:g} pixels"),
            (((centre < 0) | (centre > sizes)).any(1), "most of the face lies outside the picture"),
            (
                (shape.error > NO_FACE) & (shape.mirrored_error <= NO_FACE),
                "only the mirror image of the points is a face",
            ),
            (shape.error > NO_FACE, "the points are a face from no side"),
        ],
        len(points),
    )


def improbable(points: np.ndarray, sizes: np.ndarray) -> List[str]:
    """What is unusual in the landmarks of each possible face, "" if nothing is; arguments as of `impossible`."""
    shape, extent, centre = shape_of(points), _extent(points), points.mean(1)
    rim = OUTSIDE * extent[:, None, None]
    return _first_of(
        [
            (np.abs(shape.roll) > 180 - TILTED, "the face is upside down"),
            (np.abs(shape.roll) > TILTED, "the face lies on its side"),
            (shape.error > UNUSUAL, "the face has an unusual shape"),
            (((points < -rim) | (points > sizes[:, None] + rim)).any((1, 2)), "points lie outside the picture"),
            (extent < SMALL * sizes.max(1), "the face is a small part of the picture"),
            (((centre < CENTRE[0] * sizes) | (centre > CENTRE[1] * sizes)).any(1), "the face is at the picture's edge"),
        ],
        len(points),
    )


def typical(points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether nothing is impossible or improbable, bool [N]."""
    return np.array([not (a or b) for a, b in zip(impossible(points, sizes), improbable(points, sizes))], bool)


def upright_fault(points: np.ndarray) -> str:
    """What keeps landmarks [5, 2] from being an upright face's, "" if nothing does.

    Left of each pair lies left of right; mouth below eyes; the nose between eyes and mouth in height, and in width not
    farther outside eyes and mouth than half the distance between their outermost points (0.4 is the most of 5,981 real
    faces, in profile).
    """
    (left_eye, right_eye, nose, left_mouth, right_mouth), outer = points, points[[0, 1, 3, 4], 0]
    if left_eye[0] >= right_eye[0] or left_mouth[0] >= right_mouth[0]:
        return "left and right are swapped"
    if not (left_eye[1] + right_eye[1]) / 2 < nose[1] < (left_mouth[1] + right_mouth[1]) / 2:
        return "eyes, nose and mouth do not follow from top to bottom"
    reach = (outer.max() - outer.min()) / 2
    if not outer.min() - reach <= nose[0] <= outer.max() + reach:
        return "the nose lies beside the face"
    return ""


@lru_cache(maxsize=None)
def _views() -> np.ndarray:
    """Complex [views, 5], each centred and of unit length."""
    yaw, pitch = (angle.ravel()[:, None] for angle in np.radians(np.meshgrid(YAWS, PITCHES)))
    x, y, z = MEAN_FACE.T
    depth = z * np.cos(yaw) - x * np.sin(yaw)
    views = x * np.cos(yaw) + z * np.sin(yaw) + 1j * (y * np.cos(pitch) + depth * np.sin(pitch))
    views -= views.mean(-1, keepdims=True)
    return np.asarray(views / np.sqrt((np.abs(views) ** 2).sum(-1, keepdims=True)))


def _extent(points: np.ndarray) -> np.ndarray:
    """The longer side of the box round the five points, in pixels [N]."""
    return np.asarray((points.max(1) - points.min(1)).max(1))


def _first_of(rules: List[Tuple[Any, str]], count: int) -> List[str]:
    reasons = [""] * count
    for broken, words in reversed(rules):
        for row in np.flatnonzero(broken):
            reasons[row] = words
    return reasons
