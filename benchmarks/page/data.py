"""What a page shows beyond a report: confusion matrices, paired answers, the faces that moved most, activations."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ampnet_opt.benchmarks.compare import Report
from ampnet_opt.calibration.histogram import Histogram
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.metrics import confusion_matrix, softmax
from ampnet_opt.core.text import printable
from ampnet_opt.faces.face import Face, load_batches
from ampnet_opt.sensitivity.analysis import Sensitivity

MOST_FACES = 24  # on a page, shared by its INT8 engines
PICTURE = 96  # pixels a side
QUALITY = 82  # of the JPEG


@dataclass(frozen=True)
class Paired:
    """On how many faces the top-1 of reference and engine differ, by who is right; `neither`: two different errors."""

    only_reference: int
    only_engine: int
    neither: int


@dataclass(frozen=True)
class Answer:
    name: str
    probability: float


@dataclass(frozen=True)
class Moved:
    """A face on which an engine differs from the reference. name: of its file.

    apart: the class whose probability moved most. difference: engine minus reference. picture: JPEG, None if left out.
    """

    name: str
    label: str
    reference: Answer
    engine: Answer
    apart: str
    difference: float
    picture: bytes | None


@dataclass(frozen=True)
class Activation:
    """Magnitudes of a tensor that `layer` reads, on `faces` faces, and the range that `engine` covers with INT8."""

    layer: str
    tensor: str
    engine: str
    faces: int
    histogram: Histogram
    covered: float

    @property
    def clipped(self) -> float:
        """Share of the values other than zero that are beyond the range, to the width of a bin."""
        counts, width = self.histogram.counts, self.histogram.width
        return float(counts[int(np.ceil(self.covered / width)) :].sum() / max(counts.sum(), 1)) if width else 0.0


@dataclass(frozen=True)
class Page:
    """Everything on a page. confusions, paired: one for each result of the report. moved: by the name of an INT8 engine."""

    report: Report
    confusions: list[np.ndarray]
    paired: list[Paired]
    moved: dict[str, list[Moved]]
    pictures: bool
    sensitivity: Sensitivity | None = None
    activations: Sequence[Activation] = ()


def page_of(
    report: Report,
    logits: Sequence[np.ndarray],
    labels: np.ndarray,
    faces: Sequence[Face],
    *,
    pictures: bool = True,
    sensitivity: Sensitivity | None = None,
    activations: Sequence[Activation] = (),
) -> Page:
    """logits: float32 [N, classes] of every result of the report. labels: int64 [N], of the same N faces.

    pictures: whether the faces go into the page; their names and answers do. Raises MisuseError for a sensitivity of
    another checkpoint.
    """
    if sensitivity is not None and sensitivity.checkpoint_sha256 != report.checkpoint_sha256:
        raise MisuseError(
            f"the sensitivity was measured on checkpoint {sensitivity.checkpoint_sha256[:12]}, but {report.checkpoint} is "
            f"{report.checkpoint_sha256[:12]}; measure it again with this checkpoint"
        )
    quantised = [i for i, result in enumerate(report.results) if result.precision == "int8"]
    share = MOST_FACES // max(len(quantised), 1)
    return Page(
        report,
        [confusion_matrix(labels, found.argmax(1), len(report.classes)) for found in logits],
        [paired(logits[0], found, labels) for found in logits],
        {
            report.results[i].name: moved(
                logits[0], logits[i], labels, faces, classes=report.classes, most=share, pictures=pictures
            )
            for i in quantised
        },
        pictures,
        sensitivity,
        activations,
    )


def paired(reference: np.ndarray, engine: np.ndarray, labels: np.ndarray) -> Paired:
    """Of two sets of logits, float32 [N, classes], against labels int [N]."""
    before, after = reference.argmax(1), engine.argmax(1)
    differ, was, now = before != after, before == labels, after == labels
    return Paired(int((differ & was).sum()), int((differ & now).sum()), int((differ & ~was & ~now).sum()))


def moved(
    reference: np.ndarray,
    engine: np.ndarray,
    labels: np.ndarray,
    faces: Sequence[Face],
    *,
    classes: Sequence[str],
    most: int,
    pictures: bool,
) -> list[Moved]:
    """The faces on which one probability differs most, the largest difference first."""
    before, after = softmax(reference), softmax(engine)
    difference = after - before
    order = np.argsort(-np.abs(difference).max(1), kind="stable")[:most]
    found = []
    for i in order:
        apart = int(np.abs(difference[i]).argmax())
        was, now = int(before[i].argmax()), int(after[i].argmax())
        found.append(
            Moved(
                printable(faces[i].file.name),
                classes[labels[i]],
                Answer(classes[was], float(before[i, was])),
                Answer(classes[now], float(after[i, now])),
                classes[apart],
                float(difference[i, apart]),
                thumbnail(faces[i]) if pictures else None,
            )
        )
    return found


def thumbnail(face: Face) -> bytes:
    """JPEG of the face as the network sees it, `PICTURE` pixels a side."""
    pixels = next(load_batches([face], 1))[0][0]
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((PICTURE, PICTURE), Image.Resampling.LANCZOS).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()
