"""What a preparation has finished so far, on disk, so that a killed one goes on where it stopped. Standard library only."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ampnet_opt.errors import AmpnetError, MisuseError
from ampnet_opt.files import require_new
from ampnet_opt.json_files import parse_json

TABLE, SKIPPED, JOURNAL, IMAGES = "faces.csv", "skipped.csv", "faces.partial.jsonl", "images"


@dataclass(frozen=True)
class Outcome:
    """What became of one picture. rows: one for each face written, as they stand in the table; reason, detail: why none."""

    name: str
    rows: list[list[str]] = field(default_factory=list)
    reason: str = ""
    detail: str = ""
    several: bool = False


class Journal:
    """The outcomes in an output folder, one line of JSON each below a line of settings, in the order of the data set."""

    def __init__(self, output: Path, settings: dict[str, Any], force: bool) -> None:
        """Begin in `output`, or go on with what was begun there with the same settings.

        force: begin anew, removing the tables and pictures of an earlier preparation. Raises MisuseError when a finished
        one is there, one of other settings was begun, or its folder of pictures holds others.
        """
        self.path = output / JOURNAL
        self.outcomes: list[Outcome] = []
        images = output / IMAGES
        if force:
            _clear(output)
        if self.path.exists():
            self._resume(settings)
        else:
            require_new(output / TABLE, force=False)
            if images.exists() and (not images.is_dir() or any(images.iterdir())):
                raise MisuseError(f"{images} is there already and not from a preparation; choose another output folder")
        try:
            images.mkdir(parents=True, exist_ok=True)
            for left in images.glob(".*.jpg"):  # new_file's temporaries, which a killed run was writing
                left.unlink(missing_ok=True)
            new = not self.path.exists()
            self._stream = open(self.path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115
        except OSError as error:
            raise AmpnetError(f"cannot write to {output}: {error.strerror or error}") from error
        if new:
            self._line(settings)

    def add(self, outcome: Outcome) -> None:
        """Raises AmpnetError when the disk is full."""
        self._line(asdict(outcome))
        self.outcomes.append(outcome)

    def close(self) -> None:
        self._stream.close()

    def remove(self) -> None:
        """What is left to do once the tables stand."""
        self.close()
        self.path.unlink()

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
            first, *rest = (parse_json(line) for line in whole.split(b"\n"))
            self.outcomes = [Outcome(**line) for line in rest]
            differing = sorted(key for key in {*first, *settings} if first.get(key) != settings.get(key))
        except (ValueError, TypeError, AttributeError) as error:
            raise MisuseError(f"{self.path} is damaged; pass --force to begin anew") from error
        if differing:
            raise MisuseError(
                f"{self.path.parent} holds an unfinished preparation with another {' and '.join(differing)}; "
                "repeat its command to finish it, or pass --force to begin anew"
            )
        os.truncate(self.path, len(whole) + 1)


def _clear(output: Path) -> None:
    """Remove what a preparation wrote, if one did: its journal or table is there."""
    written = [output / name for name in (TABLE, SKIPPED, JOURNAL)]
    if not (written[0].is_file() or written[2].is_file()):
        return
    try:
        for image in (output / IMAGES).glob("*.jpg"):
            image.unlink()
        for table in written:  # last, so that a run that is killed here can be repeated
            table.unlink(missing_ok=True)
    except OSError as error:
        raise AmpnetError(f"cannot remove {error.filename}: {error.strerror or error}") from error
