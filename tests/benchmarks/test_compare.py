from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from drawn_points import drawn_points
from engines import CLASSES, save_engine
from onnx import helper, numpy_helper
from PIL import Image
from rich.console import Console

from ampnet_opt.benchmarks.compare import Report, compare, engine_subjects
from ampnet_opt.benchmarks.report import DRAWN, heading, render_comparison
from ampnet_opt.benchmarks.workers import Subject, Worker
from ampnet_opt.convert.export import export
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.faces.face import COLUMNS, Face, read_faces
from ampnet_opt.network.checkpoint import init_checkpoint, read_checkpoint
from ampnet_opt.runtime.sidecar import read_sidecar

openvino = pytest.importorskip("openvino", reason="the engines of these tests run in OpenVINO")
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
FACES = 20  # more than one batch of the scoring


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint (one.safetensors), its float graph and engine (same), and an engine of other weights (other)."""
    path = tmp_path_factory.mktemp("compare")
    init_checkpoint(path / "one.safetensors", seed=0, width=0.125, classes=CLASSES)
    checkpoint = read_checkpoint(path / "one.safetensors")
    graph = export(checkpoint, "uint8")
    onnx.save(graph, path / "same.onnx")
    save_engine(graph, checkpoint.sha256, path / "same")
    for weight in graph.graph.initializer:
        if len(weight.dims) == 2 or [*weight.dims] == [len(CLASSES)]:  # a fully connected layer, or the bias of a head
            weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    save_engine(graph, "0" * 64, path / "other")
    return path


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> list[Face]:
    path = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    rows, drawn = [",".join(["file", "label", "split", *COLUMNS])], drawn_points(FACES)
    for i in range(FACES):
        Image.fromarray(rng.integers(0, 256, (224, 224, 3), np.uint8)).save(path / f"{i}.png")
        points = [f"{value:.1f}" for value in drawn[i].ravel()]
        rows.append(",".join([f"{i}.png", CLASSES[i % 3], "test", *points]))
    (path / "faces.csv").write_text("\n".join(rows) + "\n")
    return read_faces(path / "faces.csv", "test")


@pytest.fixture(scope="module")
def report(folder: Path, faces: list[Face]) -> Report:
    engines = [folder / "same", folder / "other"]
    return compare(folder / "one.safetensors", engines, faces, batch=2, threads=1, runs=7).report


def children() -> list[int]:
    """Processes started by this one, the oldest first."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid()):
                found.append(int(entry.name))
        except OSError:  # ended meanwhile
            continue
    return sorted(found)


def infer(worker: Worker) -> np.ndarray:
    return worker.infer(np.zeros((1, 224, 224, 3), np.uint8), np.full((1, 5, 2), 100, np.float32))


def test_float_engine_agrees_and_another_network_does_not(report: Report) -> None:
    reference, same, other = report.results
    assert (reference.name, same.name, other.name) == ("PyTorch", "same", "other")
    assert same.agreement.same_top1.value == 1
    assert 0 < same.agreement.largest < 1e-3
    assert same.accuracy == reference.accuracy
    assert other.agreement.same_top1.value < 1
    assert other.agreement.largest > 1e-2
    assert (same.same_checkpoint, other.same_checkpoint) == (True, False)


def test_accuracy_is_that_of_the_network(report: Report, folder: Path, faces: list[Face]) -> None:
    import torch

    pictures = np.stack([np.asarray(Image.open(face.file)) for face in faces])
    with torch.inference_mode():
        logits = read_checkpoint(folder / "one.safetensors").model(
            torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255,
            torch.from_numpy(np.stack([face.landmarks for face in faces])),
        )
    correct = [CLASSES[i] == face.label for i, face in zip(logits.argmax(1).tolist(), faces, strict=True)]
    assert report.results[0].accuracy.top1.value == sum(correct) / FACES
    assert [(r.name, r.faces) for r in report.results[0].accuracy.recalls] == list(zip(CLASSES, (7, 7, 6), strict=False))


def test_times_sizes_and_memory_are_each_ones_own(report: Report, folder: Path) -> None:
    reference, same, _ = report.results
    for result in report.results:
        took = result.latency
        assert 0 < took.p50 <= took.p90 <= took.p99
        assert took.runs == 7
    assert reference.size == (folder / "one.safetensors").stat().st_size
    assert same.size == sum(file.stat().st_size for file in (folder / "same").iterdir())
    if reference.peak_memory and same.peak_memory:
        assert same.peak_memory < reference.peak_memory  # an engine's process does not carry torch
    assert {"torch", "openvino"} <= set(report.environment.versions)


def test_report_is_read_at_100_columns_and_as_json(report: Report) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render_comparison(report))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    flat = " ".join(text.split())
    assert "other was built from another checkpoint" in flat and "same was built from another" not in flat
    assert "Untrained (seeded) weights: PyTorch, same, other" in flat
    assert f"{FACES} faces, batch 2, 1 thread" in flat
    assert "100.0 [83.9, 100.0]" in flat  # Wilson's interval for 20 of 20
    content = json.loads(report.to_json())
    assert content["results"][1]["agreement"]["same_top1"]["value"] == 1
    assert content["notes"] == report.notes


def test_fewer_faces_than_a_batch_are_repeated(folder: Path, faces: list[Face]) -> None:
    found = compare(folder / "one.safetensors", [], faces[:1], batch=3, threads=1, runs=1).report
    assert (found.faces, found.batch, len(found.results)) == (1, 3, 1)
    assert found.results[0].latency.images_per_second == pytest.approx(3 / found.results[0].latency.p50 * 1e3)


def test_other_classes_are_refused(folder: Path, faces: list[Face], tmp_path: Path) -> None:
    shutil.copytree(folder / "same", tmp_path / "turned")
    replace(read_sidecar(folder / "same"), classes=list(CLASSES[::-1])).write(tmp_path / "turned")
    with pytest.raises(MisuseError, match=r"turned has the classes neutral, anger, .* has surprise, fear"):
        compare(folder / "one.safetensors", [tmp_path / "turned"], faces, threads=1)
    bored = [*faces, replace(faces[0], label="boredom")]
    with pytest.raises(MisuseError, match="lacks: 'boredom'; its classes are surprise"):
        compare(folder / "one.safetensors", [], bored, threads=1)


@pytest.mark.parametrize("options", [{"batch": 0}, {"runs": 0}, {"threads": 0}])
def test_senseless_options_are_refused(folder: Path, faces: list[Face], options: dict[str, int]) -> None:
    with pytest.raises(MisuseError, match=f"{next(iter(options))} must be at least 1"):
        compare(folder / "one.safetensors", [], faces, **options)


def test_what_the_loader_refuses_names_the_engine(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match=r"gone could not be measured: .*does not exist"):
        Worker(Subject("gone", "engine", tmp_path / "gone", 1))
    shutil.copytree(folder / "same", tmp_path / "cut")
    (tmp_path / "cut" / "engine.bin").write_bytes(b"")
    with pytest.raises(AmpnetError, match=r"cut could not be measured: .*was changed") as caught:
        Worker(Subject("cut", "engine", tmp_path / "cut", 1))
    assert "\n" not in str(caught.value)


def test_logits_that_are_not_finite_are_no_result(folder: Path, tmp_path: Path) -> None:
    graph = onnx.load(folder / "same.onnx")
    last = next(node for node in graph.graph.node if "logits" in node.output)
    last.output[:] = ["before"]
    graph.graph.node.extend(
        [
            helper.make_node("Exp", ["before"], ["positive"]),
            helper.make_node("Neg", ["positive"], ["negative"]),
            helper.make_node("Sqrt", ["negative"], ["logits"]),
        ]
    )
    with Worker(Subject("root", "engine", save_engine(graph, "0" * 64, tmp_path / "root"), 1)) as worker:
        with pytest.raises(AmpnetError, match="root gave logits that are not finite"):
            infer(worker)


def kill_the_engine() -> None:
    os.kill(children()[-1], signal.SIGKILL)


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


@linux
@pytest.mark.parametrize(
    "action, expected", [(kill_the_engine, AmpnetError), (press_ctrl_c, KeyboardInterrupt)], ids=["death", "ctrl-c"]
)
def test_no_worker_outlives_the_comparison(
    folder: Path, faces: list[Face], action: Callable[[], None], expected: type[BaseException]
) -> None:
    before, during = children(), []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "timing":
            during.extend(children())
            action()

    with pytest.raises(expected) as caught:
        compare(folder / "one.safetensors", [folder / "same"], faces, threads=1, runs=1, progress=progress)
    assert len(during) == len(before) + 2
    assert children() == before
    if expected is AmpnetError:
        assert str(caught.value) == "same could not be measured: its process was killed, most likely for want of memory"


@linux
def test_engine_worker_is_lean_and_leaves_ctrl_c_to_its_parent(folder: Path) -> None:
    before = children()
    with Worker(Subject("same", "engine", folder / "same", 1)) as worker:
        (process,) = set(children()) - set(before)
        libraries = Path(f"/proc/{process}/maps").read_text()
        assert "libopenvino" in libraries and "libtorch" not in libraries and "onnxruntime" not in libraries
        os.kill(process, signal.SIGINT)
        assert infer(worker).shape == (1, len(CLASSES))
    assert children() == before


@linux
def test_worker_ends_with_a_parent_that_is_killed(folder: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from ampnet_opt.benchmarks.workers import Subject, Worker\n"
        "worker = Worker(Subject('same', 'engine', Path(sys.argv[1]), 1)); print(worker._child.pid, flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder / "same")], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        process = int(parent.stdout.readline())
        parent.kill()
    status = Path(f"/proc/{process}/stat")
    for _ in range(200):
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    pytest.fail("the worker outlived its parent")


def test_the_headline_says_that_faces_are_drawn(report: Report) -> None:
    drawn = heading(replace(report, drawn=True))
    assert f"{report.faces} drawn faces" in drawn[0] and drawn[1] == DRAWN
    assert not any("drawn" in line for line in heading(report))


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/home/me/a/int8", "/home/me/b/int8"], ["a/int8", "b/int8"]),
        (["/home/me/a/int8", "/home/me/a/fp32"], ["int8", "fp32"]),
        (["/home/a/x/int8", "/home/b/x/int8", "/home/b/x/fp32"], ["a/x/int8", "b/x/int8", "fp32"]),
        (["/home/me/PyTorch"], ["me/PyTorch"]),
    ],
)
def test_engines_are_named_by_no_more_of_their_path_than_it_takes(paths: list[str], names: list[str]) -> None:
    assert [subject.name for subject in engine_subjects([Path(path) for path in paths], 1)] == names


def test_a_comparison_holds_no_path_of_the_machine(report: Report, folder: Path) -> None:
    assert str(folder.parent) not in report.to_json()
