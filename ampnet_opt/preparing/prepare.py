"""The faces of a data set's pictures: found, cut out, scaled to 224 x 224, and written with their landmarks."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Iterable, Literal, Sequence

import numpy as np

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.files import PathLike, new_file, reserved
from ampnet_opt.core.processor import available_cores
from ampnet_opt.core.row_matching import IMAGES
from ampnet_opt.core.tables import NAME as TABLE
from ampnet_opt.core.text import printable, spreadsheet_cell
from ampnet_opt.datasets.labelled_picture import Picture, Skipped
from ampnet_opt.datasets.listing import SKIPPED
from ampnet_opt.detection.detector import load_detector
from ampnet_opt.faces.face import COLUMNS, ORIGIN, SIZE
from ampnet_opt.faces.landmark_checks import AUTO, Given, to_pixels
from ampnet_opt.preparing.crop import MARGIN
from ampnet_opt.preparing.journal import HASH, PARTIAL, Journal
from ampnet_opt.preparing.workers import Settings, Task, name_files, outcomes

HEAD = ["file", "label", "split", "detector_score", *COLUMNS, *SIZE, *ORIGIN, HASH]
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True)
class Prepared:
    """faces: rows of the table; skipped: pictures without a row, by reason; several: pictures with more than one face."""

    table: Path
    faces: int
    skipped: dict[str, int]
    several: int


def prepare(
    pictures: Sequence[Picture],
    output: PathLike,
    detector: PathLike | None = None,
    *,
    detector_backend: str | None = None,
    crop: bool = True,
    faces: Literal["largest", "all"] = "largest",
    workers: int | None = None,
    force: bool = False,
    form: str = AUTO,
    progress: Callable[[int], None] = lambda done: None,
    skipped: Sequence[Skipped] = (),
) -> Prepared:
    """Write faces.csv (which `ampnet_opt.faces.face.read_faces` reads), images/ and skipped.csv into the folder `output`.

    detector: YuNet's ONNX file, or the installed detector. detector_backend: that runs it, as of `load_detector`. crop:
    cut the face out; otherwise the whole picture is scaled to fit, and landmarks that the data set gives are taken,
    without a detector, from the form that they are in (see `landmark_formats`); those that cannot be a face's are skipped.
    When cropping, the detector's landmarks replace them, as an engine in use will see the detector's. faces: "all" writes
    more than one of a picture, the others as name+2.jpg, name+3.jpg. workers: processes, one per core unless given.
    progress: is called with how many pictures are done, those of an earlier run included. skipped: pictures that the data
    set's reader left out, which skipped.csv lists too. force: begin anew: tables of an earlier preparation go, and those
    of its images that are still as it wrote them; other files in images/ stay.

    An interrupted run resumes when it is repeated with the same input and settings. Raises MisuseError
    for a finished or different preparation in `output` unless force, and for files of others in images/ under names that are
    needed; locks.BusyError when another process writes to `output`; AmpnetError when no face is found, a package is missing,
    the disk is full or a process dies; KeyboardInterrupt with a message after Ctrl-C.
    """
    folder = Path(output)
    _check(pictures, folder, faces, workers)
    if not crop:
        pictures = _in_pixels(pictures, form)
    needs_detector = crop or any(picture.landmarks is None for picture in pictures)
    identity = ""
    if needs_detector:
        with contextlib.closing(load_detector(detector, backend=detector_backend)) as found:  # fails before processes start
            identity = found.identity
    settings = Settings(folder / IMAGES / PARTIAL, needs_detector, detector, detector_backend, crop, faces)
    stems = name_files(pictures)
    tasks = [Task(picture, stem) for picture, stem in zip(pictures, stems)]
    with reserved(folder / TABLE):
        journal = Journal(folder, _head(pictures, settings, identity), stems, force)
        try:
            done = len(journal.outcomes)
            progress(done)
            with contextlib.closing(outcomes(tasks[done:], settings, workers or available_cores())) as finished:
                for outcome in finished:
                    journal.add(outcome)
                    progress(len(journal.outcomes))
            return _finish(journal, folder, skipped)
        except KeyboardInterrupt:
            done = len(journal.outcomes)
            raise KeyboardInterrupt(
                f"stopped after {done} of {len(pictures)} pictures; the same command resumes there"
            ) from None
        finally:
            journal.close()


def _in_pixels(pictures: Sequence[Picture], form: str) -> list[Picture]:
    """The pictures with the landmarks that are given for them in pixels; errors and warnings as of `to_pixels`."""
    found = list(pictures)
    rows = [row for row, picture in enumerate(found) if picture.landmarks is not None]

    def place(row: int) -> Path | tuple[int, int]:
        picture = found[rows[row]]
        if picture.pixels is not None:
            return picture.pixels.shape[1], picture.pixels.shape[0]
        assert picture.file is not None
        return picture.file

    if rows:
        points = np.stack([found[row].landmarks for row in rows])  # type: ignore[misc]
        given = Given("the data set", lambda row: found[rows[row]].name, points, place)
        for row, moved in zip(rows, to_pixels(given, form, strict=False)):
            found[row] = replace(found[row], landmarks=moved)
    return found


def _check(pictures: Sequence[Picture], output: Path, faces: str, workers: int | None) -> None:
    if not pictures:
        raise MisuseError("there are no pictures to prepare")
    if faces not in ("largest", "all"):
        raise MisuseError(f"faces is 'largest' or 'all', not {faces!r}")
    if workers is not None and workers < 1:
        raise MisuseError(f"{workers} processes cannot work; at least 1 is needed")
    images = os.path.realpath(output / IMAGES)
    for folder in {picture.file.parent for picture in pictures if picture.file is not None}:
        if os.path.realpath(folder) == images:
            raise MisuseError(f"{folder} holds the pictures to prepare; choose another output folder than {output}")


def _head(pictures: Iterable[Picture], settings: Settings, identity: str) -> dict[str, Any]:
    """What must be equal for a run to go on: keys are the words of the message when it is not."""
    return {
        "detector": identity,
        "crop": MARGIN if settings.crop else None,
        "choice of faces": settings.faces,
        "set of pictures": _digest(pictures),
        "set of columns": HEAD,
    }


def _digest(pictures: Iterable[Picture]) -> str:
    """SHA-256 over names, labels, splits, landmarks and pixels; of files, size and time, as reading them would take long."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(repr((picture.name, picture.label, picture.split)).encode())
        if picture.landmarks is not None:
            digest.update(np.ascontiguousarray(picture.landmarks, "<f4").tobytes())
        if picture.pixels is not None:
            digest.update(repr(picture.pixels.shape).encode() + np.ascontiguousarray(picture.pixels).tobytes())
        elif picture.file is not None and picture.file.is_file():
            status = picture.file.stat()
            digest.update(repr((status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()


def _finish(journal: Journal, folder: Path, unread: Sequence[Skipped]) -> Prepared:
    found = journal.outcomes
    skipped = [*(Skipped(o.name, o.reason, o.detail) for o in found if not o.rows), *unread]
    rows = [[*row, digest] for outcome in found for row, digest in zip(outcome.rows, outcome.hashes)]
    reasons = dict(Counter(one.reason for one in skipped).most_common())
    _write(folder / SKIPPED, ["file", "reason", "detail"], ([one.name, one.reason, one.detail] for one in skipped))
    if not rows:
        journal.remove()
        counts = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
        raise AmpnetError(f"none of {len(found)} pictures gave a face ({counts}); {folder / SKIPPED} lists them")
    _write(folder / TABLE, HEAD, rows)
    journal.remove()
    return Prepared(folder / TABLE, len(rows), reasons, sum(outcome.several for outcome in found))


def _write(path: Path, head: list[str], rows: Iterable[list[str]]) -> None:
    with new_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([head, *([_cell(value) for value in row] for row in rows)])


def _cell(value: str) -> str:
    """A value of a table: names of files may hold anything but a zero byte, labels are names of folders."""
    return value if NUMBER.fullmatch(value) else spreadsheet_cell(printable(value))
