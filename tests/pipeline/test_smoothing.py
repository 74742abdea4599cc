"""Smoothing over time: the formula, whatever the frame rate, and labels that do not flicker."""

from __future__ import annotations

from typing import List

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.pipeline.smoothing import MARGIN, Smoother

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
@given(st.lists(st.tuples(st.floats(0, 2), probabilities()), min_size=1, max_size=20), st.floats(0, 3))
def test_what_is_smoothed_stays_a_distribution_and_the_label_is_never_far_behind(shown, seconds: float) -> None:
    smoother, time = Smoother(seconds, CLASSES), 0.0
    for gap, one in shown:
        time += gap
        smoothed, label = smoother.update(1, time, one)
        assert smoothed.dtype == np.float32
        assert smoothed.sum() == pytest.approx(1, abs=1e-5)
        assert smoothed.max() - smoothed[label] <= MARGIN + 1e-6


def test_a_label_changes_only_with_a_lead() -> None:
    smoother = Smoother(0.4, 2)
    even = 0.5
    labels = []
    for index in range(100):
        lead = 0.4 * MARGIN * (-1) ** (index // 10)  # back and forth every 0.4 seconds, within the margin
        labels.append(smoother.update(1, index / 25, np.array([even + lead, even - lead], np.float32))[1])
    assert set(labels) == {0}
    clear = [smoother.update(1, 4 + index / 25, np.array([0.3, 0.7], np.float32))[1] for index in range(25)]
    assert clear[0] == 0 and clear[-1] == 1 and sorted(clear) == clear


def test_tracks_do_not_mix_and_forgotten_ones_start_anew() -> None:
    smoother = Smoother(1, 2)
    one, other = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    smoother.update(1, 0.0, one)
    assert smoother.update(2, 0.0, other)[1] == 1
    assert smoother.update(1, 0.1, other)[1] == 0
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
