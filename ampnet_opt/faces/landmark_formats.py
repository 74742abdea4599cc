"""Forms that landmarks are passed on in, to pixels and our order; and which form a table looks like. numpy only.

Ours: (x, y) in pixels of the upright picture, (0, 0) its top left corner; eyes, nose, corners of the mouth, left before
right, left and right being the image's.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.text import one_line

# Each with what a table in it holds, in words.
UNITS = {
    "pixels": "pixels of the picture",
    "normalised": "coordinates from 0 to 1",
    "signed": "coordinates from -1 to 1",
    "percent": "per cent of the picture's sides",
    "of-224": "pixels of the picture scaled to 224 x 224",
    "unrotated": "pixels of the picture before its EXIF orientation is applied",
}
ORDERS = {  # as they are undone, one after the other
    "five-x-five-y": "five x stand before five y",
    "yx": "y stands before x",
    "nose-first": "the nose comes before the eyes",
    "nose-last": "the nose comes after the mouth",
    "mouth-first": "the mouth comes before the eyes",
    "subject": "left and right are the person's, not the image's (or the picture was mirrored, its points were not)",
    "y-up": "y counts from the bottom",
}
# Which given point is ours.
POINT_ORDERS: Dict[str, Sequence[int]] = {
    "subject": [1, 0, 2, 4, 3],
    "mouth-first": [3, 4, 2, 0, 1],
    "nose-first": [1, 2, 0, 3, 4],
    "nose-last": [0, 1, 4, 2, 3],
}
# Slips that no option undoes: they are told, not converted.
SLIPS: Dict[str, Tuple[Sequence[int], str]] = {
    "eyes": ([1, 0, 2, 3, 4], "left and right eye are swapped"),
    "mouth": ([0, 1, 2, 4, 3], "left and right corner of the mouth are swapped"),
}
# The size of a picture that could not be looked at, to try forms with.
UNKNOWN = 224.0
CONVINCING = 0.9  # share of faces that a form has to make typical
# Of landmarks [N, 5, 2] and the pictures' (width, height) [N, 2], NaN where unknown: whether each is a usual face, bool [N].
Typical = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Form:
    """unit: of UNITS; orders: of ORDERS."""

    unit: str = "pixels"
    orders: Tuple[str, ...] = ()

    @property
    def option(self) -> str:
        """As `--landmarks-format` takes it."""
        return ",".join([*([self.unit] if self.unit != "pixels" or not self.orders else []), *self.orders])

    @property
    def words(self) -> str:
        return " and ".join([*([UNITS[self.unit]] if self.unit != "pixels" else []), *(ORDERS[o] for o in self.orders)])

    @property
    def needs_size(self) -> bool:
        return self.unit != "pixels" or "y-up" in self.orders


def parse_form(text: str) -> Form:
    """The form that `--landmarks-format` names, by commas, but auto. Raises MisuseError for others."""
    words = [word.strip() for word in text.split(",")]
    units, orders = [word for word in words if word in UNITS], tuple(order for order in ORDERS if order in words)
    if len(units) + len(orders) != len(words) or len(units) > 1:
        raise MisuseError(
            f"--landmarks-format takes auto, or by commas one of {', '.join(UNITS)} and any of {', '.join(ORDERS)}, "
            f"not {one_line(text, 80)!r}"
        )
    return Form(units[0] if units else "pixels", orders)


def convert(points: np.ndarray, form: Form, sizes: np.ndarray, orientations: np.ndarray) -> np.ndarray:
    """Landmarks [N, 5, 2] in pixels and our order, from those in `form`.

    sizes: (width, height) of the upright pictures, float [N, 2]; orientations: their EXIF orientations, int [N], 1 where
    there is none. Both are looked at only by what needs them.
    """
    found, scale = points.astype(np.float64), sizes[:, None]
    for order in form.orders:
        if order == "five-x-five-y":
            found = found.reshape(-1, 2, 5).swapaxes(1, 2)
        elif order == "yx":
            found = found[..., ::-1]
        elif order != "y-up":
            found = found[:, POINT_ORDERS[order]]
    if form.unit == "normalised":
        found = found * scale
    elif form.unit == "signed":
        found = (found + 1) / 2 * scale
    elif form.unit == "percent":
        found = found / 100 * scale
    elif form.unit == "of-224":
        found = found / 224 * scale
    elif form.unit == "unrotated":
        found = np.stack([upright(*each) for each in zip(found, sizes, orientations)]) if len(found) else found
    if "y-up" in form.orders:
        found = np.stack([found[..., 0], scale[..., 1] - found[..., 1]], -1)
    return found.astype(np.float32)


def known_sizes(sizes: np.ndarray) -> np.ndarray:
    """The sizes [N, 2], with `UNKNOWN` for those that are NaN."""
    return np.where(np.isfinite(sizes), sizes, UNKNOWN)


def upright(points: np.ndarray, size: np.ndarray, orientation: int) -> np.ndarray:
    """Points [5, 2] of a picture as it is stored, moved to where its EXIF orientation (1 to 8) puts them.

    size: (width, height) of the upright picture.
    """
    (x, y), (width, height) = points.T, size
    moved = {
        2: (width - x, y),
        3: (width - x, height - y),
        4: (x, height - y),
        5: (y, x),
        6: (width - y, x),
        7: (width - y, height - x),
        8: (y, height - x),
    }.get(int(orientation), (x, y))
    return np.stack(moved, -1)


def likely_form(
    points: np.ndarray,
    sizes: np.ndarray,
    orientations: np.ndarray,
    *,
    typical: Typical,
    shape_error: Callable[[np.ndarray], np.ndarray],
) -> Optional[Form]:
    """The form, other than ours, that makes at least nine in ten of the faces [N, 5, 2] typical, or None.

    Of several, the one whose faces are nearest to a face's shape, by `shape_error` of landmarks [N, 5, 2].
    """
    known = known_sizes(sizes)
    best: Optional[Form] = None
    least = np.inf
    for form in _candidates(bool((orientations != 1).any())):
        moved = convert(points, form, known, orientations)
        if typical(moved, known).mean() >= CONVINCING:
            error = float(shape_error(moved).mean()) + 1e-4 * len(form.orders)
            if error < least:
                best, least = form, error
    return best


def likely_slip(points: np.ndarray, sizes: np.ndarray, typical: Typical) -> str:
    """What else happened to the points of one face [5, 2], in words, "" if it cannot be told. sizes: [2]."""
    batch, known = points[None], np.where(np.isfinite(sizes), sizes, np.inf)[None]
    if len(np.unique(points)) == 1:
        return "no face was found" if points[0, 0] in (-1, 0) else ""
    for order, words in SLIPS.values():
        if typical(batch[:, order], np.full((1, 2), np.nan)).all():
            return words
    if (batch.mean(1) > known).any() and (batch >= 0).all():
        return "pixels of a larger picture, before it was scaled or cut out"
    return ""


def _candidates(rotated: bool) -> List[Form]:
    units = [unit for unit in UNITS if unit != "unrotated"]
    orders: List[Tuple[str, ...]] = [(), *((order,) for order in ORDERS)]
    orders += [("mouth-first", "subject"), ("five-x-five-y", "subject")]
    forms = [Form(unit, each) for unit, each in product(units, orders) if unit != "pixels" or each]
    return [Form("unrotated"), *forms] if rotated else forms
