"""Results of the pipeline as text: JSON lines and CSV, written frame by frame, so that what is there is always complete.

A JSON line is a frame:

    {"format": "ampnet-opt-faces/1", "frame": 12, "time": 0.48, "file": null, "faces": [{"track": 1, "label": "happiness",
     "box": [x, y, width, height], "score": 0.98, "landmarks": [[x, y], ...], "probabilities": {class: p, ...},
     "smoothed": {class: p, ...}}], "rejected": [{"box": [...], "score": 0.71, "reason": "..."}]}

A row of the CSV is a face, with the columns of a table of faces (file, and the five landmarks), so that `--landmarks` takes
it where each picture has one face. Pixels are those of the picture or video frame, times are seconds from the first frame.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import PathLike
from ampnet_opt.core.text import printable, spreadsheet_cell
from ampnet_opt.faces.face import COLUMNS
from ampnet_opt.pipeline.frames import FrameResult, TrackedFace

FORMAT = "ampnet-opt-faces/1"


class Lines:
    """A text file to which whole lines are added; a line that the disk has no room for leaves nothing of itself.

    A FIFO or device takes them, too, but gives nothing back.
    """

    def __init__(self, path: PathLike) -> None:
        """What is there, of an earlier run, stays until `begin`. Raises AmpnetError when the file cannot be made."""
        self.path = Path(path)
        self._length = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._begun, self._made = False, not self.path.exists()
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise AmpnetError(f"cannot write {printable(self.path)}: {error.strerror}") from error

    def begin(self) -> None:
        """Remove what is there, before the first line at the latest."""
        self._begun = True
        self._cut()

    def add(self, text: str) -> None:
        """Add text that ends with a line. Raises AmpnetError when the system refuses it."""
        if not self._begun:
            self.begin()
        data, written = text.encode("utf-8"), 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError as error:
            kept = "; the lines before are kept" if self._cut() else ""
            raise AmpnetError(f"cannot write on in {printable(self.path)}: {error.strerror}{kept}") from error
        except BaseException:
            self._cut()
            raise
        self._length += written

    def _cut(self) -> bool:
        """Remove what is behind the whole lines of this run; whether that could be done."""
        try:
            os.ftruncate(self._descriptor, self._length)
            os.lseek(self._descriptor, self._length, os.SEEK_SET)
        except OSError:  # no regular file, which shall not hide what is wrong with it
            return False
        return True

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            if self._made and not self._begun:
                self.path.unlink()


class JsonLines:
    """Writes a line of JSON a frame."""

    def __init__(self, lines: Lines, classes: Sequence[str]) -> None:
        self._lines, self._classes = lines, list(classes)

    def begin(self) -> None:
        self._lines.begin()

    def write(self, result: FrameResult) -> None:
        self._lines.add(json.dumps(as_dict(result, self._classes)) + "\n")

    def close(self) -> None:
        self._lines.close()


class FaceTable:
    """Writes a row of CSV a face.

    Columns: frame, time, file, track, label, its smoothed probability, score, box_x, box_y, box_width, box_height,
    the ten coordinates of the landmarks, raw_CLASS and smoothed_CLASS for each class.
    """

    def __init__(self, lines: Lines, classes: Sequence[str]) -> None:
        self._lines, self._classes = lines, list(classes)

    def begin(self) -> None:
        self._lines.begin()
        raw, smoothed = ([f"{kind}_{name}" for name in self._classes] for kind in ("raw", "smoothed"))
        head = ["frame", "time", "file", "track", "label", "probability", "score"]
        boxes = ["box_x", "box_y", "box_width", "box_height"]
        self._row([*head, *boxes, *COLUMNS, *raw, *smoothed])

    def write(self, result: FrameResult) -> None:
        frame = result.frame
        for face in result.faces:
            found, scale = face.detection, frame.scale
            self._row(
                [
                    *(frame.index, f"{frame.time:.3f}", spreadsheet_cell(printable(frame.name))),
                    *("" if face.track is None else face.track, spreadsheet_cell(printable(self._classes[face.label]))),
                    *(f"{face.smoothed[face.label]:.4f}", f"{found.score:.3f}"),
                    *(f"{value * scale:.1f}" for value in (*found.box, *found.landmarks.ravel())),
                    *(f"{value:.4f}" for value in (*face.probabilities, *face.smoothed)),
                ]
            )

    def close(self) -> None:
        self._lines.close()

    def _row(self, values: Sequence[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        self._lines.add(text.getvalue())


def as_dict(result: FrameResult, classes: Sequence[str]) -> Dict[str, Any]:
    """A frame's results as the module's JSON has them."""
    frame = result.frame
    rejected = [
        {"box": _numbers(face.box, frame.scale), "score": _finite(float(face.score), 4), "reason": reason}
        for face, reason in result.rejected
    ]
    return {
        "format": FORMAT,
        "frame": frame.index,
        "time": round(frame.time, 6),
        "file": frame.name or None,
        "faces": [_face(face, frame.scale, classes) for face in result.faces],
        "rejected": rejected,
    }


def _face(face: TrackedFace, scale: float, classes: Sequence[str]) -> Dict[str, Any]:
    found = face.detection
    return {
        "track": face.track,
        "label": classes[face.label],
        "box": _numbers(found.box, scale),
        "score": _finite(float(found.score), 4),
        "landmarks": [_numbers(point, scale) for point in found.landmarks],
        "probabilities": _shares(face.probabilities, classes),
        "smoothed": _shares(face.smoothed, classes),
    }


def _numbers(values: Any, scale: float) -> List[Optional[float]]:
    return [_finite(float(value) * scale, 2) for value in values]


def _shares(values: np.ndarray, classes: Sequence[str]) -> Dict[str, Optional[float]]:
    return {name: _finite(float(value), 6) for name, value in zip(classes, values)}


def _finite(value: float, digits: int) -> Optional[float]:
    """The number rounded; None, JSON's null, for infinity and not-a-number, which JSON has no words for."""
    return round(value, digits) if math.isfinite(value) else None
