"""Tracks: the same number for the same face, whatever the order of the detections and the rate of the frames."""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampnet_opt.faces.detection import Detection, overlap
from ampnet_opt.pipeline.tracking import BESIDE, Tracker, closeness

sides = st.floats(20, 300)
places = st.floats(-100, 2000)


def face(x: float, y: float, side: float, score: float = 0.9) -> Detection:
    """A detection round a centre, with landmarks that depend on it."""
    points = np.array([[-0.2, -0.1], [0.2, -0.1], [0, 0.05], [-0.15, 0.2], [0.15, 0.2]]) * side + [x, y]
    return Detection((x - side / 2, y - side / 2, side, side), score, points.astype(np.float32))


def beside_another(one: Detection, faces: Sequence[Detection], numbers: Sequence[Optional[int]]) -> bool:
    """Whether a face may wait for its number: it touches one that has a number."""
    return any(number is not None and overlap(one.box, other.box) >= BESIDE for other, number in zip(faces, numbers))


@st.composite
def frames(draw: st.DrawFn) -> List[List[Detection]]:
    """Frames of any faces."""
    return draw(
        st.lists(st.lists(st.builds(face, places, places, sides), max_size=6, unique_by=lambda f: f.box), max_size=6)
    )


@settings(max_examples=60, deadline=None)
@given(frames(), st.randoms(use_true_random=False))
def test_order_of_the_detections_does_not_matter(shown: List[List[Detection]], random) -> None:
    straight, shuffled = Tracker(), Tracker()
    for index, faces in enumerate(shown):
        order = random.sample(range(len(faces)), len(faces))
        numbers = straight.update(faces, index / 10)
        assert shuffled.update([faces[i] for i in order], index / 10) == [numbers[i] for i in order]


@settings(max_examples=60, deadline=None)
@given(frames(), st.floats(0.01, 2))
def test_each_face_of_a_frame_has_a_number_of_its_own_and_none_comes_back(shown: List[List[Detection]], gap: float) -> None:
    tracker, ended = Tracker(), set()
    for index, faces in enumerate(shown):
        numbers = tracker.update(faces, index * gap)
        ended |= set(tracker.ended)
        tracked = [number for number in numbers if number is not None]
        assert len(set(tracked)) == len(tracked) and all(number >= 1 for number in tracked)
        assert not ended & set(tracked)
        assert all(number is not None or beside_another(one, faces, numbers) for one, number in zip(faces, numbers))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.floats(40, 110)), min_size=1, unique_by=lambda f: f[:2]),
    st.lists(st.floats(0.001, 0.9), min_size=2, max_size=12),
    st.integers(0, 2**32),
)
def test_faces_that_stand_still_keep_their_numbers_at_any_rate(stands, gaps: List[float], seed: int) -> None:
    rng, tracker = np.random.default_rng(seed), Tracker()
    still = [face(60 + 120 * column, 60 + 120 * row, side) for column, row, side in stands]
    first, time = tracker.update(still, 0.0), 0.0
    for gap in gaps:
        time += gap
        shaken = [face(*(np.array(f.box[:2]) + f.side / 2 + rng.uniform(-0.03, 0.03, 2) * f.side), f.side) for f in still]
        assert tracker.update(shaken, time) == first


@settings(max_examples=40, deadline=None)
@given(st.floats(-400, 400), st.floats(-200, 200), st.floats(60, 200), st.sampled_from([10, 15, 25, 30, 60]))
def test_a_face_at_constant_speed_is_found_again_where_it_went(vx: float, vy: float, side: float, rate: int) -> None:
    tracker = Tracker()
    for index in range(rate):
        assert tracker.update([face(vx * index / rate, vy * index / rate, side)], index / rate) == [1]
    time = (rate - 1) / rate + 0.8  # hidden for 0.8 seconds
    assert tracker.update([face(vx * time, vy * time, side)], time) == [1]


@pytest.mark.parametrize("gap, same", [(1.9, True), (2.1, False)])
def test_a_track_lives_for_two_seconds_unseen(gap: float, same: bool) -> None:
    tracker = Tracker()
    assert tracker.update([face(100, 100, 80)], 0.0) == [1]
    assert tracker.update([], gap / 2) == []
    assert (tracker.update([face(100, 100, 80)], gap) == [1]) == same
    assert (tracker.ended == [1]) != same


def test_a_seek_backwards_ends_all_tracks() -> None:
    tracker = Tracker()
    assert tracker.update([face(100, 100, 80), face(400, 100, 60)], 5.0) == [1, 2]
    assert tracker.update([face(100, 100, 80)], 2.0) == [3]
    assert sorted(tracker.ended) == [1, 2]


def test_forgetting_ends_tracks_and_gives_new_numbers() -> None:
    tracker = Tracker()
    tracker.update([face(100, 100, 80)], 0.0)
    tracker.forget()
    assert tracker.ended == [1]
    assert tracker.update([face(100, 100, 80)], 0.04) == [2]


def test_new_faces_are_numbered_from_the_largest() -> None:
    assert Tracker().update([face(100, 100, 40), face(400, 100, 90), face(700, 100, 60)], 0.0) == [3, 1, 2]


def test_two_faces_that_cross_keep_their_numbers() -> None:
    tracker, seen = Tracker(), {}  # type: Tracker, Dict[str, int]
    for index in range(75):
        left, right = 100 + 8 * index, 700 - 8 * index
        faces = {"near": face(left, 200, 120)}
        if abs(left - right) > 70:  # behind the near face nobody is found
            faces["far"] = face(right, 190, 90)
        numbers = tracker.update(list(faces.values()), index / 25)
        for name, number in zip(faces, numbers):
            assert seen.setdefault(name, number) == number, index
    assert seen == {"near": 1, "far": 2}


def test_a_face_far_larger_at_the_same_place_is_another() -> None:
    tracker = Tracker()
    tracker.update([face(100, 100, 60)], 0.0)
    assert tracker.update([face(100, 100, 150)], 0.04) == [2]


@settings(max_examples=40, deadline=None)
@given(st.floats(-300, 300), st.floats(-300, 300), st.floats(-0.5, 0.5))
def test_following_moves_box_and_landmarks_together(vx: float, vy: float, growth: float) -> None:
    tracker, rate = Tracker(), 25

    def true(time: float) -> Detection:
        return face(vx * time, vy * time, 100 * float(np.exp(growth * time)))

    for index in range(2 * rate):
        tracker.update([true(index / rate)], index / rate)
    time = 2 - 1 / rate + 0.2
    ((number, moved),) = tracker.follow(time)
    assert number == 1
    np.testing.assert_allclose(moved.box, true(time).box, atol=0.2)
    np.testing.assert_allclose(moved.landmarks, true(time).landmarks, atol=0.2)


def test_following_leaves_the_tracks_as_they_are() -> None:
    tracker = Tracker()
    tracker.update([face(100, 100, 80), face(400, 100, 60)], 0.0)
    assert [number for number, _ in tracker.follow(0.5)] == [1, 2]
    assert tracker.follow(2.5) == []
    assert tracker.update([face(400, 100, 60)], 0.6) == [2]
    assert [number for number, _ in tracker.follow(0.7)] == [2]  # a face that the last detection missed is not shown


def test_a_face_that_comes_out_from_behind_another_waits_until_it_can_be_told() -> None:
    front, behind, half = face(260, 200, 120), face(330, 200, 100), face(320, 200, 60)
    tracker = Tracker()
    assert tracker.update([front, behind], 0.0) == [1, 2]
    assert tracker.update([front], 0.04) == [1]
    assert tracker.update([front, half], 0.08) == [1, None]  # too small to be the one that was covered
    assert [number for number, _ in tracker.follow(0.1)] == [1]
    assert tracker.update([front, behind], 0.12) == [1, 2]
    assert tracker.update([front, behind, half], 0.16) == [1, 2, 3]  # nobody is missed


def test_a_face_beside_another_waits_for_its_number_no_longer_than_that() -> None:
    front, behind, part = face(260, 200, 120), face(330, 200, 100), face(316, 200, 54)
    apart = face(500, 200, 60)
    tracker = Tracker()
    tracker.update([front, behind], 0.0)
    given = [tracker.update([front, part, apart], 0.04 * index)[1:] for index in range(1, 13)]
    assert given[:10] == [[None, 3]] * 10
    assert given[10:] == [[4, 3]] * 2


def painted(*shown: Tuple[Detection, Tuple[int, int, int]]) -> np.ndarray:
    """A grey frame of 640 x 480 with faces of one colour each, the last in front."""
    image = np.full((480, 640, 3), 128, np.uint8)
    for one, colour in shown:
        x, y, width, height = one.box
        image[max(0, round(y - height / 4)) : round(y + 1.1 * height), max(0, round(x)) : max(0, round(x + width))] = colour
    return image


RED, BLUE = (200, 40, 40), (40, 40, 200)


def test_a_face_of_other_colours_takes_no_track_where_a_person_was_covered() -> None:
    """Without colours, it does: place and size fit."""
    still, other = face(200, 200, 100), face(235, 200, 95)
    for colours, expected in ((True, [2]), (False, [1])):
        tracker = Tracker(0.5)
        for index in range(10):
            image = painted((still, RED)) if colours else None
            assert tracker.update([still], index / 25, image) == [1]
        assert tracker.update([], 0.4, painted() if colours else None) == []
        assert tracker.update([other], 0.44, painted((other, BLUE)) if colours else None) == expected


def test_a_hand_over_less_than_half_of_a_face_leaves_its_colours() -> None:
    tracker, still = Tracker(0.5), face(200, 200, 100)
    image = painted((still, RED))
    assert tracker.update([still], 0.0, image) == [1]
    image[200:260, 150:250] = BLUE  # below the nose
    assert tracker.update([face(203, 200, 100)], 0.04, image) == [1]


def test_a_weak_detection_continues_a_track_and_starts_none() -> None:
    tracker = Tracker(0.5)
    assert tracker.update([face(100, 100, 80, 0.45)], 0.0) == [None]
    assert tracker.update([face(100, 100, 80)], 0.1) == [1]
    assert tracker.update([face(101, 100, 80, 0.45), face(400, 100, 80, 0.45)], 0.2) == [1, None]
    assert tracker.update([face(102, 100, 80, 0.45)], 0.3) == [1]  # and goes on
    assert [number for number, _ in tracker.follow(0.32)] == [1]
    assert tracker.update([face(102, 100, 40, 0.45)], 0.34) == [None]  # what is half covered has another size


def test_a_weak_detection_takes_no_track_that_a_face_can_have() -> None:
    tracker = Tracker(0.5)
    tracker.update([face(100, 100, 80)], 0.0)
    assert tracker.update([face(100, 100, 80, 0.45), face(108, 100, 80)], 0.04) == [None, 1]


@settings(max_examples=60, deadline=None)
@given(frames(), st.data())
def test_weak_detections_never_take_what_faces_have(shown: List[List[Detection]], data: st.DataObject) -> None:
    """Frame by frame, no number is given twice, faces have one unless they wait, and weak ones have those given before."""
    tracker, given_before = Tracker(0.5), set()
    for index, faces in enumerate(shown):
        weak = data.draw(st.lists(st.booleans(), min_size=len(faces), max_size=len(faces)))
        mixed = [Detection(f.box, 0.4 if low else 0.9, f.landmarks) for f, low in zip(faces, weak)]
        numbers = tracker.update(mixed, index / 10)
        tracked = [number for number in numbers if number is not None]
        assert len(set(tracked)) == len(tracked)
        sure = [(face, number) for face, number, low in zip(mixed, numbers, weak) if not low]
        assert all(number is not None or beside_another(one, mixed, numbers) for one, number in sure)
        assert {number for number, low in zip(numbers, weak) if low and number is not None} <= given_before
        given_before |= set(tracked)


@settings(max_examples=60, deadline=None)
@given(places, places, st.floats(1, 900))
def test_colours_are_read_wherever_a_box_lies(x: float, y: float, side: float) -> None:
    tracker, image = Tracker(0.5), np.full((480, 640, 3), 90, np.uint8)
    assert tracker.update([face(x, y, side)], 0.0, image) == [1]
    assert tracker.update([face(x, y, side)], 0.04, image) == [1]


@settings(max_examples=60, deadline=None)
@given(*[st.tuples(places, places, sides, sides)] * 2)
def test_closeness_is_symmetric_and_highest_for_equal_boxes(one, other) -> None:
    assert closeness(one, other) == pytest.approx(closeness(other, one), abs=1e-9)
    assert -1 <= closeness(one, other) <= 1 + 1e-9
    assert closeness(one, one) == pytest.approx(1)
