"""Smoothing over time: the formula, whatever the frame rate, and labels that do not flicker."""

from __future__ import annotations

from itertools import takewhile
from typing import List, Tuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.pipeline.smoothing import HOLD, Smoother

CLASSES = 4


@st.composite
def probabilities(draw: st.DrawFn) -> np.ndarray:
    """A distribution over the classes."""
    weights = np.array(draw(st.lists(st.floats(0.01, 1), min_size=CLASSES, max_size=CLASSES)))
    return (weights / weights.sum()).astype(np.float32)


times = st.lists(st.floats(0.001, 1), min_size=1, max_size=8)


@settings(max_examples=80, deadline=None)
@given(probabilities(), probabilities(), times, st.floats(0.05, 3))
def test_smoothing_does_not_depend_on_the_frame_rate(first, then, gaps: List[float], seconds: float) -> None:
    """One frame after a time, or many frames like it within that time, give the same."""
    coarse, fine = Smoother(seconds, CLASSES), Smoother(seconds, CLASSES)
    for smoother in (coarse, fine):
        smoother.update(1, 0.0, first)
    for time in np.cumsum(gaps):
        smoothed, _ = fine.update(1, float(time), then)
    expected, _ = coarse.update(1, float(np.sum(gaps)), then)
    np.testing.assert_allclose(smoothed, expected, atol=1e-5)
    share = np.exp(-np.sum(gaps) / seconds)
    np.testing.assert_allclose(smoothed, share * first + (1 - share) * then, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.lists(probabilities(), min_size=1, max_size=10))
def test_no_seconds_leave_every_frame_exactly_as_it_is(shown: List[np.ndarray]) -> None:
    smoother = Smoother(0, CLASSES)
    for index, one in enumerate(shown):
        smoothed, label = smoother.update(1, index / 25, one)
        np.testing.assert_array_equal(smoothed, one)
        assert label == one.argmax()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 2), probabilities()), min_size=1, max_size=20), st.floats(0.05, 3))
def test_what_is_smoothed_stays_a_distribution_and_the_label_led_for_as_long_as_it_must(shown, seconds: float) -> None:
    smoother, time = Smoother(seconds, CLASSES), 0.0
    seen: List[Tuple[float, np.ndarray]] = []
    before = None
    for gap, one in shown:
        time += gap
        smoothed, label = smoother.update(1, time, one)
        assert smoothed.dtype == np.float32
        assert smoothed.sum() == pytest.approx(1, abs=1e-5)
        seen.append((time, smoothed))
        if before is not None and label != before:
            led = list(takewhile(lambda item: item[1][label] >= item[1].max() - 1e-6, reversed(seen)))  # noqa: B023
            assert led and time - led[-1][0] >= HOLD
        before = label


def test_a_class_that_leads_for_a_moment_is_not_shown() -> None:
    smoother, calm, other = Smoother(0.1, 2), np.array([0.9, 0.1], np.float32), np.array([0.0, 1.0], np.float32)
    shown = [other if 20 <= index < 24 else calm for index in range(50)]  # 0.16 seconds
    results = [smoother.update(1, index / 25, one) for index, one in enumerate(shown)]
    assert {int(smoothed.argmax()) for smoothed, _ in results} == {0, 1}
    assert {label for _, label in results} == {0}


@pytest.mark.parametrize("rate", [10, 25, 50])
def test_a_class_that_stays_is_shown_after_the_same_time_at_any_rate(rate: int) -> None:
    smoother, first, then = Smoother(0.4, 2), np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    smoother.update(1, 0.0, first)
    changed = next(i / rate for i in range(1, 5 * rate) if smoother.update(1, i / rate, then)[1] == 1)
    expected = 0.4 * np.log(2) + HOLD  # the averages cross at half
    assert expected <= changed <= expected + 2.5 / rate


def test_tracks_do_not_mix_and_forgotten_ones_start_anew() -> None:
    smoother = Smoother(1, 2)
    one, other = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    smoother.update(1, 0.0, one)
    assert smoother.update(2, 0.0, other)[1] == 1
    assert smoother.update(1, 0.1, other)[1] == 0
    assert smoother.update(2, 0.2, other)[0][1] == 1
    smoother.forget([1, 7])
    np.testing.assert_array_equal(smoother.update(1, 0.2, other)[0], other)


def test_going_back_in_time_starts_anew() -> None:
    smoother = Smoother(1, 2)
    smoother.update(1, 5.0, np.array([1, 0], np.float32))
    np.testing.assert_array_equal(smoother.update(1, 1.0, np.array([0, 1], np.float32))[0], [0, 1])


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(MisuseError, match="--smooth"):
        Smoother(seconds, CLASSES)


def test_other_classes_than_set_up_for_are_refused() -> None:
    with pytest.raises(MisuseError, match="4 classes"):
        Smoother(0.4, CLASSES).update(1, 0.0, np.ones(3, np.float32) / 3)
