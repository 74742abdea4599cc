from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small import float_graph, placement, run

from ampnet_opt.calibration.collect import collect
from ampnet_opt.calibration.histogram import BINS, Histogram
from ampnet_opt.calibration.ranges import METHODS, entropy, minmax
from ampnet_opt.calibration.table import CalibrationTable, read_table, scale_of, shared_scales
from ampnet_opt.convert.export import random_faces
from ampnet_opt.convert.graph import GraphIndex
from ampnet_opt.errors import AmpnetError, MisuseError

values_of = arrays(
    np.float32,
    st.integers(0, 60),
    elements=st.one_of(st.floats(-1, 1, width=32), st.integers(-(2**20), 2**20).map(np.float32)).filter(
        lambda x: x == 0 or abs(x) > 1e-30
    ),
)


def filled(*batches: np.ndarray) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch)
    return histogram


@settings(max_examples=200, deadline=None)
@given(st.lists(values_of, max_size=6))
def test_histogram_of_batches_is_that_of_all_values(batches: list[np.ndarray]) -> None:
    histogram = filled(*batches)
    everything = abs(np.concatenate([np.zeros(0, np.float32), *batches]).astype(np.float64))
    assert histogram.counts.sum() == everything.size
    assert histogram.counts.min() >= 0
    assert histogram.amax == everything.max(initial=0)
    if not histogram.amax:
        assert histogram.limit == 0
        return
    assert histogram.amax <= histogram.limit < 2 * histogram.amax
    below = np.concatenate([[0], histogram.counts.cumsum()])
    edges = np.arange(BINS + 1) * histogram.width
    # float32 may put a value that is on an edge, to its seven digits, on either side of it
    ordered = np.sort(everything)
    assert (below[1:-1] >= np.searchsorted(ordered, edges[1:-1] * (1 - 1e-6))).all()
    assert (below[1:-1] <= np.searchsorted(ordered, edges[1:-1] * (1 + 1e-6), side="right")).all()


@given(st.lists(st.integers(-(2**12), 2**12), min_size=1, max_size=100), st.data())
@settings(deadline=None)
def test_histogram_equals_numpys_after_merging(numbers: list[int], data: st.DataObject) -> None:
    """Halves of integers and a limit that is a power of two have no rounding: equality is exact, in any batches."""
    values = np.array(numbers) + 0.5
    cut = data.draw(st.integers(0, len(values)))
    first = data.draw(st.sampled_from([1.0, 2.0, 64.0, 4096.0]))
    batches = [np.array([first]), values[:cut], values[cut:]]
    histogram = filled(*(batch.astype(np.float32) for batch in batches))
    assert math.log2(histogram.limit).is_integer()
    # The last bin takes its upper end as well, so the first value counts as just under it.
    everything = abs(np.append(values, np.nextafter(first, 0)))
    expected, _ = np.histogram(everything, BINS, (0, histogram.limit))
    np.testing.assert_array_equal(histogram.counts, expected)


def test_range_doubles_as_often_as_it_must() -> None:
    histogram = filled(np.array([1.0, 0.25]), np.array([5.0]))
    assert histogram.limit == 8 and histogram.amax == 5
    assert np.flatnonzero(histogram.counts).tolist() == [BINS // 32, BINS // 8 - 1, 5 * BINS // 8]


def test_nothing_and_zeros_have_no_range() -> None:
    assert (filled(np.zeros((0, 3), np.float32)).counts == 0).all()
    histogram = filled(np.zeros((2, 3), np.float32), np.zeros(1, np.float32))
    assert histogram.amax == histogram.limit == histogram.width == 0
    assert histogram.counts[0] == histogram.counts.sum() == 7
    assert entropy(histogram) == minmax(histogram) == entropy(Histogram()) == 0
    histogram.add(np.array([2], np.float32))
    assert histogram.counts[0] == 7 and histogram.amax == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        filled(np.array([1, bad, 2], np.float32))


def slow_entropy(histogram: Histogram) -> float:
    """The formula in the docstring of `entropy`, bin by bin."""
    counts = [float(count) for count in histogram.counts]
    counts[0] = counts[1]
    last = max(i for i, count in enumerate(counts) if count) + 1
    best, smallest = 0, math.inf
    for bins in range(128, last + 1, 8):
        kept = counts[:bins]
        p = [*kept[:-1], kept[-1] + sum(counts[bins:])]
        members: list[list[int]] = [[] for _ in range(128)]
        for i, count in enumerate(kept):
            if count:
                members[i * 128 // bins].append(i)
        q = [0.0] * bins
        for level in members:
            for i in level:
                q[i] = sum(kept[j] for j in level) / len(level)
        all_p, all_q = sum(p), sum(q)
        divergence = sum(a / all_p * math.log((a / all_p) / (b / all_q or 1e-10)) for a, b in zip(p, q, strict=True) if a)
        if divergence < smallest:
            best, smallest = bins, divergence
    return min((best + 0.5) * histogram.width, histogram.amax)


@pytest.mark.parametrize("kind", ["half-normal", "heavy-tailed", "after a ReLU"])
def test_entropy_is_its_formula(kind: str) -> None:
    rng = np.random.default_rng(len(kind))
    draws = {
        "half-normal": rng.normal(size=20_000),
        "heavy-tailed": rng.standard_t(4, 20_000),
        "after a ReLU": np.maximum(rng.normal(-1, 1, 40_000), 0),
    }
    histogram = filled(draws[kind].astype(np.float32))
    assert entropy(histogram) == pytest.approx(slow_entropy(histogram), rel=1e-12)


@pytest.mark.parametrize("distance", [3, 10, 30])
def test_one_far_outlier_does_not_set_the_range(distance: float) -> None:
    bulk = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    largest = float(abs(bulk).max())
    histogram = filled(bulk, np.array([largest * distance], np.float32))
    assert minmax(histogram) == pytest.approx(largest * distance)
    assert 0.4 * largest < entropy(histogram) < 1.1 * largest


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 100, 5000]), st.integers(0, 20))
def test_no_range_is_over_the_largest_value(seed: int, count: int, freedom: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_t(freedom, count) if freedom else rng.random(count)
    histogram = filled(values.astype(np.float32))
    assert 0 < entropy(histogram) <= histogram.amax
    assert METHODS["minmax"](histogram) == histogram.amax == abs(values.astype(np.float32)).max()


@given(st.floats(0.0, 1e6))
def test_scales_are_float16_and_barely_over_exact(amax: float) -> None:
    scale = scale_of(amax)
    assert float(np.float16(scale)) == scale
    assert scale >= amax / 127
    assert scale <= max(amax / 127, 2.0**-14) * 1.001


def test_a_tensor_of_zeros_has_the_smallest_normal_scale() -> None:
    assert scale_of(0.0) == 2.0**-14 == float(np.finfo(np.float16).tiny)


def test_a_group_shares_the_scale_of_its_largest() -> None:
    scales = shared_scales({"a": 1.0, "b": 5.0, "c": 3.0, "d": 2.0}, {"a": ["a", "b", "c"], "d": ["d"]})
    assert scales == {"a": scale_of(5.0), "b": scale_of(5.0), "c": scale_of(5.0), "d": scale_of(2.0)}


TABLE = CalibrationTable("entropy", 500, "ab" * 32, "cd" * 32, {"x": scale_of(1.0), "y/z": scale_of(37.3)})


def test_table_comes_back_as_written(tmp_path: Path) -> None:
    TABLE.write(tmp_path / "table.json")
    assert read_table(tmp_path / "table.json") == TABLE


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content.update(format="ampnet-opt-calibration/0"), "another format"),
        (lambda content: content.pop("format"), "not a calibration table"),
        (lambda content: content.pop("scales"), "not a calibration table"),
        (lambda content: content.update(more=1), "not a calibration table"),
        (lambda content: content.update(scales=[1.0]), "not a calibration table"),
        (lambda content: content["scales"].update(x="1"), "not a calibration table"),
        (lambda content: content["scales"].update(x=None), "not a calibration table"),
        (lambda content: content["scales"].update(x=0.0), "not a finite number over 0"),
        (lambda content: content["scales"].update(x=-1.0), "not a finite number over 0"),
        (lambda content: content["scales"].update(x=math.nan), "not a finite number over 0"),
        (lambda content: content["scales"].update(x=math.inf), "not a finite number over 0"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, edit: object, message: str) -> None:
    path = tmp_path / "table.json"
    TABLE.write(path)
    content = json.loads(path.read_text())
    edit(content)  # type: ignore[operator]
    path.write_text(json.dumps(content))
    with pytest.raises(AmpnetError, match=message):
        read_table(path)


@pytest.mark.parametrize("data", [b"", b"[]", b"3", b"\xff\xfe\x00", b"cut"])
def test_damaged_tables_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "table.json"
    TABLE.write(path)
    path.write_bytes(path.read_bytes()[:-20] if data == b"cut" else data)
    with pytest.raises(AmpnetError, match="not a calibration table"):
        read_table(path)


def test_a_missing_table_is_misuse(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="calibration table"):
        read_table(tmp_path / "none.json")


def test_collect_sees_what_the_graph_computes() -> None:
    tensors = list(placement().tensors)
    batches = [random_faces(count, "uint8", seed=count) for count in (1, 2)]
    done: list[int] = []
    histograms = collect(float_graph(), tensors, iter(batches), done.append)
    assert done == [1, 3]
    assert list(histograms) == tensors
    outputs = [run(float_graph(), batch, fetch=tensors) for batch in batches]
    for i, name in enumerate(tensors):
        values = np.concatenate([output[i] for output in outputs])
        assert histograms[name].counts.sum() == values.size
        assert histograms[name].amax == pytest.approx(abs(values).max(), rel=1e-6)


def test_weights_that_are_not_numbers_are_named() -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(float_graph())
    index = GraphIndex(broken.graph)
    stem = next(node for node in broken.graph.node if node.op_type == "Conv")
    weight = index.array(stem.input[1]).copy()
    weight.flat[0] = math.nan
    index.constants[stem.input[1]].CopyFrom(onnx.numpy_helper.from_array(weight, stem.input[1]))
    with pytest.raises(AmpnetError, match=r"tensor /model/\S+ holds NaN or infinity"):
        collect(broken, list(placement().tensors), [random_faces(1, "uint8")])
