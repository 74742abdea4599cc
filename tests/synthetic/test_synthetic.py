"""Drawn faces: the same for the same seed, with landmarks where the features are."""

from __future__ import annotations

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if sys.version_info < (3, 10):
    pytest.skip("drawn faces need Python 3.10", allow_module_level=True)

from ampnet_opt import synthetic
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.faces.face import Face, load_face, read_faces
from ampnet_opt.synthetic import dataset
from ampnet_opt.synthetic.drawing import draw
from ampnet_opt.synthetic.geometry import corner_points, eye, landmarks, mouth
from ampnet_opt.synthetic.parameters import EXPRESSIONS, UNITS, VARIANTS, Pose, sample_person, sample_pose, sample_units

LABELS = list(EXPRESSIONS)
FRONTAL = Pose(yaw=0.0, pitch=0.0, roll=0.0, scale=1.0, x=112.0, y=130.0)
seeds, labels, angles = st.integers(0, 2**40), st.sampled_from(LABELS), st.floats(-0.5, 0.5)


def parts(seed: int, label: str):
    rng = np.random.default_rng(seed)
    return sample_person(rng), sample_units(rng, label), sample_pose(rng)


def test_same_seed_and_label_give_the_same_face():
    first, second = synthetic.face(7, "fear"), synthetic.face(7, "fear")
    assert first[0].shape == (224, 224, 3) and first[0].dtype == np.uint8
    assert first[1].shape == (5, 2) and first[1].dtype == np.float32
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_another_seed_or_label_gives_another_face():
    faces = [synthetic.face(seed, label) for seed, label in [(7, "fear"), (8, "fear"), (7, "anger")]]
    for i, (image, points) in enumerate(faces):
        for other, other_points in faces[:i]:
            assert np.abs(image.astype(int) - other).mean() > 5
            assert np.abs(points - other_points).max() > 0.5


def test_large_seeds_share_no_person_with_another_label():
    # NumPy splits a seed into words of 32 bits: put before the label's, this one would read as (7, fear).
    large = 7 + (LABELS.index("fear") << 32)
    first, second = (synthetic.face(seed, label)[1] for seed, label in [(7, "fear"), (large, "neutral")])
    assert np.abs(first[:2] - second[:2]).max() > 0.5  # the eyes' centres, which no expression moves


def test_most_faces_are_grey_and_some_are_not():
    grey = [bool((image == image[:, :, :1]).all()) for image, _ in (synthetic.face(seed, "neutral") for seed in range(40))]
    assert 18 <= sum(grey) <= 37


@settings(max_examples=300, deadline=None)
@given(seeds, labels)
def test_landmarks_lie_inside_and_in_order(seed: int, label: str):
    person, units, pose = parts(seed, label)
    points = landmarks(person, pose, units)
    assert (points > 0).all() and (points < 224).all()
    # In the head's own axes, roll undone: eyes above nose above mouth, left before right.
    cos, sin = np.cos(pose.roll), np.sin(pose.roll)
    x, y = points @ np.array([cos, sin]), points @ np.array([-sin, cos])
    assert x[0] < x[1] and x[3] < x[4]
    assert max(y[0], y[1]) < y[2] < min(y[3], y[4])


@settings(max_examples=100, deadline=None)
@given(seeds, labels, angles, st.floats(0.5, 2), st.floats(-50, 50))
def test_roll_scale_and_place_move_landmarks_as_a_similarity(seed: int, label: str, roll: float, scale: float, shift: float):
    person, units, pose = parts(seed, label)
    before = landmarks(person, pose, units) - np.array([pose.x, pose.y])
    moved = replace(pose, roll=pose.roll + roll, scale=pose.scale * scale, x=pose.x + shift, y=pose.y - shift)
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    expected = scale * before @ turn.T + np.array([pose.x + shift, pose.y - shift])
    np.testing.assert_allclose(landmarks(person, moved, units), expected, atol=2e-3)


@settings(max_examples=100, deadline=None)
@given(seeds, labels, st.floats(0.02, 0.5))
def test_a_turned_head_moves_its_nose_farthest(seed: int, label: str, angle: float):
    person, units, _ = parts(seed, label)
    still = landmarks(person, FRONTAL, units)
    turned = landmarks(person, replace(FRONTAL, yaw=angle), units) - still
    nodded = landmarks(person, replace(FRONTAL, pitch=angle), units) - still
    assert turned[2, 0] > max(turned[[0, 1, 3, 4], 0].max(), 0)
    np.testing.assert_allclose(turned[:, 1], 0, atol=1e-4)
    assert nodded[2, 1] > 0
    np.testing.assert_allclose(nodded[:, 0], 0, atol=1e-4)


def differs(seed: int, label: str, pose: Pose, **colours) -> np.ndarray:
    """Pixels (x, y) [n, 2] that change when parts of a face get other colours."""
    person, units, _ = parts(seed, label)
    person = replace(person, glasses="none", beard="none", hair_style="bald", skin=(200, 160, 130))
    first, second = (
        draw(replace(person, **{part: colour for part in colours}), pose, units, np.random.default_rng(3))
        for colour in ((0, 0, 255), (255, 0, 0))
    )
    rows, columns = np.nonzero(np.abs(first - second).max(axis=2) > 30)
    return np.stack([columns + 0.5, rows + 0.5], axis=1)


@pytest.mark.parametrize("yaw", [-0.3, 0.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_irises_and_lips_are_drawn_at_the_landmarks(seed: int, yaw: float):
    pose = replace(FRONTAL, yaw=yaw, roll=0.1 * yaw)
    person, units, _ = parts(seed, "neutral")
    points = landmarks(person, pose, units)
    irises = differs(seed, "neutral", pose, iris=True)
    left = np.abs(irises - points[0]).sum(axis=1) < np.abs(irises - points[1]).sum(axis=1)
    for side, point in ((left, points[0]), (~left, points[1])):
        np.testing.assert_allclose(irises[side].mean(axis=0), point, atol=3.0)
    lips = differs(seed, "neutral", pose, lips=True)
    np.testing.assert_allclose([lips[:, 0].min(), lips[:, 0].max()], points[3:, 0], atol=4.0)


def test_every_preset_can_be_drawn_and_every_unit_is_drawn():
    assert {label for preset in PRESETS.values() for label in preset} <= set(LABELS)
    used = {
        unit for table in (*EXPRESSIONS.values(), *(row for rows in VARIANTS.values() for row in rows)) for unit in table
    }
    assert used == set(UNITS)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_expressions_move_the_face_as_their_action_units_say(seed: int):
    # Of eight people each: how strongly one shows an expression varies, and so does a neutral face.
    def mean(label: str, measure):
        drawn = []
        for number in range(8):
            rng = np.random.default_rng([seed, number])
            drawn.append(measure(sample_person(rng), sample_units(rng, label)))
        return np.mean(drawn)

    def height(person, units):
        return corner_points(person, units)[:, 1].mean()

    def gap(person, units):
        return mouth(person, units).gap

    def opening(person, units):
        both = [eye(person, FRONTAL, units, side) for side in (0, 1)]
        return sum((e.lower - e.upper)[:, 1].max() for e in both)

    def unevenness(person, units):
        corners = corner_points(person, units)
        return abs(corners[0, 1] - corners[1, 1])

    assert mean("happiness", height) < mean("neutral", height) < mean("sadness", height)
    assert mean("surprise", gap) > mean("neutral", gap) + 5
    assert mean("disgust", opening) < mean("neutral", opening) < mean("fear", opening)
    assert mean("contempt", unevenness) > 3 > mean("neutral", unevenness)


@pytest.mark.parametrize(
    "call", [lambda folder: synthetic.face(0, "joy"), lambda f: synthetic.write(f, {"test": 1}, ["joy"])]
)
def test_unknown_class_names_the_known(tmp_path: Path, call):
    with pytest.raises(MisuseError, match=r"'joy'; known are neutral, happiness.*contempt"):
        call(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_unknown_split_and_nothing_to_draw_are_refused(tmp_path: Path):
    with pytest.raises(MisuseError, match="no split 'exam'; known are train, val, test"):
        synthetic.write(tmp_path / "out", {"exam": 1}, ["fear"])
    with pytest.raises(MisuseError, match="no faces to draw"):
        synthetic.write(tmp_path / "out", {"test": 0}, ["fear"])


@given(
    st.lists(st.tuples(st.integers(0, 50), st.sampled_from(dataset.SPLITS), st.integers(0, dataset.MOST - 1)), unique=True)
)
def test_splits_share_no_seed(wanted):
    assert len({dataset.split_seed(*one) for one in wanted}) == len(wanted)


def test_written_faces_are_read_back(tmp_path: Path):
    told: list[tuple[int, int]] = []
    table = synthetic.write(
        tmp_path / "out", {"train": 2, "test": 1}, ["anger", "fear"], seed=5, progress=lambda *at: told.append(at)
    )
    assert told == [(done, 6) for done in range(1, 7)]
    faces = read_faces(table)
    assert [(face.split, face.label) for face in faces] == [
        *[("train", "anger"), ("train", "fear")] * 2,
        ("test", "anger"),
        ("test", "fear"),
    ]
    for face, number in zip(faces, (0, 0, 1, 1, 0, 0)):
        image, points = synthetic.face(dataset.split_seed(5, face.split, number), face.label)
        read, read_points = load_face(face)
        assert np.abs(read.astype(int) - image).mean() < 4  # JPEG
        np.testing.assert_allclose(read_points, points, atol=1e-3)


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path):
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.write(tmp_path / "out", {"test": 3}, ["fear"], progress=stop)
    assert not list(tmp_path.iterdir())
    before = synthetic.write(tmp_path / "out", {"test": 1}, ["fear"]).read_bytes()
    with pytest.raises(KeyboardInterrupt):
        synthetic.write(tmp_path / "out", {"test": 3}, ["fear"], progress=stop)
    assert (tmp_path / "out" / "faces.csv").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_who_needs_the_default_faces_while_they_are_drawn_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dataset, "DEFAULT_COUNTS", {"test": 1})
    monkeypatch.setenv("AMPNET_OPT_CACHE", str(tmp_path))
    others: list[Future[list[Face]]] = []

    def begin_another(done: int, total: int) -> None:
        if not others:
            others.append(pool.submit(synthetic.default_faces))

    with ThreadPoolExecutor() as pool:
        faces = synthetic.default_faces(progress=begin_another)
        assert [face.file for face in others[0].result(60)] == [face.file for face in faces]


def test_default_faces_are_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dataset, "DEFAULT_COUNTS", {"train": 1, "test": 2})
    monkeypatch.setenv("AMPNET_OPT_CACHE", str(tmp_path / "own"))
    drawn: list[int] = []
    faces = synthetic.default_faces("test", progress=lambda done, total: drawn.append(done))
    assert len(faces) == 14 and {face.split for face in faces} == {"test"}
    assert faces[0].file.is_relative_to(tmp_path / "own" / f"synthetic-{dataset.VERSION}")
    assert len(drawn) == 21
    assert len(synthetic.default_faces(progress=lambda done, total: drawn.append(done))) == 21
    assert len(drawn) == 21
