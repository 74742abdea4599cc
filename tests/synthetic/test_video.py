"""Drawn videos: the same for the same seed, and a truth that agrees with the pictures."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if sys.version_info < (3, 10):
    pytest.skip("drawn faces need Python 3.10", allow_module_level=True)

from ampnet_opt.core.labels import PRESETS
from ampnet_opt.synthetic.actors import BLEND, Actor, cast
from ampnet_opt.synthetic.video import DrawnFrame, draw_video

LABELS = PRESETS["affectnet7"]
SIZE = (640, 480)


@pytest.fixture(scope="module")
def video() -> list[DrawnFrame]:
    return list(draw_video(1, 24, people=3, rate=0.5))


def settled(seed: int, people: int) -> list[Actor]:
    return cast(seed, 40, people, LABELS, SIZE)


def around(image: np.ndarray, point: np.ndarray) -> float:
    x, y = (int(value) for value in point)
    return float(image[y - 1 : y + 2, x - 1 : x + 2].mean())


def test_same_seed_gives_the_same_frames(video: list[DrawnFrame]) -> None:
    for first, again in zip(video[:3], draw_video(1, 24, people=3, rate=0.5)):
        np.testing.assert_array_equal(first.image, again.image)
        assert [(face.person, face.box, face.visible) for face in first.faces] == [
            (face.person, face.box, face.visible) for face in again.faces
        ]


def test_another_seed_gives_others(video: list[DrawnFrame]) -> None:
    other = next(draw_video(2, 1, people=3, rate=1))
    assert np.abs(other.image.astype(int) - video[0].image).mean() > 5


def test_frames_are_pictures_with_times(video: list[DrawnFrame]) -> None:
    assert [frame.time for frame in video] == list(range(0, 24, 2))
    assert all(frame.image.shape == (480, 640, 3) and frame.image.dtype == np.uint8 for frame in video)


def test_truth_of_a_frame_is_one_face_a_person_with_landmarks_in_its_box(video: list[DrawnFrame]) -> None:
    assert any(len(frame.faces) >= 3 for frame in video)
    for frame in video:
        assert len({face.person for face in frame.faces}) == len(frame.faces)
        for face in frame.faces:
            x, y, width, height = face.box
            assert face.landmarks.dtype == np.float32
            assert ((face.landmarks > [x, y]) & (face.landmarks < [x + width, y + height])).all()
            assert face.expression in LABELS and 0 <= face.visible <= 1


def test_eyes_are_dark_at_the_true_landmarks(video: list[DrawnFrame]) -> None:
    """The iris is at the landmark: a point beside each eye, on the bridge of the nose, is brighter."""
    darker = []
    for frame in video:
        for face in frame.faces:
            if face.visible > 0.95:
                left, right = face.landmarks[:2]
                for one in (left, right):
                    patches = [
                        frame.image[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2] for x, y in (one, (left + right) / 2)
                    ]
                    darker.append(patches[0].mean() < patches[1].mean())
    assert len(darker) > 10 and np.mean(darker) > 0.75


def test_what_covers_a_face_is_no_visible_share_of_it(video: list[DrawnFrame]) -> None:
    shares = [face.visible for frame in video for face in frame.faces]
    assert min(shares) < 0.5 and np.mean(np.array(shares) > 0.95) > 0.5
    for frame in video:
        for face in frame.faces:
            x, _, width, _ = face.box
            if x + width < 0 or x > 640:
                assert face.visible == 0


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_people_enter_and_leave_at_the_rim_and_come_once(seed: int, people: int) -> None:
    actors = settled(seed, people)
    assert [actor.number for actor in actors] == list(range(len(actors)))
    for actor in actors:
        assert (np.diff(actor.path[:, 0]) > 0).all()
        assert actor.at(actor.path[0, 0] - 0.1) is None and actor.at(actor.path[-1, 0] + 0.1) is None
        for end in (actor.path[0, 0], actor.path[-1, 0]):
            state = actor.at(float(end))
            assert state is not None and not 0 <= state.x <= 640


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 39))
def test_people_move_smoothly_and_never_jump(seed: int, time: float) -> None:
    for actor in settled(seed, 3):
        one, next_ = actor.at(time), actor.at(time + 0.01)
        if one is not None and next_ is not None:
            assert np.hypot(next_.x - one.x, next_.y - one.y) < 6  # 600 pixels a second
            assert abs(next_.pose.yaw - one.pose.yaw) < 0.05
            assert abs(next_.hand - one.hand) < 0.1


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32))
def test_expressions_change_smoothly_and_the_label_with_the_half(seed: int) -> None:
    actor = settled(seed, 2)[0]
    start, label, units = actor.expressions[1]
    _, before, old = actor.expressions[0]
    early, late = actor.at(start + 0.45 * BLEND), actor.at(start + 0.55 * BLEND)
    assert early is not None and late is not None
    assert (early.label, late.label) == (before, label)
    quiet = [unit for unit in units if unit not in (25, 26, 43)]  # speech and blinks move the others not
    for unit in quiet:
        low, high = sorted((old[unit][0], units[unit][0]))
        assert low - 1e-9 <= late.units[unit][0] <= high + 1e-9
