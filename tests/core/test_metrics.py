from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ampnet_opt.core.metrics import (
    accuracy,
    agreement,
    confusion_matrix,
    latency,
    macro_f1,
    macro_f1_estimate,
    sqnr,
    wilson,
)

shares = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
labelled = st.integers(2, 8).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=80),
    )
)


@given(shares)
def test_wilson_ends_are_where_the_score_test_turns(share: tuple[int, int]) -> None:
    successes, trials = share
    found = wilson(successes, trials)
    assert 0 <= found.low <= found.value <= found.high <= 1
    for end in (found.low, found.high):
        # The definition: the ends p solve (value - p)^2 = z^2 p (1 - p) / n.
        assert math.isclose((found.value - end) ** 2, 1.959964**2 * end * (1 - end) / trials, rel_tol=1e-4, abs_tol=1e-12)


@given(shares, st.integers(2, 50))
def test_wilson_shrinks_with_more_trials_of_the_same_share(share: tuple[int, int], times: int) -> None:
    few, many = wilson(*share), wilson(share[0] * times, share[1] * times)
    assert few.low <= many.low and many.high <= few.high
    assert many.high - many.low < few.high - few.low


def test_wilson_of_nothing_is_refused() -> None:
    for successes, trials in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="no share"):
            wilson(successes, trials)


def direct_macro_f1(pairs: list[tuple[int, int]]) -> float:
    """Precision and recall of each class by counting faces one at a time."""
    scores = []
    for c in {label for label, _ in pairs}:
        hits = sum(label == c and predicted == c for label, predicted in pairs)
        if not hits:
            scores.append(0.0)
            continue
        precision = hits / sum(predicted == c for _, predicted in pairs)
        recall = hits / sum(label == c for label, _ in pairs)
        scores.append(2 * precision * recall / (precision + recall))
    return sum(scores) / len(scores)


@given(labelled)
def test_macro_f1_equals_a_direct_count(case: tuple[int, list[tuple[int, int]]]) -> None:
    classes, pairs = case
    labels, predictions = np.array(pairs).T
    confusion = confusion_matrix(labels, predictions, classes)
    assert math.isclose(macro_f1(confusion), direct_macro_f1(pairs), abs_tol=1e-12)
    found = macro_f1_estimate(confusion)
    assert 0 <= found.low <= found.high <= 1
    assert found == macro_f1_estimate(confusion)


def test_bootstrap_equals_one_over_faces() -> None:
    rng = np.random.default_rng(5)
    labels = rng.choice(4, 150, p=[0.5, 0.3, 0.15, 0.05])
    predictions = np.where(rng.random(150) < 0.7, labels, rng.integers(0, 4, 150))
    drawn = rng.integers(0, 150, (4000, 150))
    scores = [macro_f1(confusion_matrix(labels[faces], predictions[faces], 4)) for faces in drawn]
    found = macro_f1_estimate(confusion_matrix(labels, predictions, 4))
    np.testing.assert_allclose([found.low, found.high], np.quantile(scores, [0.025, 0.975]), atol=0.015)
    assert found.low < found.value < found.high
    assert found != macro_f1_estimate(confusion_matrix(labels, predictions, 4), seed=1)


def test_accuracy_of_a_small_case() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2]]
    found = accuracy(logits, np.array([0, 0, 0, 1, 1]), ["a", "b", "c"])
    assert found.top1.value == 3 / 5
    assert [(r.name, r.faces, r.correct) for r in found.recalls] == [("a", 3, 2), ("b", 2, 1)]  # no face is labelled c
    assert found.recalls[0].recall == wilson(2, 3)
    assert math.isclose(found.macro_f1.value, (2 * 2 / 5 + 2 * 1 / 4) / 2)


def test_agreement_counts_faces_and_averages_logits() -> None:
    reference = np.array([[0, 1], [3, 2], [0, 5], [1, 0]], np.float32)
    found = agreement(reference + np.array([[0, 0], [0, 2], [0, 0], [0, -0.5]], np.float32), reference)
    assert found.same_top1 == wilson(3, 4)
    assert (found.largest, found.mean) == (2.0, 2.5 / 8)


def test_latency_in_milliseconds_and_images_per_second() -> None:
    found = latency([0.001 * i for i in range(1, 102)], batch=4)
    assert [found.p50, found.p90, found.p99] == pytest.approx([51, 91, 100])
    assert found.images_per_second == pytest.approx(4 * 101 / (0.051 * 101))
    assert found.runs == 101


signals = arrays(np.float32, (3, 4), elements=st.floats(0.125, 100, width=32))


@given(signals, st.floats(0.01, 10))
def test_sqnr_of_a_signal_scaled_wrongly(signal: np.ndarray, excess: float) -> None:
    wrong = signal.astype(np.float64) * (1 + excess)
    assert sqnr(signal, wrong) == pytest.approx(-20 * math.log10(excess), abs=1e-6)


@given(signals, st.integers(0, 11), st.sampled_from([-4.0, 0.5, 8.0]))
def test_sqnr_is_of_all_values_together_and_has_no_unit(signal: np.ndarray, place: int, unit: float) -> None:
    wrong = signal.copy()
    wrong.flat[place] += 1
    found = sqnr(signal, wrong)
    assert found == pytest.approx(10 * math.log10((signal.astype(float) ** 2).sum()), abs=1e-4)
    assert sqnr(signal * np.float32(unit), wrong * np.float32(unit)) == pytest.approx(found, abs=1e-4)


def test_sqnr_without_noise_is_infinite() -> None:
    assert sqnr(np.ones(3, np.float32), np.ones(3, np.float32)) == math.inf
