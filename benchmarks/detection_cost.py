"""What detection costs in accuracy: labelled pictures with faces as `ampnet-opt run` finds and cuts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Tuple

import numpy as np

from ampnet_opt.core.metrics import Estimate, wilson
from ampnet_opt.core.pictures import opened_photo
from ampnet_opt.detection.detector import Detector
from ampnet_opt.faces.detection import Detection
from ampnet_opt.faces.face import Face, require_size
from ampnet_opt.preparing.crop import crop, implausible

NEAR = 0.5  # eye distances, mean over the five points: farther off, a face that was found is another one


@dataclass(frozen=True)
class FoundFaces:
    """The faces of a data set that the detector finds.

    Attributes:
        detector: its identity.
        found: share of the labelled faces that were found.
        landmark_error: mean distance of their landmarks from the data set's, in distances between the eyes; None if none
            is found.
    """

    detector: str
    found: Estimate
    landmark_error: float | None


@dataclass(frozen=True)
class DetectedScores:
    """One subject's answers for detected faces. top1: over all faces; one that is not found counts as wrong.

    same_top1: share of the found faces with the same answer as for the data set's landmarks; None if none is found.
    """

    top1: Estimate
    same_top1: Estimate | None


@dataclass(frozen=True)
class Detected:
    """What was found, and the scores of each subject of a comparison, in its order."""

    faces: FoundFaces
    scores: list[DetectedScores]


def detected_scores(
    detector: Detector,
    faces: Sequence[Face],
    labels: np.ndarray,
    given: Sequence[np.ndarray],
    infer: Sequence[Callable[[np.ndarray, np.ndarray], np.ndarray]],
    *,
    batch: int,
    progress: Callable[[int], None],
) -> Detected:
    """Score every subject on faces as the detector finds them, each beside its answers for the given landmarks.

    Args:
        detector: that `run` would use.
        faces: labelled, with the data set's landmarks.
        labels: int64 [N], index of each face's class.
        given: logits float32 [N, classes] of each subject for the data set's landmarks.
        infer: each subject's logits of images uint8 [n, 224, 224, 3] and landmarks float32 [n, 5, 2].
        batch: faces of an inference.
        progress: told how many faces are done.

    Raises:
        MisuseError: a picture cannot be read.
        AmpnetError: detector or a subject fails.
    """
    places: list[int] = []
    errors: list[float] = []
    answers: list[list[np.ndarray]] = [[] for _ in infer]
    cuts = _found(detector, faces, progress)
    for part in iter(lambda: list(islice(cuts, batch)), []):
        places += [place for place, _, _, _ in part]
        errors += [error for _, _, _, error in part]
        images, landmarks = np.stack([one[1] for one in part]), np.stack([one[2] for one in part])
        for own, logits_of in zip(answers, infer):
            own.append(logits_of(images, landmarks).argmax(1))
    scores = []
    for own, before in zip(answers, given):
        found = np.concatenate(own) if own else np.zeros(0, np.int64)
        same = int((found == before.argmax(1)[places]).sum())
        right = int((found == labels[places]).sum())
        scores.append(DetectedScores(wilson(right, len(faces)), wilson(same, len(places)) if places else None))
    error = float(np.mean(errors)) if errors else None
    return Detected(FoundFaces(detector.identity, wilson(len(places), len(faces)), error), scores)


Cut = Tuple[int, np.ndarray, np.ndarray, float]  # place of the face, image, landmarks in it, landmark error


def _found(detector: Detector, faces: Sequence[Face], progress: Callable[[int], None]) -> Iterator[Cut]:
    """The faces that are found, cut out as `run` cuts them."""
    for place, face in enumerate(faces):
        with opened_photo(face.file) as photo:
            require_size(face, *photo.size)
            image, scale = np.asarray(photo.image), photo.image.width / photo.size[0]
            true = face.landmarks * scale
            near = [(landmark_error(found, true), found) for found in detector.detect(image) if not implausible(found)]
            if near:
                error, found = min(near, key=lambda item: item[0])
                if error <= NEAR:
                    yield place, *crop(image, found.box, found.landmarks), error
        progress(place + 1)


def landmark_error(found: Detection, true: np.ndarray) -> float:
    """Mean distance of a face's landmarks from the true ones [5, 2], in distances between the true eyes."""
    apart = max(float(np.linalg.norm(true[1] - true[0])), 1e-6)
    return float(np.linalg.norm(found.landmarks - true, axis=1).mean()) / apart
