"""What the page says in numbers."""

from __future__ import annotations

import json
import math

from published import frame, tracked

from ampnet_opt.pipeline.view.numbers import MINUTE, MOST_FACES, MOST_TRACKS, Numbers


def test_before_the_first_frame_there_are_no_faces() -> None:
    assert Numbers().now(5.0) == {"frames": 0, "faces": [], "more": 0}


def test_rate_counts_the_last_seconds_and_falls_when_frames_stop() -> None:
    numbers = Numbers()
    for index in range(100):
        numbers.add(frame(index), index / 20, 0)
    assert abs(numbers.now(99 / 20)["rate"] - 20) <= 0.5
    assert numbers.now(99 / 20 + 2)["rate"] < 8
    late = numbers.now(99 / 20 + 10)
    assert (late["rate"], late["age"]) == (0.0, 10.0)


def test_stages_are_medians_in_the_order_of_the_pipeline() -> None:
    numbers = Numbers()
    for index, seconds in enumerate((0.010, 0.011, 0.5)):
        numbers.add(frame(index, seconds={"own": 0.001, "infer": seconds, "capture": 0.002}), index / 10, 0)
    expected = [{"name": "capture", "ms": 2.0}, {"name": "infer", "ms": 11.0}, {"name": "own", "ms": 1.0}]
    assert numbers.now(0.3)["stages"] == expected


def test_delay_is_from_the_moment_of_capture_and_unknown_without_one() -> None:
    numbers = Numbers()
    numbers.add(frame(0), 10.0, 0)
    assert numbers.now(10.0)["delay"] is None
    numbers.add(frame(1, captured=10.06), 10.1, 3)
    assert (numbers.now(10.1)["delay"], numbers.now(10.1)["dropped"]) == (40.0, 3)


def test_the_past_holds_a_minute_in_steps() -> None:
    numbers = Numbers()
    for index in range(1000):
        numbers.add(frame(index, tracked(1, [0.2, 0.5, 0.3])), index / 10, 0)
    (past,) = numbers.past()
    steps = [after - before for before, after in zip(past["times"], past["times"][1:])]
    assert past["times"][-1] - past["times"][0] <= MINUTE < past["times"][-1] - past["times"][0] + 1
    assert min(steps) > 0.19 and max(steps) < 0.31
    assert past["rows"][0] == [0.2, 0.5, 0.3]


def test_the_past_breaks_where_a_face_was_out_of_view_and_not_where_frames_are_rare() -> None:
    numbers = Numbers()
    row = [1.0, 0.0, 0.0]
    for index in (0, 30, 60):
        numbers.add(frame(index, tracked(1, row)), index / 10, 0)
    for index in (61, 62):
        numbers.add(frame(index), index / 10, 0)
    numbers.add(frame(63, tracked(1, row)), 6.3, 0)
    assert numbers.past() == [{"track": 1, "times": [0.0, 3.0, 6.0, 6.1, 6.3], "rows": [row, row, row, [], row]}]


def test_tracks_that_left_are_forgotten_after_a_minute_and_many_are_bounded() -> None:
    numbers = Numbers()
    for index in range(200):
        numbers.add(frame(index, tracked(index + 1, [1.0, 0.0, 0.0])), index / 10, 0)
    assert [each["track"] for each in numbers.past()] == list(range(201 - MOST_TRACKS, 201))
    numbers.add(frame(1000), 100.0, 0)
    assert numbers.past() == []


def test_a_source_that_starts_again_starts_its_past_again() -> None:
    numbers = Numbers()
    for index in (100, 110, 0, 10):
        numbers.add(frame(index, tracked(1, [1.0, 0.0, 0.0])), index / 10, 0)
    assert numbers.past()[0]["times"] == [0.0, 1.0]


def test_numbers_that_are_not_finite_become_unknown() -> None:
    numbers = Numbers()
    face = tracked(1, [math.nan, math.inf, 0.33333334])
    numbers.add(frame(0, face, seconds={"infer": math.nan}, captured=1.0), math.inf, 0)
    told = numbers.now(1.0)
    assert told["faces"][0]["row"] == [None, None, 0.333]
    assert told["stages"] == [{"name": "infer", "ms": None}]
    json.dumps([told, numbers.past()], allow_nan=False)


def test_a_crowd_is_cut_and_counted() -> None:
    numbers = Numbers()
    numbers.add(frame(0, *(tracked(number, [1.0, 0.0, 0.0]) for number in range(1, 101))), 0.0, 0)
    told = numbers.now(0.0)
    assert (len(told["faces"]), told["more"]) == (MOST_FACES, 100 - MOST_FACES)
