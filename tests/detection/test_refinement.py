"""The second stage of the detectors: where it cuts, and landmarks that are nearer to the truth than the first stage's."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ampnet_opt.detection.detector import Detector, load_detector
from ampnet_opt.detection.refinement import APART, SHAPE, SIDE, Refiner, cut, placed
from ampnet_opt.faces.detection import Detection, overlap
from ampnet_opt.runtime.backend import find_backend
from ampnet_opt.shipped import LANDMARKS
from ampnet_opt.synthetic.video import DrawnFrame, draw_video

SEED = 31  # of drawn people that the network was not trained on: those have seeds from 100,000 on


@lru_cache(maxsize=1)
def frames() -> list[DrawnFrame]:
    return [*draw_video(SEED, 24, people=2, rate=0.25)][1:]


@lru_cache(maxsize=2)
def detector(refine: bool) -> Detector:
    pytest.importorskip("openvino", reason="INT8 runs in OpenVINO")
    return load_detector(precision="int8", threads=1, refine=refine)


def errors(found: list[Detection], frame: DrawnFrame) -> list[float]:
    """Mean distances of the points of whole visible faces from the truth, in eye distances."""
    return [
        float(np.linalg.norm(one.landmarks - face.landmarks, axis=1).mean())
        / float(np.linalg.norm(face.landmarks[1] - face.landmarks[0]))
        for face in frame.faces
        for one in found
        if face.visible > 0.9 and overlap(face.box, one.box) > 0.4
    ]


def test_landmarks_of_drawn_people_it_was_not_trained_on_are_nearer_to_the_truth_than_the_first_stages() -> None:
    first, second = (
        [error for frame in frames() for error in errors(detector(refine).detect(frame.image, min_face=40), frame)]
        for refine in (False, True)
    )
    assert len(first) == len(second) >= 6
    assert np.mean(second) < 0.03 < 0.065 < np.mean(first)  # the second over whole videos: docs/results/pipeline.md


def test_boxes_and_scores_stay_those_of_the_first_stage() -> None:
    image = frames()[0].image
    first, second = (detector(refine).detect(image, min_face=40) for refine in (False, True))
    assert [(one.box, one.score) for one in first] == [(one.box, one.score) for one in second]
    assert not np.array_equal(first[0].landmarks, second[0].landmarks)


def test_each_face_of_a_frame_gets_the_landmarks_that_it_gets_alone() -> None:
    image = max(frames(), key=lambda frame: len(errors(detector(False).detect(frame.image, min_face=40), frame))).image
    faces = detector(False).detect(image, min_face=40)
    assert len(faces) >= 2
    refiner = Refiner(find_backend("cpu"))
    alone = [face.landmarks for one in faces for face in refiner.refined(image, [one])]
    refiner.close()
    np.testing.assert_array_equal(alone, [face.landmarks for face in detector(True).detect(image, min_face=40)])


def test_backends_give_the_same_landmarks() -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    frame = frames()[0]
    given = [Detection(face.box, 1.0, face.landmarks + 2) for face in frame.faces]
    found = []
    for name in ("cpu", "onnxruntime"):
        refiner = Refiner(find_backend(name))
        found.append([face.landmarks for face in refiner.refined(frame.image, given)])
        refiner.close()
    np.testing.assert_allclose(found[0], found[1], atol=0.01)


def test_the_identity_names_the_network_and_its_absence() -> None:
    digest = hashlib.sha256(LANDMARKS.read_bytes()).hexdigest()
    assert detector(True).identity == f"{detector(False).identity}, landmarks by SHA-256 {digest}"
    assert digest not in detector(False).identity


def test_the_networks_time_is_counted() -> None:
    own = load_detector(precision="int8", threads=1)
    own.detect(frames()[0].image, min_face=40)
    assert own._refiner is not None and 0 < own._refiner.seconds < own.network_seconds
    own.close()


@pytest.mark.parametrize(
    "factor, shift", [(1.0, (-40.0, 0.0)), (1.0, (0.0, -60.0)), (0.2, (5.0, 5.0)), (4.0, (-300.0, -200.0))]
)
def test_faces_at_the_border_tiny_and_larger_than_the_picture_get_landmarks_near_their_own(
    factor: float, shift: tuple[float, float]
) -> None:
    frame = frames()[0]
    face = max(frame.faces, key=lambda one: one.visible)
    x, y, width, height = face.box
    left, top = max(0, int(x) - 20), max(0, int(y) - 20)
    part = Image.fromarray(frame.image[top : int(y + height) + 20, left : int(x + width) + 20])
    scaled = part.resize((round(part.width * factor), round(part.height * factor)), Image.Resampling.BOX)
    image = np.zeros((160, 200, 3), np.uint8)
    canvas = Image.fromarray(image)
    canvas.paste(scaled, (round(shift[0]), round(shift[1])))
    points = ((face.landmarks - (left, top)) * factor + np.round(shift)).astype(np.float32)
    refiner = Refiner(find_backend("onnxruntime"))
    (found,) = refiner.refined(np.asarray(canvas), [Detection((0.0, 0.0, 100.0, 100.0), 1.0, points)])
    refiner.close()
    apart = np.linalg.norm(points[1] - points[0])
    assert np.isfinite(found.landmarks).all() and found.landmarks.dtype == np.float32
    assert np.linalg.norm(found.landmarks - points, axis=1).mean() < 0.26 * apart


@pytest.mark.parametrize("points", [np.full((5, 2), 30.0), np.full((5, 2), np.nan), SHAPE[[3, 4, 2, 0, 1]] * 40 + 60])
def test_points_that_are_no_face_are_left_as_they_are(points: np.ndarray) -> None:
    refiner = Refiner(find_backend("onnxruntime"))
    face = Detection((10.0, 10.0, 90.0, 90.0), 0.9, points.astype(np.float32))
    assert refiner.refined(np.full((120, 120, 3), 90, np.uint8), [face])[0] is face
    assert refiner.refined(np.full((120, 120, 3), 90, np.uint8), []) == []
    refiner.close()


def test_where_the_stages_disagree_widely_the_first_keeps_its_landmarks() -> None:
    frame = frames()[0]
    face = max(frame.faces, key=lambda one: one.visible)
    refiner = Refiner(find_backend("onnxruntime"))
    middle = face.landmarks.mean(0)
    narrow = (middle + (face.landmarks - middle) * [0.4, 1]).astype(np.float32)  # as of a face in profile
    near, far = (Detection(face.box, 1.0, points) for points in (face.landmarks + 2, narrow))
    refined = refiner.refined(frame.image, [far, near])
    assert refined[0] is far
    assert not np.array_equal(refined[1].landmarks, near.landmarks)
    refiner.close()


@given(
    st.floats(-3.1, 3.1),
    st.floats(1, 1000),
    st.tuples(st.floats(-2000, 2000), st.floats(-2000, 2000)),
)
def test_the_square_is_turned_scaled_and_moved_with_the_face(turn: float, apart: float, middle: tuple[float, float]) -> None:
    axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * apart
    landmarks = SHAPE @ axes.T + middle
    transform = placed(landmarks, SIDE, APART)
    square = (SHAPE * APART + 0.5) * SIDE
    np.testing.assert_allclose(square @ transform[:, :2].T + transform[:, 2], landmarks, atol=1e-6 * max(1, apart))
    np.testing.assert_allclose(transform @ [SIDE / 2, SIDE / 2, 1], middle, atol=1e-6 * max(1, apart))


def test_what_is_cut_is_what_lies_there() -> None:
    x, y = np.meshgrid(np.arange(200) + 0.5, np.arange(150) + 0.5)
    image = np.stack([x, y, np.full_like(x, 9)], 2).astype(np.uint8)
    transform = np.array([[1.2, -0.3, 60.0], [0.3, 1.2, 20.0]])
    rows, columns = np.mgrid[:40, :40] + 0.5
    expected = np.stack([columns, rows, np.ones_like(rows)], 2) @ transform.T
    inside = (expected < np.array([199, 149])).all(2)
    got = cut(image, transform, 40).astype(float)
    assert np.abs(got[..., :2] - (expected - 0.5))[inside].max() <= 1.0
    assert (got[..., 2][(expected > np.array([202, 152])).any(2)] == 0).all()


def test_faces_many_times_the_square_are_averaged_and_stay_in_place() -> None:
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 200
    stripes[200:] = 50
    got = cut(stripes, np.array([[8.0, 0, 0], [0, 8.0, 0]]), 50)
    assert np.abs(got[2:24, 2:48].astype(int) - 100).max() <= 2  # not the stripes that a single pixel would hit
    assert (got[26:48, 2:48] == 50).all()


def test_outside_the_picture_is_black() -> None:
    assert not cut(np.full((50, 50, 3), 255, np.uint8), np.array([[1.0, 0, 200], [0, 1.0, 0]]), SIDE).any()
