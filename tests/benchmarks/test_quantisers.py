from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from drawn_points import drawn_points
from PIL import Image
from rich.console import Console
from small import CLASSES, faces, float_graph, placement, quantized, run

from ampnet_opt.benchmarks.compare import Environment
from ampnet_opt.benchmarks.noninferiority import Counts
from ampnet_opt.benchmarks.quantisers import activation_pairs, main
from ampnet_opt.benchmarks.quantisers_graphs import BATCH, Reader, model_optimizer, onnx_runtime
from ampnet_opt.benchmarks.quantisers_report import QuantiserReport, Result, describe, render_quantisers, to_markdown
from ampnet_opt.calibration.ranges import METHODS
from ampnet_opt.convert.export import export, random_faces
from ampnet_opt.convert.graph import GraphIndex
from ampnet_opt.convert.weakly_typed import float_weights
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.metrics import latency, sqnr, wilson
from ampnet_opt.faces.face import COLUMNS
from ampnet_opt.network.checkpoint import init_checkpoint, read_checkpoint

pytestmark = pytest.mark.slow

MODEL_OPTIMIZER = os.environ.get("AMPNET_OPT_MODELOPT_PYTHON")


def test_pairs_are_counted_on_activations_only() -> None:
    assert activation_pairs(float_graph()) == 0
    assert activation_pairs(quantized()) == len(placement().tensors)
    with_weights = float_weights(quantized())  # which puts a QuantizeLinear behind every weight as well
    assert sum(node.op_type == "QuantizeLinear" for node in with_weights.graph.node) > len(placement().tensors)
    assert activation_pairs(with_weights) == len(placement().tensors)


def symmetric(model: onnx.ModelProto) -> bool:
    index = GraphIndex(model.graph)
    nodes = [node for node in model.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    zeros = [index.array(node.input[2]) for node in nodes if len(node.input) > 2 and node.input[2]]
    return bool(nodes) and not any(zero.any() for zero in zeros)


def range_of_the_image(model: onnx.ModelProto) -> float:
    """127 steps of the first scale, that of the image in [0, 1]."""
    index = GraphIndex(model.graph)
    first = next(
        node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in index.constants
    )
    return float(127 * index.array(first.input[1]))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """A tiny network that takes float images, as all quantisers are given it."""
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    init_checkpoint(path, seed=5, width=0.125, classes=CLASSES)
    return export(read_checkpoint(path), "float32")


def dark_faces_and_a_bright_one() -> tuple[np.ndarray, np.ndarray]:
    images, landmarks = random_faces(3, "float32", seed=3)
    images[:-1] /= 8
    return images, landmarks


def require_good(made: onnx.ModelProto, graph: onnx.ModelProto, inputs: tuple[np.ndarray, np.ndarray]) -> None:
    assert activation_pairs(made) > 0
    assert symmetric(made)
    assert range_of_the_image(made) == pytest.approx(1, abs=0.05)  # the bright face was seen
    (expected,), (got,) = run(graph, inputs), run(made, inputs)
    assert sqnr(expected, got) > 5


def test_onnx_runtime_calibrates_on_all_faces_and_stays_close(
    graph: onnx.ModelProto, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = dark_faces_and_a_bright_one()
    made = onnx_runtime(graph, *inputs)
    assert capsys.readouterr().out == ""
    onnx.checker.check_model(made, full_check=True)
    require_good(made, graph, inputs)


def test_reader_gives_every_face_once_in_batches() -> None:
    images, landmarks = np.arange(2 * BATCH + 1)[:, None], np.arange(2 * BATCH + 1)[:, None] * 2
    reader = Reader(images, landmarks)
    assert len(reader) == 3
    assert [len(batch["image"]) for batch in iter(reader.get_next, None)] == [BATCH, BATCH, 1]
    reader.set_range(1, 3)
    left = list(iter(reader.get_next, None))
    assert np.concatenate([batch["image"] for batch in left]).ravel().tolist() == list(range(BATCH, 2 * BATCH + 1))
    assert all((batch["landmarks"] == 2 * batch["image"]).all() for batch in left)


@pytest.mark.skipif(MODEL_OPTIMIZER is None, reason="AMPNET_OPT_MODELOPT_PYTHON names no Python with Model Optimizer")
@pytest.mark.parametrize("method", ["entropy", "max"])
def test_model_optimizer_calibrates_on_all_faces_and_stays_close(graph: onnx.ModelProto, method: str) -> None:
    inputs = dark_faces_and_a_bright_one()
    made, versions = model_optimizer(Path(str(MODEL_OPTIMIZER)), graph, *inputs, method)
    assert "nvidia-modelopt" in versions
    require_good(made, graph, inputs)


@pytest.mark.skipif(importlib.util.find_spec("modelopt") is not None, reason="this Python has Model Optimizer")
def test_a_python_without_model_optimizer_is_told_so() -> None:
    with pytest.raises(AmpnetError, match=r"Model Optimizer \(max\) in .* failed: .*No module named 'modelopt'"):
        model_optimizer(Path(sys.executable), float_graph(), *faces(), "max")
    with pytest.raises(AmpnetError, match="/nowhere/python cannot be run: No such file"):
        model_optimizer(Path("/nowhere/python"), float_graph(), *faces(), "max")


@pytest.fixture
def report() -> QuantiserReport:
    took = latency([0.5, 0.5], 1)
    rows = [
        Result("float graph", wilson(3, 4), None, None, None, None, took, 12_000_000),
        Result("ours, percentile", wilson(1000, 1024), 42, Counts(1024, 3, 1, 10), 31.25, 12.4, took, 5_000_000),
        Result("NNCF", wilson(1000, 1024), None, Counts(1024, 3, 1, 10), 31.25, 12.4, took, None),
        Result("Model Optimizer, entropy", wilson(0, 4), 7, Counts(4, 4, 0, 4), -3.0, 100.0, "it | says no " * 9, "none"),
    ]
    where = Environment("a processor", 2, "a system", {"onnx": "1.0"}, "2026-01-01")
    return QuantiserReport("x/net.pth", "0" * 64, False, 256, 1024, 2, where, rows, describe(rows, False, None, None))


def test_table_fits_a_terminal_and_says_what_is_missing(report: QuantiserReport) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render_quantisers(report))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 100
    flat = " ".join(" ".join(lines).split())
    assert "ours, percentile 99.0 98.4 97.7 0.20 0.64 31.2 42 12 500.0 5.0" in flat
    assert "NNCF 99.0 98.4 97.7 0.20 0.64 31.2 - 12 500.0 -" in flat
    assert "Model Optimizer, entropy, no CPU engine: it | says no it | says no" in flat
    assert "Model Optimizer, entropy, no RTX engine: none" in flat
    assert "--modelopt-python" in flat and "Untrained" in flat


def test_markdown_has_a_row_of_as_many_cells_for_every_graph(report: QuantiserReport) -> None:
    rows = [line for line in to_markdown(report).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4
    assert len({row.count("|") for row in rows}) == 1
    assert rows[3].startswith("| ours, percentile | 99.0 | 98.4 |")
    assert "it / says" in rows[5]


@pytest.mark.slow
def test_the_command_compares_without_model_optimizer_and_without_tensorrt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino", reason="times engines of OpenVINO")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)  # as where it is not installed: plans take minutes
    rng = np.random.default_rng(0)
    rows, drawn = [",".join(["file", "label", "split", *COLUMNS])], drawn_points(14)
    for i in range(14):
        Image.fromarray(rng.integers(0, 256, (224, 224, 3), np.uint8)).save(tmp_path / f"{i}.png")
        points = [f"{value:.1f}" for value in drawn[i].ravel()]
        rows.append(",".join([f"{i}.png", CLASSES[i % 3], "train" if i < 4 else "val" if i < 6 else "test", *points]))
    (tmp_path / "faces.csv").write_text("\n".join(rows) + "\n")
    init_checkpoint(tmp_path / "net.safetensors", seed=5, width=0.125, classes=CLASSES)
    given_ = [str(tmp_path / "net.safetensors"), "--data", str(tmp_path / "faces.csv"), "-o", str(tmp_path / "all.json")]
    monkeypatch.setattr(sys, "argv", ["quantisers", *given_, "--runs", "1", "--threads", "1", "--markdown"])
    assert main() == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "all.json").read_text())
    names = ["float graph", *(f"ours, {name}" for name in METHODS), "ONNX Runtime, entropy", "ours, --max-drop 0.5"]
    assert [row["name"] for row in found["results"]] == names
    assert (found["calibration_faces"], found["test_faces"]) == (4, 8)
    for row in found["results"]:
        assert row["latency"]["p50"] > 0
        assert row["plan"] is None or "tensorrt_rtx" in row["plan"]
        assert f"| {row['name']} | " in printed
    assert [row["sqnr"] is None for row in found["results"]] == [True] + [False] * (len(names) - 1)
    assert min(row["sqnr"] for row in found["results"][1:]) > 5
    assert "Model Optimizer's rows are left out" in printed


def test_the_command_says_in_a_line_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["quantisers", "--data", "/nowhere/faces.csv"])
    assert main() == 2
    assert "error: data file /nowhere/faces.csv does not exist" in capsys.readouterr().err
