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
from onnxruntime.quantization.calibrate import (
    CalibrationDataReader,
    CalibrationMethod,
    HistogramCollector,
    create_calibrator,
)
from small import float_graph, placement, run

from ampnet_opt.calibration.histogram import BINS, Histogram, collect
from ampnet_opt.calibration.ranges import DEFAULT, METHODS, entropy, minmax, mse, percentile
from ampnet_opt.calibration.table import CalibrationTable, read_table, scale_of, shared_scales
from ampnet_opt.cli.options import METHOD
from ampnet_opt.convert.export import random_faces
from ampnet_opt.convert.graph import GraphIndex
from ampnet_opt.core.errors import AmpnetError, MisuseError

values_of = arrays(
    np.float32,
    st.integers(0, 60),
    elements=st.one_of(st.floats(-1, 1, width=32), st.integers(-(2**20), 2**20).map(np.float32)).filter(
        lambda x: x == 0 or abs(x) > 1e-30
    ),
)


def pad_batch(*batches: np.ndarray) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch)
    return histogram


@settings(max_examples=200, deadline=None)
@given(st.lists(values_of, max_size=6))
def test_histogram_of_batches_is_that_of_all_values(batches: list[np.ndarray]) -> None:
    histogram = pad_batch(*batches)
    everything = abs(np.concatenate([np.zeros(0, np.float32), *batches]).astype(np.float64))
    everything = everything[everything > 0]
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
    histogram = pad_batch(*(batch.astype(np.float32) for batch in batches))
    assert math.log2(histogram.limit).is_integer()
    # The last bin takes its upper end as well, so the first value counts as just under it.
    everything = abs(np.append(values, np.nextafter(first, 0)))
    expected, _ = np.histogram(everything, BINS, (0, histogram.limit))
    np.testing.assert_array_equal(histogram.counts, expected)


def test_range_doubles_as_often_as_it_must() -> None:
    histogram = pad_batch(np.array([1.0, 0.25]), np.array([5.0]))
    assert histogram.limit == 8 and histogram.amax == 5
    assert np.flatnonzero(histogram.counts).tolist() == [BINS // 32, BINS // 8 - 1, 5 * BINS // 8]


def test_nothing_and_zeros_have_no_range() -> None:
    histogram = pad_batch(np.zeros((0, 3), np.float32), np.zeros((2, 3), np.float32), np.array([-0.0], np.float32))
    assert histogram.amax == histogram.limit == histogram.width == 0
    assert (histogram.counts == 0).all()
    assert [method(histogram) for method in METHODS.values()] == [0] * len(METHODS)
    histogram.add(np.array([0, 2, 0, 0.0001], np.float32))
    assert histogram.amax == 2
    assert np.flatnonzero(histogram.counts).tolist() == [0, BINS - 1]
    assert histogram.counts.sum() == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        pad_batch(np.array([1, bad, 2], np.float32))


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


def drawn(kind: str, count: int = 25_000) -> np.ndarray:
    """Float32 values as layers give them; the same ones at every call."""
    rng = np.random.default_rng(len(kind))
    values = {
        "normal": lambda: rng.normal(size=count),
        "heavy-tailed": lambda: rng.standard_t(4, count),
        "even": lambda: rng.uniform(-1, 1, count),
        "after a ReLU": lambda: np.maximum(rng.normal(-1, 1, count), 0),
        "with an outlier": lambda: np.append(rng.normal(size=count), 20),
        "two populations": lambda: np.append(rng.normal(size=count), 5 * rng.normal(size=count // 100)),
        "pixels": lambda: rng.integers(0, 256, count) / 255,
    }
    return values[kind]().astype(np.float32)


KINDS = ["normal", "heavy-tailed", "even", "after a ReLU", "with an outlier", "two populations", "pixels"]
any_values = st.builds(
    lambda seed, count, freedom, zeros: np.append(
        np.random.default_rng(seed).standard_t(freedom, count) if freedom else np.random.default_rng(seed).random(count),
        np.zeros(zeros),
    ).astype(np.float32),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 100, 5000, 30_000]),
    st.integers(0, 20),
    st.sampled_from([0, 10_000]),
)


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_is_its_formula(kind: str) -> None:
    histogram = pad_batch(drawn(kind))
    assert entropy(histogram) == pytest.approx(slow_entropy(histogram), rel=1e-12)


@pytest.mark.parametrize("distance", [3, 10, 30])
def test_one_far_outlier_does_not_set_the_range(distance: float) -> None:
    bulk = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    largest = float(abs(bulk).max())
    histogram = pad_batch(bulk, np.array([largest * distance], np.float32))
    assert minmax(histogram) == pytest.approx(largest * distance)
    assert 0.4 * largest < entropy(histogram) < 1.1 * largest
    assert 0.4 * largest < percentile(histogram) < 1.1 * largest
    # An error counts by its square: the outlier is worth more to it than a thousand values of the bulk.
    assert 0.4 * largest < mse(histogram) < 0.9 * minmax(histogram)


@settings(max_examples=30, deadline=None)
@given(any_values)
def test_no_range_is_over_the_largest_value(values: np.ndarray) -> None:
    histogram = pad_batch(values)
    for name, method in METHODS.items():
        assert 0 < method(histogram) <= histogram.amax, name
    assert minmax(histogram) == abs(values).max()


@settings(max_examples=20, deadline=None)
@given(any_values, st.integers(-40, 40))
def test_ranges_go_with_the_unit(values: np.ndarray, exponent: int) -> None:
    """A power of two changes no digit of float32: the ranges are multiplied exactly."""
    once, scaled = pad_batch(values), pad_batch(values * np.float32(2.0**exponent))
    for name, method in METHODS.items():
        assert method(scaled) == method(once) * 2.0**exponent, name


@settings(max_examples=20, deadline=None)
@given(any_values, st.sampled_from([1, 1_000, 200_000]))
def test_zeros_and_signs_say_nothing_of_the_range(values: np.ndarray, zeros: int) -> None:
    signs = np.where(np.arange(values.size) % 3, 1, -1).astype(np.float32)
    for name, method in METHODS.items():
        assert method(pad_batch(np.append(np.zeros(zeros, np.float32), values * signs))) == method(pad_batch(values)), name


@settings(max_examples=40, deadline=None)
@given(any_values)
def test_percentile_is_that_of_the_values(values: np.ndarray) -> None:
    histogram = pad_batch(values)
    magnitudes = np.sort(abs(values[values != 0]))
    last = magnitudes[magnitudes.size - magnitudes.size // 10_000 - 1]
    margin = 1e-6 * histogram.amax  # an edge of a bin is exact to float32's seven digits
    assert last - margin <= percentile(histogram) <= last + histogram.width + margin


@pytest.mark.parametrize("kind", KINDS)
def test_percentile_is_numpys_quantile(kind: str) -> None:
    values = drawn(kind, 123_456)
    histogram = pad_batch(values)
    expected = np.quantile(abs(values[values != 0]).astype(np.float64), 0.9999, method="inverted_cdf")
    assert 0 <= percentile(histogram) - expected * (1 - 1e-6) <= histogram.width * 1.001


def squared_error(values: np.ndarray, limit: float) -> float:
    """Mean squared error of symmetric INT8 over -limit to limit."""
    scale = limit / 127
    return float(np.mean((values - scale * np.clip(np.rint(values / scale), -127, 127)) ** 2))


@pytest.mark.parametrize("kind", KINDS)
def test_mse_is_its_formula(kind: str) -> None:
    histogram = pad_batch(drawn(kind))
    centres = (np.arange(BINS) + 0.5) * histogram.width
    values = np.repeat(centres, histogram.counts)
    used = int(np.flatnonzero(histogram.counts)[-1]) + 1
    candidates = [*centres[128:used:8], histogram.amax]
    errors = [squared_error(values, candidate) for candidate in candidates]
    assert squared_error(values, mse(histogram)) == pytest.approx(min(errors), rel=1e-9)
    assert min(abs(mse(histogram) - candidate) for candidate in candidates) < 1e-9 * histogram.amax


@settings(max_examples=15, deadline=None)
@given(any_values)
def test_no_range_has_a_smaller_error_than_that_of_mse(values: np.ndarray) -> None:
    """But for what the histogram cannot see.

    The distance of a value to the nearest INT8 value changes by no more than the value does. So counting a value as the
    centre of its bin changes the root mean square of the errors by half a bin at most, and the comparison of two ranges by
    a bin; between two candidates, 8 bins apart, it changes by no more than 4 bins / 127 for rounding and 4 for clipping.
    """
    histogram = pad_batch(values)
    values = values[values != 0].astype(np.float64)
    found = math.sqrt(squared_error(values, mse(histogram)))
    assert mse(histogram) <= histogram.amax
    for limit in np.linspace(0.05, 1, 60) * histogram.amax:
        assert found <= math.sqrt(squared_error(values, limit)) + 6 * histogram.width, limit / histogram.amax
    for candidate in np.minimum((np.arange(128, BINS, 248) + 0.5) * histogram.width, histogram.amax):
        assert found <= math.sqrt(squared_error(values, candidate)) + 1.01 * histogram.width, candidate / histogram.amax


def orts_collector(method: str, bins: int) -> HistogramCollector:
    return HistogramCollector(
        method, symmetric=True, num_bins=bins, num_quantized_bins=256, percentile=99.99, scenario="same"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_percentile_is_onnx_runtimes_but_for_a_bin(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime gives the lower edge of the bin in which the share is reached, and this package the upper one."""
    histogram = pad_batch(drawn(kind))
    amax = np.float64(histogram.amax)
    collector = orts_collector("percentile", BINS)
    edges = np.linspace(0, histogram.limit, BINS + 1)
    collector.histogram_dict["x"] = (histogram.counts, edges, -amax, amax)
    low, high, *_ = collector.compute_collection_result()["x"]
    assert low == -high
    assert percentile(histogram) == pytest.approx(min(high + histogram.width, amax), rel=1e-9)


@pytest.mark.parametrize("kind", ["normal", "heavy-tailed", "even", "with an outlier", "two populations"])
def test_entropy_is_near_onnx_runtimes(kind: str) -> None:
    """ONNX Runtime takes the histogram with signs, here this one and its mirror image, and as many levels on each side.

    It merges a whole number of bins into a level, what remains going to the last, and smooths both distributions: the
    thresholds are not the same, but neither is far from the other.
    """
    histogram = pad_batch(drawn(kind, 200_000))
    amax = np.float64(histogram.amax)
    side = histogram.counts.reshape(-1, 4).sum(1)  # its loops take minutes for more bins
    width = histogram.limit / side.size
    signed = np.concatenate([side[:0:-1], [2 * side[0]], side[1:]])
    edges = (np.arange(2 * side.size) - side.size + 0.5) * width
    low, high = orts_collector("entropy", signed.size).get_entropy_threshold((signed, edges, -amax, amax), 256)
    assert low == pytest.approx(-high)
    assert 0.75 < entropy(histogram) / high < 1.35


def tiny_graph(factor: float = 3.0) -> onnx.ModelProto:
    """A graph of the inputs that `collect` feeds, but image float32 [N, 64]: `relu`, `scaled` (by `factor`) and `points`."""
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["image"], ["relu"], "relu"),
            helper.make_node("Mul", ["image", "factor"], ["scaled"], "scaled"),
            helper.make_node("Flatten", ["landmarks"], ["points"], "points"),
            helper.make_node("Concat", ["relu", "scaled", "points"], ["logits"], "concat", axis=1),
        ],
        "tiny",
        [
            helper.make_tensor_value_info("image", floats, ["N", 64]),
            helper.make_tensor_value_info("landmarks", floats, ["N", 5, 2]),
        ],
        [helper.make_tensor_value_info("logits", floats, ["N", 138])],
        [helper.make_tensor("factor", floats, [], [factor])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


TENSORS = ("relu", "scaled", "points")


def test_minmax_is_onnx_runtimes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    batches = [
        (rng.normal(0, 10**i, (3, 64)).astype(np.float32), rng.normal(0, 0.1, (3, 5, 2)).astype(np.float32))
        for i in range(3)
    ]

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({"image": images, "landmarks": points} for images, points in self.left), None)

    onnx.save(tiny_graph(), tmp_path / "graph.onnx")
    calibrater = create_calibrator(
        str(tmp_path / "graph.onnx"),
        augmented_model_path=str(tmp_path / "tapped.onnx"),
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"symmetric": True},
    )
    calibrater.collect_data(Reader())
    theirs = calibrater.compute_data().data
    for name, histogram in collect(tiny_graph(), TENSORS, batches).items():
        assert minmax(histogram) == theirs[name].range_value[1].item()


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


TABLE = CalibrationTable(
    "entropy",
    500,
    "ab" * 32,
    "cd" * 32,
    {"x": scale_of(1.0), "y/z": scale_of(37.3)},
    corrections={"layer": "AACAPw=="},
    large_tensors={"y/z": 2e4},
)


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
        (lambda content: content["scales"].update(x=0.0), "not a number from 6.1e-05 to 65504"),
        (lambda content: content["scales"].update(x=-1.0), "not a number from"),
        (lambda content: content["scales"].update(x=1e-7), "not a number from"),
        (lambda content: content["scales"].update(x=1e5), "not a number from"),
        (lambda content: content["scales"].update(x=True), "not a calibration table"),
        (lambda content: content.update(checkpoint_sha256=5), "not a calibration table"),
        (lambda content: content["scales"].update(x=math.nan), "not a finite number"),
        (lambda content: content["scales"].update(x=math.inf), "not a finite number"),
        (lambda content: content.update(corrections=[1.0]), "not a calibration table"),
        (lambda content: content["corrections"].update(layer=[1.0]), "not a calibration table"),
        (lambda content: content["corrections"].update(layer="AACAPw"), "correction of 'layer' is no base64 of finite"),
        (lambda content: content["corrections"].update(layer="AACA"), "correction of 'layer' is no base64 of finite"),
        (lambda content: content["corrections"].update(layer=""), "correction of 'layer' is no base64 of finite"),
        (lambda content: content["corrections"].update(layer="AADAfw=="), "correction of 'layer' is no base64 of finite"),
        (lambda content: content["corrections"].update(layer="ÄÄÄÄ"), "correction of 'layer' is no base64 of finite"),
        (lambda content: content.update(large_tensors={"x": "1"}), "not a calibration table"),
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
        assert histograms[name].counts.sum() == np.count_nonzero(values)
        assert histograms[name].amax == pytest.approx(abs(values).max(), rel=1e-6)


def test_collect_goes_on_with_what_it_is_given() -> None:
    rng = np.random.default_rng(1)
    batches = [(rng.normal(0, i + 1, (2, 64)).astype(np.float32), np.ones((2, 5, 2), np.float32)) for i in range(5)]
    whole = collect(tiny_graph(), TENSORS, batches)
    parts = collect(tiny_graph(), TENSORS, batches[:2])
    done: list[int] = []
    assert collect(tiny_graph(), TENSORS, batches[2:], done.append, parts) is parts
    assert done == [2, 4, 6]
    for name in TENSORS:
        assert (parts[name].limit, parts[name].amax) == (whole[name].limit, whole[name].amax)
        np.testing.assert_array_equal(parts[name].counts, whole[name].counts)


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


def test_the_commands_have_the_default_of_the_methods() -> None:
    assert METHOD.default == DEFAULT in METHODS
