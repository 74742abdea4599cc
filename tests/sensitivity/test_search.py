"""The choice of layers that stay in floating point: the search by itself, and on a network."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import faces, float_graph, placement, run
from test_sensitivity import LABELS, in_two_batches, int8

from ampnet_opt.convert.build import MixedPrecision
from ampnet_opt.convert.placement import place
from ampnet_opt.convert.quantize import quantize
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.runtime.backend import find_backend
from ampnet_opt.runtime.build import Origin
from ampnet_opt.sensitivity.analysis import Row, Sensitivity, ranked
from ampnet_opt.sensitivity.effect import Effect, effect
from ampnet_opt.sensitivity.mixed_precision import LayerJudge, choose_layers
from ampnet_opt.sensitivity.search import Budget, by_gain, search

costs = st.lists(st.integers(0, 50), min_size=1, max_size=40)


def rows_of(each: list[int]) -> list[Row]:
    """A unit per cost, the dearest first."""
    effects = [Effect(20.0, float(cost), 1.0, 1.0) for cost in each]
    return ranked([Row(f"u{i}", "layer", (f"l{i}",), (), found) for i, found in enumerate(effects)], "only")


class Judge:
    """A network in which every INT8 unit loses its cost in thousandths of top-1."""

    def __init__(self, each: list[int]) -> None:
        self.each = each
        self.asked: list[frozenset[str]] = []

    def __call__(self, kept: Collection[str]) -> Effect:
        self.asked.append(frozenset(kept))
        lost = sum(cost for i, cost in enumerate(self.each) if f"l{i}" not in kept)
        return Effect(20.0, 0.0, 1.0, 1 - lost / 1000)


@given(costs, st.integers(0, 600))
def test_the_choice_holds_and_is_smallest_where_costs_add_up(each: list[int], allowed: int) -> None:
    judge, budget = Judge(each), Budget(allowed / 10)
    if min(each) > allowed:
        with pytest.raises(AmpnetError, match="no choice of layers holds the budget"):
            search(rows_of(each), judge, 1.0, budget)
        return
    choice = search(rows_of(each), judge, 1.0, budget)
    layers = {layer for row in choice.kept for layer in row.layers}
    assert choice.measured == judge(layers)
    assert budget.holds(choice.measured, 1.0)
    # Sparing the dearest first is best when costs add up: no smaller number of units can hold.
    if choice.kept:
        fewest = sorted(each, reverse=True)[: len(choice.kept) - 1]
        assert sum(each) - sum(fewest) > allowed
    assert len({*judge.asked}) <= 2 * len(each) + 1  # bisection, then one for each unit that is given up again


def test_nothing_is_kept_where_all_layers_hold() -> None:
    judge = Judge([1, 1, 1])
    assert search(rows_of([1, 1, 1]), judge, 1.0, Budget(0.5)).kept == ()
    assert {*judge.asked} == {frozenset()}


def test_agreement_is_part_of_the_budget() -> None:
    budget = Budget(max_drop=0.3, min_agreement=0.99)
    assert budget.holds(Effect(0, 0, 0.99, 0.897), 0.9)
    assert not budget.holds(Effect(0, 0, 0.989, 0.9), 0.9)
    assert not budget.holds(Effect(0, 0, 1.0, 0.8969), 0.9)


def test_sqnr_is_part_of_the_budget_and_top1_need_not_be() -> None:
    budget = Budget(max_drop=None, min_agreement=0.9, min_sqnr=25.0)
    assert budget.holds(Effect(25.0, 0, 0.9, 0.0), 1.0)
    assert not budget.holds(Effect(24.9, 0, 1.0, 1.0), 1.0)
    assert not budget.holds(Effect(30.0, 0, 0.89, 1.0), 1.0)
    assert budget.holds(Effect(math.inf, 0, 1.0, 1.0), 1.0)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(0.3), "top-1 is 2.00 points under the float network's (allowed: 0.3) and 95.0% of the answers agree "),
        (Budget(None, 0.995), "with only u0 in INT8, 95.0% of the answers agree (needed: 99.5%); allow more"),
        (Budget(None, 0.9, 25), "agree (needed: 90%) and the SQNR of the logits is 20.0 dB (needed: 25); allow more"),
    ],
)
def test_a_refusal_says_what_was_found_beside_what_was_asked(budget: Budget, said: str) -> None:
    found = Effect(20.0, 1.0, 0.95, 0.5)
    with pytest.raises(AmpnetError) as caught:
        search(rows_of([1]), lambda kept: found, 0.52, budget)
    assert said in str(caught.value)


def ranking(**changes: object) -> Sensitivity:
    layers = placement().layers
    rows = [Row(name, "layer", (name,), (), Effect(20.0, 1.0 - i / 100, 1.0, 0.5)) for i, name in enumerate(layers)]
    known = int8().table
    same = {name: getattr(known, name) for name in ("graph_sha256", "data_fingerprint", "method")}
    fields = {**same, "mode": "only", **changes}
    return Sensitivity("c", faces=4, reference_top1=0.5, int8=rows[0].effect, rows=rows, **fields)  # type: ignore[arg-type]


def judge_for(backend: str, labels: np.ndarray) -> LayerJudge:
    origin = Origin(["a", "b", "c"], "uint8", 5, False, "0" * 64, "0" * 64)
    return LayerJudge(float_graph(), int8(), find_backend(backend), origin, batches=in_two_batches(), labels=labels)


def choose_for(backend: str, found: Sensitivity, budget: Budget, labels: np.ndarray) -> MixedPrecision:
    return choose_layers(judge_for(backend, labels), found, budget)


@pytest.mark.parametrize("backend", ["cpu", "tensorrt-rtx"])
def test_the_fewest_layers_of_a_network_are_kept(backend: str) -> None:
    reference = run(float_graph(), faces())[0]
    truth = reference.argmax(1)
    mixed = choose_for(backend, ranking(), Budget(0.0, 1.0), truth)
    record = mixed.record
    assert record["float_top1"] == 1.0 and record["top1"] == 1.0 and record["agreement"] == 1.0
    assert record["held_out_faces"] == len(truth)
    assert [row["name"] for row in record["float_layers"]] == list(mixed.layers)
    variant = quantize(float_graph(), place(float_graph(), mixed.layers), int8().table.scales, int8().corrections)
    again = effect(run(variant, faces())[0], reference, truth)
    assert again.top1 == 1.0
    assert again.sqnr_db == pytest.approx(record["sqnr_db"], abs=4)  # at 65 dB one value that is rounded differently is 2 dB


def test_what_one_order_of_the_layers_has_measured_is_not_measured_again_for_another() -> None:
    judge, judged = judge_for("tensorrt", LABELS), []
    backwards = replace(ranking(), rows=ranking().rows[::-1])
    for order in (ranking(), backwards):
        assert choose_layers(judge, order, Budget(None, 0.0), progress=judged.append).layers == ()
    assert len(judged) > 1 and {*judged} == {1}  # all layers in INT8 hold: nothing else is measured
    assert judge(()) is judge([])


def test_layers_are_kept_until_the_sqnr_holds() -> None:
    plain = choose_for("tensorrt", ranking(), Budget(None, 0.0), LABELS)
    wanted = plain.record["sqnr_db"] + 1.0
    mixed = choose_for("tensorrt", ranking(), Budget(None, 0.0, wanted), LABELS)
    assert not plain.layers and mixed.layers
    assert mixed.record["sqnr_db"] >= wanted == mixed.record["min_sqnr"]
    assert "max_drop" not in mixed.record


def test_a_budget_that_cannot_be_held_is_refused() -> None:
    # A label that the network never answers, and a top-1 that would have to rise.
    with pytest.raises(AmpnetError, match="no choice of layers holds the budget"):
        choose_for("tensorrt", ranking(), Budget(-101.0), LABELS)


@pytest.mark.parametrize(
    "changes", [{"graph_sha256": "x"}, {"method": "mse"}, {"mode": "all-but"}, {"data_fingerprint": "x"}]
)
def test_a_ranking_of_something_else_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(MisuseError, match="run ampnet-opt sensitivity"):
        choose_for("cpu", ranking(**changes), Budget(1.0), LABELS)


def test_layers_that_are_kept_are_float_in_the_graph() -> None:
    kept = placement().layers[:3]
    graph = quantize(float_graph(), place(float_graph(), kept), int8().table.scales, int8().corrections)
    weights = {node.name: node.input[1] for node in graph.graph.node if node.op_type in {"Conv", "Gemm"}}
    stored = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    assert all(stored[weights[name]] == onnx.TensorProto.FLOAT for name in kept)
    assert all(weights[name].endswith("_dequantized") for name in placement().layers[3:])


def test_an_effect_without_noise_is_null_in_json_and_infinite_again() -> None:
    without = Effect(math.inf, 0.0, 1.0, 0.5)
    text = json.dumps(without.record(), allow_nan=False)
    assert Effect.of(json.loads(text)) == without
    assert Effect.of(Effect(30.5, 0.1, 0.9, 0.5).record()) == Effect(30.5, 0.1, 0.9, 0.5)


def test_units_go_back_to_floating_point_by_noise_for_time() -> None:
    decibels, seconds = [20.0, 30.0, 20.0, 40.0], [1.0, 0.01, 0.5, 0.0]
    rows = [Row(f"u{i}", "layer", (f"l{i}",), (), Effect(db, 0.0, 1.0, 1.0)) for i, db in enumerate(decibels)]
    saved = {f"l{i}": value for i, value in enumerate(seconds)}
    # Noise for a second: 0.01, 0.1, 0.02; the last layer saves nothing, so that keeping it costs nothing.
    assert [row.name for row in by_gain(rows, saved)] == ["u1", "u3", "u2", "u0"]


@given(st.lists(st.tuples(st.floats(5, 60), st.floats(0, 1e-3)), min_size=1, max_size=20))
def test_with_equal_gains_the_noisiest_units_come_first(each: list[tuple[float, float]]) -> None:
    rows = [Row(f"u{i}", "layer", (f"l{i}",), (), Effect(db, 0.0, 1.0, 1.0)) for i, (db, _) in enumerate(each)]
    order = by_gain(rows, {row.layers[0]: 1e-4 for row in rows})
    assert [row.effect.sqnr_db for row in order] == sorted(db for db, _ in each)
    assert {row.name for row in by_gain(rows, {f"l{i}": took for i, (_, took) in enumerate(each)})} == {r.name for r in rows}


def test_no_more_units_are_tried_again_than_asked_for() -> None:
    judge = Judge([5] * 20)
    whole = search(rows_of([5] * 20), judge, 1.0, Budget(5.0))
    asked = len(judge.asked)
    judge = Judge([5] * 20)
    search(rows_of([5] * 20), judge, 1.0, Budget(5.0), trimmed=2)
    assert asked - len(judge.asked) == len(whole.kept) - 2
