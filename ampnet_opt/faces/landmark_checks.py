"""Landmarks that a table gives: to pixels of the pictures, or refused with the likely cause, or warned of.

numpy and Pillow only.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, List, Optional, Sequence, Tuple

import numpy as np

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.pictures import SMALLEST_SIDE, image_header
from ampnet_opt.core.text import one_line
from ampnet_opt.faces.plausibility import NO_FACE, TILTED, impossible, improbable, shape_of

if TYPE_CHECKING:
    from ampnet_opt.faces.landmark_formats import Form

log = logging.getLogger(__name__)

AUTO = "auto"  # form of landmarks: pixels, unless the table looks like another form: then it is refused

LOOKED_AT = 500  # pictures, spread evenly, whose size is read before they are; it takes 0.1 ms each
MOST = 0.5  # share of faces from which on it is the table that is wrong, not a row


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
    from ampnet_opt.faces.landmark_formats import likely_form, likely_slip

    most, part = len(bad) > MOST * len(points), bad[:LOOKED_AT]
    form = likely_form(points[part], sizes[part], orientations[part]) if most else None
    if form is not None:
        raise MisuseError(_look_like(given, bad[0], len(bad), form, reason))
    if not (strict or most):
        return
    alone = likely_form(points[bad[:1]], sizes[bad[:1]], orientations[bad[:1]])
    cause = likely_slip(points[bad[0]], sizes[bad[0]]) or ("" if alone is None else alone.words)
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
    from ampnet_opt.faces.landmark_formats import likely_form

    form = likely_form(points, sizes, orientations)
    if form is not None:
        words = _look_like(given, int(rows[odd[0]]), len(odd), form, reasons[odd[0]], kind="improbable")
        raise MisuseError(f"{words}, --landmarks-format pixels takes them as they are")


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
