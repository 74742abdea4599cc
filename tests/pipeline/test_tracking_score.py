"""The score of tracks and labels: what it counts, on cases counted by hand."""

from __future__ import annotations

from typing import Optional

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampnet_opt.faces.detection import Detection
from ampnet_opt.pipeline.frames import TrackedFace
from ampnet_opt.pipeline.tracking_score import Scorer
from ampnet_opt.synthetic.video import TrueFace

CLASSES = ("neutral", "happiness")
POINTS = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]], np.float32)


def found(x: float, track: Optional[int], label: int = 0, shift: float = 0.0) -> TrackedFace:
    detection = Detection((x, 0.0, 100.0, 100.0), 0.9, POINTS + np.float32([x + shift, 0]))
    probabilities = np.eye(2, dtype=np.float32)[label]
    return TrackedFace(detection, probabilities, probabilities, label, track)


def true(person: int, x: float, expression: str = "neutral", visible: float = 1.0) -> TrueFace:
    return TrueFace(person, (x, 0.0, 100.0, 100.0), POINTS + np.float32([x, 0]), expression, visible)


def test_faces_found_missed_and_false() -> None:
    scorer = Scorer(CLASSES)
    scorer.add(0.0, [found(0, 1), found(900, 2)], [true(1, 5), true(2, 300)])
    score = scorer.score()
    assert (score.visible, score.found, score.false_faces) == (2, 1, 1)


def test_hidden_and_small_faces_need_not_be_found_and_are_not_false() -> None:
    scorer = Scorer(CLASSES, least_side=101)
    scorer.add(0.0, [found(0, 1)], [true(1, 0), true(2, 300, visible=0.5)])
    score = scorer.score()
    assert (score.visible, score.found, score.false_faces) == (0, 0, 0)


def test_switches_are_counted_when_a_person_comes_back_with_another_number() -> None:
    scorer = Scorer(CLASSES)
    scorer.add(0.0, [found(0, 1), found(300, 2)], [true(1, 0), true(2, 300)])
    scorer.add(0.1, [found(0, 2), found(300, 1)], [true(1, 0), true(2, 300)])  # swapped: two
    scorer.add(0.2, [], [true(1, 0), true(2, 300)])
    scorer.add(0.3, [found(0, 2), found(300, 3)], [true(1, 0), true(2, 300)])  # one
    assert scorer.score().switches == 3


def test_a_person_keeps_the_face_of_his_track_where_two_overlap() -> None:
    scorer = Scorer(CLASSES)
    scorer.add(0.0, [found(0, 1)], [true(1, 0)])
    scorer.add(0.1, [found(30, 1), found(0, 2)], [true(1, 0)])
    score = scorer.score()
    assert (score.switches, score.false_faces) == (0, 1)


def test_changes_of_labels_stand_beside_the_truths() -> None:
    scorer = Scorer(CLASSES)
    for index, (label, expression) in enumerate([(0, "neutral"), (1, "neutral"), (0, "neutral"), (1, "happiness")]):
        scorer.add(index / 10, [found(0, 1, label)], [true(1, 0, expression)])
    score = scorer.score()
    assert (score.label_changes, score.true_label_changes) == (3, 1)
    assert score.right_labels == 0.75
    assert score.minutes == pytest.approx(0.4 / 60)
    assert score.person_minutes == pytest.approx(0.4 / 60)


@settings(max_examples=50, deadline=None)
@given(st.floats(-10, 10), st.floats(0, 6.28), st.floats(0.5, 3))
def test_a_constant_offset_is_told_from_scatter_whatever_the_turn_and_the_size(
    shift: float, turn: float, size: float
) -> None:
    scorer = Scorer(CLASSES)
    matrix = size * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    turned = TrackedFace(
        Detection((0, 0, 100, 100), 0.9, ((POINTS + np.array([shift, 0])) @ matrix).astype(np.float32)),
        *[np.ones(2)] * 2,
        0,
        1,
    )
    scorer.add(0.0, [found(0, 1, shift=shift)], [true(1, 0)])
    scorer.add(0.1, [turned], [TrueFace(1, (0, 0, 100, 100), (POINTS @ matrix).astype(np.float32), "neutral", 1.0)])
    score = scorer.score()
    assert score.landmark_error == pytest.approx(abs(shift) / 40, abs=1e-4)
    assert score.constant == pytest.approx(0, abs=1e-4)


def test_nothing_scored_is_no_share() -> None:
    score = Scorer(CLASSES).score()
    assert score.frames == score.visible == 0 and np.isnan(score.landmark_error) and np.isnan(score.right_labels)
