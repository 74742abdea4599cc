"""Who is beaten, and who is tried first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampnet_opt.benchmarks.compare import Environment
from ampnet_opt.benchmarks.noninferiority import Margin, judge
from ampnet_opt.optimize.candidates import PRECISIONS, Candidate
from ampnet_opt.optimize.contest import Outcome
from ampnet_opt.optimize.result import reason
from ampnet_opt.optimize.speed import CLEAR, Speed
from ampnet_opt.optimize.trials import Trial, beaten_by, doubt, in_order

ROUNDS = 12


def speed(value: float, noise: np.ndarray | None = None) -> Speed:
    turns = value * (np.ones(ROUNDS) if noise is None else noise)
    return Speed(float(np.median(turns)), float(turns.min()), float(turns.max()), turns=turns.tolist())


def trial(precision: str, taken: Speed, float_layers: int = 0) -> Trial:
    return Trial(Candidate("cpu", precision, float_layers=float_layers), taken)


@st.composite
def trials(draw: st.DrawFn) -> list[Trial]:
    seed = draw(st.integers(0, 2**32 - 1))
    noise = np.random.default_rng(seed).uniform(1, 3, ROUNDS)  # of the rounds: all candidates meet it
    values = draw(st.lists(st.floats(1, 100), min_size=1, max_size=8))
    return [trial(draw(st.sampled_from(PRECISIONS)), speed(value, noise), i) for i, value in enumerate(values)]


@given(st.integers(0, 2**32 - 1), st.floats(1.03, 10))
def test_what_slows_down_whole_rounds_hides_no_difference(seed: int, ratio: float) -> None:
    noise = np.random.default_rng(seed).uniform(1, 20, ROUNDS)
    slow, fast = speed(ratio, noise), speed(1.0, noise)
    assert fast.beats(slow)
    assert not slow.beats(fast)


def test_a_difference_within_noise_or_within_two_per_cent_is_none() -> None:
    apart = np.where(np.arange(ROUNDS) % 2, 1.0, 1.3)
    assert not speed(1.0, apart).beats(speed(1.1, apart[::-1]))
    assert not speed(1.0).beats(speed(CLEAR - 0.001))
    assert speed(1.0).beats(speed(CLEAR + 0.001))


def test_without_rounds_in_common_the_intervals_decide() -> None:
    one, other = Speed(1.0, 0.9, 1.1), Speed(2.0, 1.5, 2.5)
    assert one.beats(other)
    assert not one.beats(Speed(1.2, 1.05, 1.4))


@given(trials())
def test_who_is_beaten_is_beaten_by_one_at_least_as_precise(found: list[Trial]) -> None:
    for one in found:
        winner = beaten_by(one, found)
        if winner is None:
            assert not any(x.beats(one) and x.candidate.distance <= one.candidate.distance for x in found if x is not one)
        else:
            assert winner.beats(one)
            assert winner.candidate.distance <= one.candidate.distance
    assert any(beaten_by(one, found) is None for one in found)


@given(trials())
def test_the_order_holds_all_and_who_comes_before_a_faster_one_is_more_precise(found: list[Trial]) -> None:
    order = in_order(found)
    assert sorted(map(id, order)) == sorted(map(id, found))
    for place, one in enumerate(order):
        for later in order[place + 1 :]:
            assert later.took.value >= one.took.value or one.candidate.distance < later.candidate.distance


def test_int8_that_is_clearly_faster_comes_first_and_else_after_the_precise_ones() -> None:
    fp32, bf16, int8 = (trial(name, speed(value)) for name, value in (("fp32", 8.0), ("bf16", 4.01), ("int8", 4.0)))
    assert [x.candidate.precision for x in in_order([fp32, bf16, int8])] == ["bf16", "int8", "fp32"]
    int8.speed = speed(3.0)
    assert [x.candidate.precision for x in in_order([fp32, bf16, int8])] == ["int8", "bf16", "fp32"]


@pytest.mark.parametrize("unsteady", ["", "engine", "PyTorch"])
def test_the_sentence_says_when_its_times_are_unsteady(unsteady: str) -> None:
    logits = np.eye(7, dtype=np.float32)[np.arange(700) % 7]
    best = trial("bf16", replace(speed(2.0), unsteady=unsteady == "engine"))
    best.final = judge(logits, logits, np.arange(700) % 7, tuple("abcdefg"), Margin(0.5, 0.99))
    reference = replace(speed(9.0), unsteady=unsteady == "PyTorch")
    told = reason(Outcome(best, [best], reference, Environment("", 2, "", {}, ""), threads=2), "latency", 2)
    assert told.startswith("cpu-bf16: 2.00 ms, 4.50 times as fast as PyTorch")
    assert ("(unsteady times)" in told) == bool(unsteady)


def test_a_doubt_says_what_would_settle_it() -> None:
    labels = np.zeros(100, int)
    logits = np.eye(2, dtype=np.float32)[labels]
    told = doubt(judge(logits, logits, labels, ("a", "b"), Margin()), Margin(), "final", 100)
    assert "not enough faces: on 100 final faces 100.0% of the answers agree" in told
    assert told.endswith("with these rates 539 final faces would show that it is right, there are 100")
    changed = logits.copy()
    changed[:50] = [0, 1]
    told = doubt(judge(logits, changed, labels, ("a", "b"), Margin()), Margin(), "final", 100)
    assert told.startswith("inferior: on 100 final faces 50.0% of the answers agree")
    assert "would show" not in told
