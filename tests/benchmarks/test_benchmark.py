"""Engines against each other: differences beyond noise, tables, pictures, regressions and the command. No time is tested."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
from console_script import fails, succeeds
from engines import save_engine
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ampnet_opt.benchmarks import bench_layers
from ampnet_opt.benchmarks.bench import FEWEST_RUNS, Bench, Measured, Timing, _verdicts, benchmark
from ampnet_opt.benchmarks.bench_many import ManyTiming
from ampnet_opt.benchmarks.bench_noise import FEWEST_TURNS, Interval, depth, median_interval, unsteady
from ampnet_opt.benchmarks.bench_report import draw_benchmark, render_benchmark, render_changes, sentence, short_name
from ampnet_opt.benchmarks.compare import Environment
from ampnet_opt.benchmarks.power import Power
from ampnet_opt.benchmarks.regression import ELSEWHERE, FASTER, SAME, SLOWER, changes, read_accuracy, read_benchmark
from ampnet_opt.benchmarks.workers import TURN
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.installing import install_command
from ampnet_opt.core.metrics import Estimate, Latency, latency
from ampnet_opt.runtime.sidecar import BatchRange, read_sidecar
from ampnet_opt.runtime.tensorrt.profiler import new_profiler

pytest.importorskip("openvino", reason="the engines of these tests run in OpenVINO")
HERE = Environment("a processor", 2, "a system", {"openvino": "1"}, "2026-01-01T00:00:00+00:00")
times = st.lists(st.floats(1e-3, 1e3), min_size=FEWEST_TURNS * TURN, max_size=20 * TURN)


@given(times)
def test_the_interval_holds_the_median_and_lies_within_the_turns(values: list[float]) -> None:
    found = median_interval(values, TURN)
    assert min(values) <= found.low <= np.median(values) <= found.high <= max(values)


@given(times, st.floats(0.1, 10))
def test_the_interval_grows_with_the_times(values: list[float], factor: float) -> None:
    one, other = median_interval(values, TURN), median_interval([factor * value for value in values], TURN)
    assert (other.low, other.high) == pytest.approx((factor * one.low, factor * one.high))


@pytest.mark.parametrize("count", [6, 7, 10, 25, 60, 2000])
def test_the_interval_covers_the_median_often_enough_and_is_no_wider(count: int) -> None:
    def missed(k: int) -> float:
        return 2 * sum(comb(count, i) for i in range(k)) / 2**count  # fewer than k of the medians on one side

    assert missed(depth(count)) <= 0.05 < missed(depth(count) + 1)


def test_five_turns_are_too_few_for_an_interval() -> None:
    assert depth(FEWEST_TURNS) == 1 and depth(FEWEST_TURNS - 1) == 0
    with pytest.raises(ValueError, match="less than 6 turns"):
        median_interval([1.0] * (FEWEST_TURNS * TURN - 1), TURN)


def test_a_slow_turn_does_not_move_the_interval_and_slow_runs_are_unsteady() -> None:
    quiet = [5.0 + 0.01 * (i % TURN) for i in range(60)]
    one_slow_turn = [*quiet[:-TURN], *[50.0] * TURN]
    assert median_interval(one_slow_turn, TURN).high < 5.1
    took = [latency([value / 1e3 for value in values], 1) for values in (quiet, [5.0] * 40 + [9.0] * 20)]
    assert not unsteady(took[0], median_interval(quiet, TURN))
    assert unsteady(took[1], median_interval(quiet, TURN))
    assert unsteady(took[0], Interval(4.0, 5.1))


def timing(p50: float, low: float, high: float, batch: int = 1, **more: Any) -> Timing:
    return Timing(batch, Latency(p50, p50, p50, 1e3 * batch / p50, 50), Interval(low, high), False, 1.0, 10**8, **more)


def measured(name: str, *timings: Timing, backend: str = "cpu") -> Measured:
    return Measured(name, backend, "int8", True, "0" * 64, 10**6, list(timings))


def bench(*engines: Measured, **changed: Any) -> Bench:
    batches = [timing.batch for timing in engines[0].timings]
    return replace(Bench(2, batches, HERE, None, list(engines), _verdicts(engines), ["a note"]), **changed)


def test_faster_is_said_where_intervals_do_not_overlap_alone() -> None:
    slow, middle, fast = timing(8, 7, 9), timing(6, 4.5, 7), timing(4, 3, 5)
    near, far = _verdicts([measured("c", slow), measured("b", middle), measured("a", fast)])
    assert (near.faster, near.slower, near.shown) == ("a", "b", False)
    assert (far.faster, far.slower, far.shown, far.ratio) == ("a", "c", True, 2)
    assert sentence(far) == "a is 2.00x faster than c"
    assert sentence(near).startswith("a and b: no difference shown")


def test_changes_are_judged_by_intervals_the_worst_first() -> None:
    before = bench(*(measured(name, timing(4, 3, 5)) for name in "abc"))
    after = bench(
        measured("a", timing(2, 1, 2.5)), measured("b", timing(4.4, 3.5, 5)), measured("c", timing(6, 5.5, 7)),
        measured("new", timing(1, 1, 1)),
    )  # fmt: skip
    found, notes = changes(json.loads(before.to_json()), after)
    assert [(c.name, c.verdict) for c in found] == [("c", SLOWER), ("b", SAME), ("a", FASTER)]
    assert found[0].ratio == 1.5 and (found[0].before, found[0].after) == (4, 6)
    assert notes == ["not measured then: new at batch 1"]


def test_another_machine_is_said_and_not_judged() -> None:
    before = json.loads(bench(measured("a", timing(4, 3, 5))).to_json())
    there = replace(HERE, cpu="another", versions={"openvino": "2"})
    found, notes = changes(before, bench(measured("a", timing(9, 8, 10)), environment=there))
    assert [change.verdict for change in found] == [ELSEWHERE]
    assert notes == ["processor was a processor, and is another now", "openvino was 1, and is 2 now"]
    found, notes = changes(before, bench(measured("a", timing(9, 8, 10)), environment=replace(HERE, system="new kernel")))
    assert [change.verdict for change in found] == [SLOWER] and len(notes) == 1


def test_other_threads_are_not_compared_where_they_matter() -> None:
    engines = measured("a", timing(4, 3, 5)), measured("gpu", timing(4, 3, 5), backend="tensorrt")
    found, notes = changes(json.loads(bench(*engines).to_json()), bench(*engines, threads=1))
    assert [change.name for change in found] == ["gpu"]
    assert notes == ["a had 2 threads, and has 1 now: not compared"]


@pytest.mark.parametrize("damage", ["[]", "{}", '{"format": "other/1"}', "no JSON", '{"format": "ampnet-opt-benchmark/1"}'])
def test_what_is_no_benchmark_is_refused(damage: str, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(damage)
    with pytest.raises(MisuseError, match="is not a file of ampnet-opt benchmark --json"):
        read_benchmark(tmp_path / "old.json")


def text_of(part: Any, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(part)
    return console.export_text()


def test_the_table_is_read_at_100_columns() -> None:
    drawn = Power(sensor="a sensor", watts=12.34, joules_per_image=0.0456)
    engines = (
        measured("cpu-int8", replace(timing(4, 3, 5, power=drawn), unsteady=True), timing(40, 39, 41, 8)),
        measured("a-renamed-engine", timing(8, 7, 9), timing(80, 79, 81, 8)),
    )
    text = text_of(render_benchmark(bench(*engines, accuracy={"cpu-int8": Estimate(0.842, 0.8, 0.88)})), 100)
    assert "…" not in text and max(map(len, text.splitlines())) <= 100
    assert "Batch 1, 2 threads, 50 runs" in text and "Batch 8" in text
    for words in ("25%", "45.6", "84.2", "unsteady", "cpu int8", "a note"):
        assert words in text
    assert text.count("cpu-int8 is 2.00x faster than a-renamed-engine") == 2
    assert "Many faces" not in text
    only = text_of(render_benchmark(bench(measured("cpu-int8", timing(4, 3, 5)))), 80)
    assert "cpu int8" not in only and "mJ/img" not in only and "top-1" not in only and "…" not in only


def many(engine: Measured, p50: float, low: float, high: float, **changed: Any) -> Measured:
    return replace(engine, many=replace(ManyTiming(100, p50, Interval(low, high), False, 10**8), **changed))


def test_the_rate_of_many_faces_has_a_table_and_verdicts_of_its_own() -> None:
    a, b = (
        many(measured("a", timing(4, 3, 5)), 2, 1.8, 2.1),
        many(measured("b", timing(6, 5, 7)), 5, 4.5, 5.5, unsteady=True),
    )
    text = text_of(render_benchmark(bench(a, b)), 80)
    _, table = text.split("Many faces, 2 threads")
    assert "500" in table and "200" in table and "10%" in table and "a is 2.50x faster than b" in table
    assert "unsteady: b" in table and "…" not in table


def test_changes_are_read_at_80_columns() -> None:
    before = json.loads(bench(many(measured("cpu-int8", timing(4, 3, 5)), 2, 1.5, 2.5)).to_json())
    now = bench(many(measured("cpu-int8", timing(8, 7, 9)), 6, 5, 7))
    found, notes = changes(before, now)
    assert [(change.batch, change.ratio, change.verdict) for change in found] == [(None, 3, SLOWER), (1, 2, SLOWER)]
    text = text_of(render_changes(found, notes, "old.json"), 80)
    assert "2.00" in text and "many" in text and "slower" in text and "…" not in text
    before["engines"][0]["many"] = None  # as files of older versions, which had no such mode
    assert changes(before, now)[1] == ["not measured then: cpu-int8 with many faces"]
    assert "nothing to compare" in text_of(render_changes([], ["why"], "old.json"), 80)


def test_layers_are_named_without_what_exporters_add() -> None:
    assert short_name("/model/stem/conv/Conv/WithoutBiases") == "stem"
    assert short_name("/model/local.0/Relu_1") == "local.0/Relu_1"
    assert short_name("Reformatting CopyNode") == "Reformatting CopyNode"


@pytest.mark.parametrize("accuracy", [{}, {"a": Estimate(0.84, 0.8, 0.88)}])
def test_the_picture_has_a_panel_for_accuracy_where_it_is_known(accuracy: dict[str, Estimate], tmp_path: Path) -> None:
    from PIL import Image

    pytest.importorskip("matplotlib", reason="draws")
    a, b = measured("a", timing(4, 3, 5), timing(20, 19, 22, 8)), measured("b", timing(6, 5, 7), timing(40, 39, 45, 8))
    engines = many(a, 2, 1.9, 2.1), b
    draw_benchmark(tmp_path / "picture.png", bench(*engines, accuracy=accuracy))
    width, height = Image.open(tmp_path / "picture.png").size
    assert width / height > 2 if accuracy else width / height < 2


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same small network twice, `one` and `two`, for batches of 1 to 4."""
    folder = tmp_path_factory.mktemp("benchmark")
    save_engine(small.float_graph(), "a" * 64, folder / "one")
    replace(read_sidecar(folder / "one"), classes=list(small.CLASSES), batch=BatchRange(1, 1, 4)).write(folder / "one")
    shutil.copytree(folder / "one", folder / "two")
    return [folder / "one", folder / "two"]


@pytest.fixture(scope="module")
def found(engines: list[Path]) -> Bench:
    return benchmark(engines, [2, 1], threads=1, runs=FEWEST_RUNS + 1, seconds=0, many=True)


def test_every_engine_is_measured_at_every_batch_in_whole_turns(found: Bench) -> None:
    assert [engine.name for engine in found.engines] == ["one", "two"]
    for engine in found.engines:
        assert [timing.batch for timing in engine.timings] == [2, 1] == found.batches
        for timing in engine.timings:
            assert timing.latency.runs == FEWEST_RUNS + TURN
            assert timing.p50.low <= timing.latency.p50 <= timing.p50.high
            assert timing.first_seconds > timing.latency.p50 / 1e3
        assert engine.many and engine.many.interval.low <= engine.many.p50 <= engine.many.interval.high
        # A turn is about a second long, whatever the machine: at least 64 faces of a network that takes less than that.
        assert engine.many.faces >= 64 and 0.1 < engine.many.faces * engine.many.p50 / 1e3 < 10
    assert len(found.verdicts) == 3 and {verdict.batch for verdict in found.verdicts} == {1, 2, None}
    assert not found.engines[0].trained and found.gpu is None and "openvino" in found.environment.versions


def test_a_benchmark_is_read_back_as_an_older_one(found: Bench, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(found.to_json())
    same, notes = changes(read_benchmark(tmp_path / "old.json"), found)
    assert notes == [] and [change.verdict for change in same] == [SAME] * 6
    assert [change.batch for change in same if change.name == "one"] == [2, 1, None]
    assert all(change.ratio == 1 for change in same)


@pytest.mark.parametrize(
    ("batches", "options", "words"),
    [([5], {}, "takes batches of 1 to 4, not 5"), ([0], {}, "batch 0"), ([1], {"runs": 29}, "at least 30"),
     ([1], {"threads": 0}, "threads must")],
)  # fmt: skip
def test_senseless_requests_are_refused(engines: list[Path], batches: list[int], options: Any, words: str) -> None:
    with pytest.raises(MisuseError, match=words):
        benchmark(engines, batches, **options)


def test_at_least_so_long_makes_more_turns(engines: list[Path]) -> None:
    (engine,) = benchmark(engines[:1], [1], threads=1, runs=FEWEST_RUNS, seconds=1.5).engines
    took = engine.timings[0].latency
    assert took.runs % TURN == 0
    # In 1.5 s there is time for more than the fewest runs, unless one took over a twentieth of that.
    assert took.runs > FEWEST_RUNS or took.p50 > 1500 / FEWEST_RUNS / 2


def test_layers_are_those_of_the_engine_the_slowest_first(engines: list[Path]) -> None:
    layers = bench_layers.layer_times(engines[0], 2, threads=1, runs=2)
    assert sum(layer.share for layer in layers) == pytest.approx(1)
    assert [layer.seconds for layer in layers] == sorted((layer.seconds for layer in layers), reverse=True)
    convolutions = [layer for layer in layers if layer.kernel.startswith("Convolution ")]
    assert any("stem" in layer.name for layer in convolutions) and len(convolutions) > 50


def test_tensorrt_reports_to_the_profiler() -> None:
    library = pytest.importorskip("tensorrt_rtx", reason="the profiler is TensorRT's")
    assert {"profiler", "enqueue_emits_profile"} <= set(dir(library.IExecutionContext))
    profiler = new_profiler(library)
    assert isinstance(profiler, library.IProfiler)
    for name, took in (("a", 1.0), ("b", 0.5), ("a", 2.0)):
        profiler.report_layer_time(name, took)
    assert profiler.milliseconds == {"a": 3.0, "b": 0.5}


def comparison(path: Path, checkpoint: str, **top1: float) -> Path:
    results = [{"name": n, "accuracy": {"top1": {"value": v, "low": v, "high": v}}} for n, v in top1.items()]
    path.write_text(json.dumps({"checkpoint_sha256": checkpoint, "results": results}))
    return path


def test_accuracy_comes_by_name_from_a_comparison_of_the_same_checkpoint(engines: list[Path], tmp_path: Path) -> None:
    known = comparison(tmp_path / "a.json", "a" * 64, PyTorch=0.9, two=0.8, three=0.7)
    assert read_accuracy(known, engines) == {"two": Estimate(0.8, 0.8, 0.8)}
    with pytest.raises(MisuseError, match="another checkpoint than engine"):
        read_accuracy(comparison(tmp_path / "b.json", "b" * 64, two=0.8), engines)
    with pytest.raises(MisuseError, match=r"none of these engines; it has three"):
        read_accuracy(comparison(tmp_path / "c.json", "a" * 64, three=0.8), engines)
    (tmp_path / "d.json").write_text('{"results": []}')
    with pytest.raises(MisuseError, match="not a file of ampnet-opt compare --json"):
        read_accuracy(tmp_path / "d.json", engines)


@pytest.mark.slow
def test_the_command_needs_the_runtime_alone_and_writes_what_it_shows(engines: list[Path], tmp_path: Path) -> None:
    absent = ["torch", "onnx", "onnxruntime", "matplotlib", "safetensors", "onnxsim"]
    script = f"import sys; sys.modules.update(dict.fromkeys({absent})); from ampnet_opt.cli.main import main; main()"
    options = ["--batches", "1,2", "--runs", "30", "--seconds", "0", "--threads", "1", "--layers", "--many"]
    known = comparison(tmp_path / "accuracy.json", "a" * 64, one=0.84)
    arguments = [*map(str, engines), *options, "--json", str(tmp_path / "new.json"), "--accuracy", str(known)]
    command = [sys.executable, "-c", script, "benchmark", *arguments]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert "Many faces, 1 thread" in told.stdout
    assert "Batch 2, 1 thread, 30 runs" in told.stdout and "the slowest 20 of" in told.stdout and "84.0" in told.stdout
    content = json.loads((tmp_path / "new.json").read_text())
    assert set(content["layers"]) == {"one", "two"} and content["accuracy"]["one"]["value"] == 0.84
    refused = [*command, "--picture", str(tmp_path / "picture.png"), "--force"]
    told = subprocess.run(refused, capture_output=True, text=True, check=False)
    assert told.returncode == 1 and install_command("plot") in " ".join(told.stderr.split())
    assert not (tmp_path / "picture.png").exists()


def test_the_command_shows_regressions_and_draws(engines: list[Path], tmp_path: Path, found: Bench) -> None:
    pytest.importorskip("matplotlib", reason="draws")
    content = json.loads(found.to_json())
    for engine in content["engines"]:
        for timing in engine["timings"]:
            timing["latency"]["p50"] = timing["p50"]["low"] = timing["p50"]["high"] = 1e-6
    (tmp_path / "old.json").write_text(json.dumps(content))
    options = ("--runs", 30, "--seconds", 0, "--threads", 1, "--against", tmp_path / "old.json")
    told = succeeds("benchmark", *engines, *options, "--picture", tmp_path / "picture.png").stdout
    assert told.count("slower") == 2
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    fails(2, "--force", "benchmark", *engines, "--picture", tmp_path / "picture.png")


@pytest.mark.parametrize(
    ("words", "options"),
    [("whole numbers", ["--batches", "1,x"]), ("none of them twice", ["--batches", "2,2"]),
     ("at least 1", ["--batches", "0"]),
     ("does not exist", ["--against", "nowhere.json"]), ("does not exist", ["--accuracy", "nowhere.json"])],
)  # fmt: skip
def test_the_command_refuses(engines: list[Path], words: str, options: list[str]) -> None:
    fails(2, words, "benchmark", engines[0], *options)


def test_a_place_that_takes_no_file_is_refused_before_anything_is_measured(engines: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place, words in ((tmp_path, "it is a directory"), (tmp_path / "file" / "x.json", "is a file, not a directory")):
        told = fails(2, words, "benchmark", engines[0], "--json", place, "--force")
        assert "timing" not in told.stderr
