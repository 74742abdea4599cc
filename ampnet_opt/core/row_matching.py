"""Which row of a table is a picture's: by path, never by guess. Standard library only."""

from __future__ import annotations

import filecmp
import os
import unicodedata
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.text import listed

IMAGES = "images"  # the folder beside a table


def picture_folders(folder: Path) -> List[Path]:
    """Where pictures of a table in `folder` may lie, in the order in which they are looked for: images/, and beside it."""
    inside = folder / IMAGES
    return [inside, folder] if inside.is_dir() else [folder]


def own_picture(places: Sequence[Path], name: str) -> Path:
    """Where the picture that a row calls `name` lies, in one of `picture_folders`.

    A name may be spelt in either normal form of Unicode. Where there is none, the place where it is expected.
    """
    first = places[0] / name
    if os.path.exists(first):  # false of names that are too long for files, too
        return first
    for place in places:
        for form in (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)):
            if os.path.exists(place / form):
                return place / form
    return first


def rows_of(pictures: Sequence[Path], files: Sequence[str], folder: Path, table: str) -> List[List[int]]:
    """For each picture, its rows: one, or several of the same file; which are equal is for the caller to see.

    files: the column `file` of the table in `folder`. A row is a picture's when it names that file; otherwise the row whose
    path has most folders in common with the picture's, from the end, if no other picture has as many. A row whose own
    picture exists and differs from the one asked for is not its row. Raises MisuseError for pictures without a row and for
    ambiguity, naming both sides.
    """
    folders = picture_folders(folder)
    paths = [Path(_normal(str(picture))).parts for picture in pictures]
    wanted = {parts[-1] for parts in paths if parts}
    places: Dict[str, List[int]] = {}
    parts_of: Dict[int, Tuple[str, ...]] = {}
    for row, file in enumerate(files):
        parts = Path(_normal(file)).parts
        if parts and parts[-1] in wanted:
            places.setdefault(parts[-1], []).append(row)
            parts_of[row] = parts
    found: List[List[int]] = []
    bare: Dict[int, Path] = {}  # rows that were found by a part of their path, with their picture
    missing: List[str] = []
    reasons: List[str] = []
    for picture, parts in zip(pictures, paths):
        candidates = places.get(parts[-1], []) if parts else []
        own = {row: own_picture(folders, files[row]) for row in candidates}
        same = [row for row in candidates if _same(own[row], picture)]
        if not same:
            free = [row for row in candidates if not os.path.isfile(own[row]) or _equal(own[row], picture)]
            same = _longest(picture, parts, free, parts_of=parts_of, files=files, table=table)
            if not same:
                missing.append(str(picture))
                reasons += [_not_its_own(table, own[row], picture) for row in candidates[:1]]
            elif bare.setdefault(same[0], picture) != picture:
                raise MisuseError(
                    f"{table} has one row {files[same[0]]} for {bare[same[0]]} and {picture}: "
                    "give the folders too in the column file"
                )
        found.append(same)
    if missing:
        raise MisuseError(reasons[0] if reasons else f"{table} has no landmarks for {listed(missing, 1)}")
    return found


def _longest(
    picture: Path,
    parts: Tuple[str, ...],
    rows: Sequence[int],
    *,
    parts_of: Dict[int, Tuple[str, ...]],
    files: Sequence[str],
    table: str,
) -> List[int]:
    """The rows whose paths have most parts in common with the picture's, which must be one file."""
    common = {row: _in_common(parts, parts_of[row]) for row in rows}
    best = [row for row in rows if common[row] == max(common.values())]
    different = sorted({files[row] for row in best})
    if len(different) > 1:
        raise MisuseError(f"{table} has the rows {listed(different, 2)}, and which is for {picture} cannot be told")
    return best


def _in_common(one: Tuple[str, ...], other: Tuple[str, ...]) -> int:
    count = 0
    for a, b in zip(reversed(one), reversed(other)):
        if a != b:
            break
        count += 1
    return count


def _not_its_own(table: str, own: Path, picture: Path) -> str:
    return (
        f"the landmarks in {table} are those of {own}, which is not the picture {picture}; "
        f"ask for {own if own.parent.name != IMAGES else own.parent} instead"
    )


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # ValueError: a zero byte in a name
        return False


def _equal(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def source_of(sources: Sequence[str], pictures: Sequence[Path]) -> Optional[Path]:
    """The first of the pictures that the faces of a table were cut out of, by name."""
    names = {Path(_normal(source)).name for source in sources if source}
    return next((picture for picture in pictures if Path(_normal(str(picture))).name in names), None)
