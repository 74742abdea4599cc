"""Bounds and verdicts, against simulation, brute force and textbook numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ampnet_opt.benchmarks.noninferiority import (
    INFERIOR,
    NON_INFERIOR,
    UNDECIDED,
    Counts,
    Margin,
    Z,
    agreement_bound,
    count_answers,
    drop_bound,
    faces_needed,
    is_non_inferior,
    judge,
    mcnemar,
    score,
    verdict,
)

CLASSES = ("a", "b", "c")


@st.composite
def counts(draw: st.DrawFn) -> Counts:
    faces = draw(st.integers(1, 3000))
    lost = draw(st.integers(0, faces))
    won = draw(st.integers(0, faces - lost))
    return Counts(faces, lost, won, draw(st.integers(lost + won, faces)))


@given(counts())
def test_the_bound_of_the_drop_is_where_the_score_is_just_rejected(found: Counts) -> None:
    bound = drop_bound(found)
    assert -1 < bound < 1
    assert bound >= (found.lost - found.won) / found.faces - 1e-9
    assume(abs(bound) < 1 - 1e-6 and abs(bound) > 1e-6)
    assert score(found, bound) == pytest.approx(-Z, abs=1e-3)


def test_without_a_discordant_face_the_bound_is_the_closed_form() -> None:
    # score = -sqrt(n d / (1 - d)) = -Z, so d = Z^2 / (n + Z^2)
    for faces in (10, 541, 100_000):
        assert drop_bound(Counts(faces, 0, 0, 0)) == pytest.approx(Z**2 / (faces + Z**2), rel=1e-6)
    assert verdict(Counts(538, 0, 0, 0), Margin()) == UNDECIDED
    assert verdict(Counts(539, 0, 0, 0), Margin()) == NON_INFERIOR


@pytest.mark.parametrize(("lost", "won", "agree"), [(0.008, 0.003, 0.985), (0.003, 0.003, 0.992), (0.06, 0.03, 0.9)])
def test_bounds_cover_the_truth_in_95_of_100_samples(lost: float, won: float, agree: float) -> None:
    faces, trials = 1000, 1500
    rng = np.random.default_rng(1)
    table = rng.multinomial(faces, [lost, won, 1 - agree - lost - won, agree], trials)
    drops = [drop_bound(Counts(faces, b, c, b + c + d)) >= lost - won for b, c, d, _ in table]
    alike = [agreement_bound(Counts(faces, b, c, b + c + d)) <= agree for b, c, d, _ in table]
    for covered in (drops, alike):
        assert 0.935 <= np.mean(covered) <= 0.975


@given(counts(), st.floats(0.05, 200), st.floats(0, 0.9999) | st.just(0.0))
def test_verdicts_exclude_each_other_and_follow_the_bounds(found: Counts, max_drop: float, min_agreement: float) -> None:
    margin = Margin(max_drop, min_agreement)
    shown = verdict(found, margin)
    holds = drop_bound(found) <= max_drop / 100 and agreement_bound(found) >= min_agreement
    assert (shown == NON_INFERIOR) == holds
    if shown == INFERIOR:
        beyond_drop = (found.lost - found.won) / found.faces > max_drop / 100
        assert beyond_drop or 1 - found.changed / found.faces < min_agreement


def test_a_shown_loss_is_inferior_and_a_suspected_one_is_not() -> None:
    assert verdict(Counts(1000, 30, 5, 40), Margin()) == INFERIOR
    assert verdict(Counts(1000, 0, 0, 30), Margin()) == INFERIOR  # 97 % agreement, whatever the labels
    assert verdict(Counts(20, 1, 0, 1), Margin()) == UNDECIDED


@given(counts(), st.floats(0.1, 5), st.floats(0.9, 0.999))
def test_the_faces_needed_are_the_fewest(found: Counts, max_drop: float, min_agreement: float) -> None:
    margin = Margin(max_drop, min_agreement)
    needed = faces_needed(found, margin)
    if needed is None:
        rate = (found.lost - found.won) / found.faces
        assert rate >= max_drop / 100 - 1e-6 or 1 - found.changed / found.faces <= min_agreement + 1e-6
    else:
        assert is_non_inferior(found.scaled(needed), margin)
        assert needed == 1 or not is_non_inferior(found.scaled(needed - 1), margin)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_tail_of_the_binomial(lost: int, won: int) -> None:
    trials = lost + won
    tail = sum(math.comb(trials, k) for k in range(lost, trials + 1)) / 2**trials
    assert mcnemar(lost, won) == pytest.approx(tail, abs=1e-12)


def _logits(answers: np.ndarray) -> np.ndarray:
    return np.eye(len(CLASSES), dtype=np.float32)[answers]


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_counts_are_those_of_counting_by_hand(seed: int, faces: int) -> None:
    labels, before, after = np.random.default_rng(seed).integers(0, 3, (3, faces))
    found = count_answers(_logits(before), _logits(after), labels)
    rows = list(zip(labels.tolist(), before.tolist(), after.tolist(), strict=True))
    assert found == Counts(
        faces,
        sum(b == label != a for label, b, a in rows),
        sum(a == label != b for label, b, a in rows),
        sum(a != b for _, b, a in rows),
    )


def test_evidence_of_an_engine_that_loses_one_class() -> None:
    labels = np.repeat([0, 1], 1000)
    before, after = labels.copy(), labels.copy()
    after[:100] = 2
    found = judge(_logits(before), _logits(after), labels, CLASSES, Margin())
    assert found.verdict == INFERIOR
    assert found.needed is None
    assert found.drop.value == pytest.approx(5.0)
    assert found.drop.bound > 5.0
    assert found.agreement.value == pytest.approx(0.95)
    assert found.p_value < 1e-12
    assert [(row.name, row.faces) for row in found.recalls] == [("a", 1000), ("b", 1000)]
    first, second = (row.drop for row in found.recalls)
    # The bootstrap of a share of 10 % of 1,000: a standard deviation of 0.95 points.
    assert first.value == pytest.approx(10.0)
    assert first.bound == pytest.approx(10 + Z * 0.95, abs=0.2)
    assert (second.value, second.bound) == (0.0, 0.0)
    # F1 of class a falls from 1 to 2 x 900 / (1000 + 900); b keeps 1; c has no label.
    assert found.macro_f1.value == pytest.approx(100 * (1 - (1800 / 1900 + 1) / 2))


def test_equal_answers_need_faces_all_the_same() -> None:
    labels = np.zeros(100, int)
    found = judge(_logits(labels), _logits(labels), labels, CLASSES, Margin())
    assert (found.verdict, found.needed, found.p_value) == (UNDECIDED, 539, 1.0)
