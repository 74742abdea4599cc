"""What the pipeline found of people whose truth is known: faces, landmarks, tracks and labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from ampnet_opt.faces.detection import overlap
from ampnet_opt.pipeline.frames import TrackedFace
from ampnet_opt.synthetic.video import TrueFace

SAME = 0.4  # the least intersection over union of a person's box and that of a face found
VISIBLE = 0.8  # the least share of a face that counts as visible


@dataclass(frozen=True)
class Score:
    """Attributes:
    frames: how many were scored.
    minutes: from the first frame to the last.
    visible: faces of which at least `VISIBLE` is seen and whose box has at least the least side, over all frames.
    found: those of them that were found.
    person_minutes: minutes that the found visible faces make up.
    landmark_error: mean distance of the five points from the truth, as a share of the distance between the eyes.
    constant: the same after each point's mean offset is taken off, in axes that lie along the eyes.
    switches: identity switches: a person's track differs from the last one it had (mismatches of CLEAR MOT, Bernardin and
        Stiefelhagen, 2008).
    label_changes: of the labels shown for persons, from one frame in which they are found and visible to the next such.
    true_label_changes: of their expressions, between the same frames.
    right_labels: share of the found visible faces whose label is the expression.
    false_faces: faces found where nobody is.
    """

    frames: int
    minutes: float
    visible: int
    found: int
    person_minutes: float
    landmark_error: float
    constant: float
    switches: int
    label_changes: int
    true_label_changes: int
    right_labels: float
    false_faces: int


@dataclass
class Scorer:
    """Takes frame after frame; `score` sums them up.

    classes: names, in the order of labels. least_side: pixels, below which a face need not be found.
    """

    classes: Sequence[str]
    least_side: float = 0.0
    _times: List[float] = field(default_factory=list)
    _visible: int = 0
    _offsets: List[np.ndarray] = field(default_factory=list)
    _right: int = 0
    _switches: int = 0
    _changes: int = 0
    _true_changes: int = 0
    _false: int = 0
    _tracks: Dict[int, Optional[int]] = field(default_factory=dict)
    _labels: Dict[int, Tuple[str, str]] = field(default_factory=dict)

    def add(self, time: float, faces: Sequence[TrackedFace], truth: Sequence[TrueFace]) -> None:
        """One frame, at a time in seconds."""
        self._times.append(time)
        pairs = self._pairs(faces, truth)
        self._false += len(faces) - len(pairs)
        for index, person in enumerate(truth):
            face = faces[pairs[index]] if index in pairs else None
            if face is not None:
                before = self._tracks.get(person.person, face.track)
                self._switches += before != face.track
                self._tracks[person.person] = face.track
            if person.visible >= VISIBLE and max(person.box[2:]) >= self.least_side:
                self._visible += 1
                if face is not None:
                    self._found(face, person)

    def _found(self, face: TrackedFace, person: TrueFace) -> None:
        self._offsets.append(_offsets(face.detection.landmarks, person.landmarks))
        label = self.classes[face.label]
        self._right += label == person.expression
        shown, true = self._labels.get(person.person, (label, person.expression))
        self._changes += shown != label
        self._true_changes += true != person.expression
        self._labels[person.person] = label, person.expression

    def _pairs(self, faces: Sequence[TrackedFace], truth: Sequence[TrueFace]) -> Dict[int, int]:
        """Indices of persons with those of their faces: first who has kept his track, then by overlap (CLEAR MOT)."""
        candidates = [
            (self._tracks.get(person.person, -1) != face.track, -overlap(person.box, face.detection.box), i, j)
            for i, person in enumerate(truth)
            for j, face in enumerate(faces)
            if person.visible > 0 and overlap(person.box, face.detection.box) >= SAME
        ]
        pairs: Dict[int, int] = {}
        for _, _, i, j in sorted(candidates):
            if i not in pairs and j not in pairs.values():
                pairs[i] = j
        return pairs

    def score(self) -> Score:
        """The sums so far; shares are NaN where there is nothing to take a share of."""
        gap = float(np.median(np.diff(self._times))) if len(self._times) > 1 else 0.0
        offsets, found = np.array(self._offsets).reshape(-1, 5, 2), len(self._offsets)
        lone = offsets - offsets.mean(axis=0) if found else offsets
        return Score(
            frames=len(self._times),
            minutes=(self._times[-1] - self._times[0] + gap) / 60 if self._times else 0.0,
            visible=self._visible,
            found=found,
            person_minutes=found * gap / 60,
            landmark_error=float(np.linalg.norm(offsets, axis=2).mean()) if found else float("nan"),
            constant=float(np.linalg.norm(lone, axis=2).mean()) if found else float("nan"),
            switches=self._switches,
            label_changes=self._changes,
            true_label_changes=self._true_changes,
            right_labels=self._right / found if found else float("nan"),
            false_faces=self._false,
        )


def _offsets(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Where points [5, 2] lie from the true ones, in eye distances: along the line of the eyes, and across it."""
    along = true[1].astype(np.float64) - true[0]
    apart = max(float(np.hypot(*along)), 1e-6)
    x, y = along / apart
    return np.asarray((found - true) @ np.array([[x, -y], [y, x]]) / apart)
