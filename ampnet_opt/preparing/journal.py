"""What a preparation has finished so far, on disk, so that an interrupted one resumes.

Each picture is written to images/.partial/, recorded here with its SHA-256, and then moved to images/. So no picture of a
preparation stands in images/ without a record, in the journal or in the finished table, and what has none is the user's.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.field_types import require_types
from ampnet_opt.core.files import require_new, sha256
from ampnet_opt.core.json_files import parse_json
from ampnet_opt.core.row_matching import IMAGES
from ampnet_opt.core.tables import NAME as TABLE
from ampnet_opt.core.text import listed, printable
from ampnet_opt.datasets.listing import JOURNAL, SKIPPED

PARTIAL = ".partial"  # in images/, so that moving a picture renames it
SUFFIX = ".jpg"  # of the pictures that are written
HASH = "image_sha256"  # column of the table


@dataclass(frozen=True)
class Outcome:
    """What became of one picture. rows: one for each face written, as they stand in the table, each beginning with the name
    of its image; hashes: SHA-256 of these images, which `Journal.add` fills in; reason, detail: why there are none."""

    name: str
    rows: list[list[str]] = field(default_factory=list)
    reason: str = ""
    detail: str = ""
    several: bool = False
    hashes: list[str] = field(default_factory=list)


class Journal:
    """The outcomes in an output folder, one line of JSON each below a line of settings, in the order of the data set."""

    def __init__(self, output: Path, settings: dict[str, Any], stems: Iterable[str], force: bool) -> None:
        """Begin in `output`, or go on with what was begun there with the same settings.

        stems: names, without suffix, of the images that may be written. force: begin anew, removing the tables of an earlier
        preparation and those of its images that are still as it wrote them. Raises MisuseError, with nothing changed, when a
        finished one is there, one of other settings was begun, or images/ holds files of others: any, or with `force` one
        whose name is needed.
        """
        self.path = output / JOURNAL
        self.images = output / IMAGES
        self.outcomes: list[Outcome] = []
        ours: list[Path] = []
        begun = self.path.is_file()
        if force:
            _require_own_table(output)
            ours = list(_written(output))
        elif begun:
            self._resume(settings)
        else:
            require_new(output / TABLE, force=False)
        self._require_free(set(stems), {file.name for file in ours}, alone=not begun and not (output / TABLE).exists())
        if force:
            _remove(output, ours)
        try:
            self.images.mkdir(parents=True, exist_ok=True)
            if self.outcomes:
                self._move(self.outcomes[-1])  # a run may have been killed before it did
            shutil.rmtree(self.images / PARTIAL, ignore_errors=True)
            (self.images / PARTIAL).mkdir()
            new = not self.path.exists()
            self._stream = open(self.path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115
        except OSError as error:
            raise AmpnetError(f"cannot write to {printable(output)}: {error.strerror or error}") from error
        if new:
            self._line(settings)

    def add(self, outcome: Outcome) -> None:
        """Record the outcome, then let its images appear. Raises AmpnetError when the disk is full."""
        partial = self.images / PARTIAL
        recorded = replace(outcome, hashes=[sha256(partial / name) for name, *_ in outcome.rows])
        self._line(asdict(recorded))
        self.outcomes.append(recorded)
        self._move(recorded)

    def close(self) -> None:
        self._stream.close()

    def remove(self) -> None:
        """What is left to do once the tables stand."""
        self.close()
        shutil.rmtree(self.images / PARTIAL, ignore_errors=True)
        self.path.unlink()

    def _move(self, outcome: Outcome) -> None:
        for name, *_ in outcome.rows:
            try:
                os.replace(self.images / PARTIAL / name, self.images / name)
            except FileNotFoundError:  # moved by the run that was killed afterwards
                continue
            except OSError as error:
                raise AmpnetError(f"cannot write {printable(self.images / name)}: {error.strerror or error}") from error

    def _require_free(self, stems: set[str], ours: set[str], alone: bool) -> None:
        """MisuseError when images/ holds files, other than `ours` and those of the journal, under names that are needed.

        alone: or under any name, there being no preparation that they may have been added to.
        """
        if not self.images.exists():
            return
        if not self.images.is_dir():
            raise MisuseError(f"{printable(self.images)} is a file; choose another output folder")
        recorded = ours | {row[0] for outcome in self.outcomes for row in outcome.rows} | {PARTIAL}
        foreign = sorted(entry.name for entry in os.scandir(self.images) if entry.name not in recorded)
        if foreign and alone:
            raise MisuseError(
                f"{printable(self.images)} is there already and not from a preparation; choose another output folder"
            )
        wanted = {stem.lower() for stem in stems}  # some file systems ignore case
        taken = [name for name in foreign if _stem(name).lower() in wanted]
        if taken:
            raise MisuseError(
                f"{printable(self.images)} holds files that no preparation wrote, or that were changed since, under names "
                f"that it needs: {listed(taken)}; move them away, or choose another output folder"
            )

    def _line(self, value: dict[str, Any]) -> None:
        try:
            self._stream.write(json.dumps(value) + "\n")
            self._stream.flush()  # from here on, no kill takes it back
        except OSError as error:
            raise AmpnetError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _resume(self, settings: dict[str, Any]) -> None:
        """Read the whole lines; a last one that was cut short goes."""
        with open(self.path, "rb") as stream:
            whole = stream.read().rpartition(b"\n")[0]
        if not whole:  # killed before the settings were written
            self.path.unlink()
            return
        try:
            head, *rest = whole.split(b"\n")
            first = parse_json(head)
            self.outcomes = [_outcome(line) for line in rest]
            differing = sorted(key for key in {*first, *settings} if first.get(key) != settings.get(key))
        except (ValueError, TypeError, AttributeError) as error:
            raise MisuseError(f"{self.path} is damaged; pass --force to begin anew") from error
        if differing:
            raise MisuseError(
                f"{self.path.parent} holds an unfinished preparation with another {' and '.join(differing)}; "
                "repeat its command to finish it, or pass --force to begin anew"
            )
        os.truncate(self.path, len(whole) + 1)


def _outcome(line: bytes) -> Outcome:
    """The outcome that a line of the journal records. Raises ValueError or TypeError when it records none."""
    outcome = Outcome(**parse_json(line))
    require_types(outcome, Outcome)
    if not all(row and _is_file_name(row[0]) for row in outcome.rows):
        raise ValueError("it has a row without the name of an image")
    return outcome


def _is_file_name(name: str) -> bool:
    """Whether a name leads nowhere else than into the folder it is looked up in."""
    return name.isprintable() and name not in ("", ".", "..") and not set(name) & set("/\\")


def _stem(name: str) -> str:
    """The stem of the picture that an image of this name would be of ("a+2.jpg" is the second face of "a")."""
    return re.sub(r"\+\d+$", "", name[: -len(SUFFIX)]) if name.lower().endswith(SUFFIX) else ""


def _require_own_table(output: Path) -> None:
    """MisuseError when the table in the folder has not the columns of a preparation's: it may be anybody's work."""
    table = output / TABLE
    if table.exists() and "detector_score" not in _columns(table):
        raise MisuseError(
            f"{printable(table)} was not written by prepare, so --force keeps it; choose another output folder"
        )


def _columns(table: Path) -> list[str]:
    with contextlib.suppress(OSError, ValueError, csv.Error), open(table, newline="", encoding="utf-8-sig") as stream:
        return next(csv.reader(stream), [])
    return []


def _records(output: Path) -> Iterator[tuple[str, str]]:
    """Names of images with the SHA-256 that they were written with, from the table and the journal, as far as readable."""
    with contextlib.suppress(OSError, ValueError, csv.Error), open(
        output / TABLE, newline="", encoding="utf-8-sig"
    ) as stream:
        for row in csv.DictReader(stream):
            yield row.get("file") or "", row.get(HASH) or ""
    with contextlib.suppress(OSError, ValueError, TypeError), open(output / JOURNAL, "rb") as lines:
        next(lines, b"")
        for line in lines:
            outcome = _outcome(line)
            yield from zip((row[0] for row in outcome.rows), outcome.hashes, strict=False)


def _written(output: Path) -> Iterator[Path]:
    """The images that an earlier preparation recorded and that are still the bytes it wrote.

    A record may have been edited: nothing outside images/ is looked at, no link is followed.
    """
    for name, digest in dict(_records(output)).items():
        if not _is_file_name(name):
            continue
        file = output / IMAGES / name
        with contextlib.suppress(OSError, ValueError):
            if stat.S_ISREG(os.lstat(file).st_mode) and sha256(file) == digest:
                yield file


def _remove(output: Path, images: Iterable[Path]) -> None:
    """Remove these images, and the tables and journal of a preparation."""
    if not (output / TABLE).exists() and not (output / JOURNAL).exists():
        return  # a skipped.csv alone is not known to be ours
    try:
        for image in images:
            image.unlink(missing_ok=True)
        for name in (TABLE, SKIPPED, JOURNAL):  # last, so that a run that is killed here can be repeated
            (output / name).unlink(missing_ok=True)
    except OSError as error:
        raise AmpnetError(f"cannot remove {printable(error.filename)}: {error.strerror or error}") from error
