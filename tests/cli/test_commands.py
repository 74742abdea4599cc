"""The console script from outside: what it prints, what it exits with and what it leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from console_script import COMMAND, ampnet, fails, left_in, succeeds, write_csv
from PIL import Image
from safetensors.torch import load_file

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.faces.face import COLUMNS
from ampnet_opt.runtime import cuda

pytest.importorskip("openvino", reason="the engines of these tests run in OpenVINO")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's signals and limits")

CLASSES = PRESETS["rafdb"]
POINTS = [80, 90, 144, 90, 112, 120, 88, 155, 136, 155]


@dataclass(frozen=True)
class World:
    """What all tests share and none may change: a checkpoint, six faces, and an fp32 and an int8 engine."""

    folder: Path
    checkpoint: Path
    images: Path
    data: Path
    fp32: Path
    int8: Path
    built: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    checkpoint, images, engines = folder / "narrow.safetensors", folder / "images", folder / "engines"
    succeeds("init", checkpoint, "--width", 0.125)
    images.mkdir()
    rng = np.random.default_rng(0)
    rows: list[list[object]] = []
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (224, 224, 3), np.uint8)).save(images / f"{i}.png")
        rows.append([f"{i}.png", CLASSES[i % 2], "train" if i < 4 else "test", *(point + i for point in POINTS)])
    data = write_csv(folder / "faces.csv", rows)
    options = ("--int8", "--fp32", "--backend", "cpu", "--data", data, "--calibration", "minmax")
    built = succeeds("build", checkpoint, "-o", engines, *options)
    return World(folder, checkpoint, images, data, engines / "cpu-fp32", engines / "cpu-int8", built)


# What the commands do


def test_init_says_that_the_weights_are_untrained_and_repeats_itself(world: World, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    assert "untrained" in succeeds("init", again, "--width", 0.125).stdout
    ours, theirs = load_file(again), load_file(world.checkpoint)
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
    before = again.read_bytes()
    fails(2, "exists already", "init", again, "--width", 0.125, "--seed", 1)
    assert again.read_bytes() == before
    succeeds("init", again, "--width", 0.125, "--seed", 1, "--force")
    assert again.read_bytes() != before
    assert left_in(tmp_path) == ["again.safetensors"]


def test_version() -> None:
    assert succeeds("--version").stdout.startswith("ampnet-opt ")


def test_export_writes_a_graph_of_image_and_landmarks(world: World, tmp_path: Path) -> None:
    import onnx

    target = tmp_path / "narrow.onnx"
    succeeds("export", world.checkpoint, "-o", target, "--input", "float32")
    graph = onnx.load(target).graph
    assert [value.name for value in graph.input] == ["image", "landmarks"]
    assert left_in(tmp_path) == ["narrow.onnx"]
    before = target.read_bytes()
    fails(2, "exists already", "export", world.checkpoint, "-o", target)
    assert target.read_bytes() == before


def test_build_makes_one_engine_for_each_precision_and_marks_untrained_weights(world: World) -> None:
    lines = [line.split(": ") for line in world.built.stdout.splitlines()]
    assert [line[0] for line in lines] == [str(engine) for engine in [world.fp32] * 2 + [world.int8] * 3]
    assert all("untrained" in lines[number][1] for number in (0, 2))
    assert lines[3][1].startswith("beside the float network")
    assert all("0 downgraded" in lines[number][1] for number in (1, 4))
    assert left_in(world.fp32.parent) == sorted(
        ["cpu-fp32", "cpu-int8", "cpu-int8/calibration.json"]
        + [f"cpu-{p}/{name}" for p in ("fp32", "int8") for name in ("engine.bin", "engine.json", "engine.xml")]
    )
    sidecar = json.loads((world.int8 / "engine.json").read_text())
    assert sidecar["precision"] == "int8"
    assert sidecar["trained"] is False


def test_run_names_the_likeliest_class_of_a_folder_and_of_a_file(world: World) -> None:
    table = succeeds("run", world.fp32, world.images, "--landmarks", world.data)
    lines = [line.split("  ") for line in table.stdout.splitlines()]
    assert [line[0] for line in lines] == [str(world.images / f"{i}.png") for i in range(6)]
    assert "untrained" in table.stderr

    result = succeeds("run", world.fp32, world.images / "3.png", "--landmarks", world.data, "--json", "-", "--threads", 1)
    answer = json.loads(result.stdout)
    assert answer["file"] == str(world.images / "3.png")
    assert list(answer["probabilities"]) == list(CLASSES)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get) == lines[3][1]
    assert lines[3][2] == f"{answer['probabilities'][answer['label']]:.1%}"


def test_grey_transparent_and_sixteen_bit_pictures_are_classified(world: World, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (120, 160), np.uint8)).save(tmp_path / "grey.jpg")
    Image.fromarray(rng.integers(0, 256, (224, 224, 4), np.uint8)).save(tmp_path / "alpha.png")
    Image.fromarray(rng.integers(0, 65536, (224, 224), np.uint16)).save(tmp_path / "deep.png")
    names = ["alpha.png", "deep.png", "grey.jpg"]
    points = {name: POINTS for name in names} | {"grey.jpg": [value / 2 for value in POINTS]}
    table = write_csv(tmp_path / "points.csv", [[name, *points[name]] for name in names], ["file", *COLUMNS])
    result = succeeds("run", world.int8, tmp_path, "--landmarks", table, "--json", "-")
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(answer["file"]).name for answer in answers] == names
    assert all(answer["label"] in CLASSES for answer in answers)


@pytest.mark.slow
def test_compare_measures_engines_against_the_checkpoint(world: World, tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    options = ("--data", world.data, "--runs", 2, "--json", target)
    result = succeeds("compare", world.checkpoint, world.fp32, world.int8, *options)
    assert "Untrained" in result.stdout
    report = json.loads(target.read_text())
    assert report["faces"] == 2
    assert [found["name"] for found in report["results"]] == ["PyTorch", "cpu-fp32", "cpu-int8"]
    assert not any(found["trained"] for found in report["results"])
    assert left_in(tmp_path) == ["report.json"]


def test_doctor_describes_this_machine() -> None:
    findings = json.loads(succeeds("doctor", "--json", "-").stdout)
    assert findings["backends"]["cpu"]["builds"]
    assert set(findings["backends"]) == {"cpu", "tensorrt", "tensorrt-rtx"}
    assert all(backend["runs"] or backend["problem"] for backend in findings["backends"].values())
    assert "cpu" in succeeds("doctor").stdout


def has_gpu() -> bool:
    try:
        cuda.gpu()
    except AmpnetError:
        return False
    return True


@pytest.mark.slow
def test_a_plan_for_rtx_is_built_without_its_gpu_and_refused_where_there_is_none(world: World, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    result = succeeds("build", world.checkpoint, "-o", tmp_path, "--fp16", "--backend", "tensorrt-rtx")
    engine = tmp_path / "tensorrt-rtx-fp16"
    assert result.stdout.startswith(f"{engine}: ")
    assert left_in(engine) == ["engine.json", "engine.plan"]
    if not has_gpu():
        fails(1, "no CUDA GPU", "run", engine, world.images, "--landmarks", world.data)


# Bad requests of export and build


@pytest.mark.parametrize(
    ("code", "words", "arguments"),
    [
        (2, "does not exist", ["CKPT.missing", "--fp32"]),
        (2, "say what to build", ["CKPT"]),
        (2, "has no rows of split 'never'", ["CKPT", "--int8", "--data", "FACES", "--split", "never"]),
        (2, "--backend takes", ["CKPT", "--fp32", "--backend", "abacus"]),
        (2, "--calibration takes", ["CKPT", "--fp32", "--calibration", "guess"]),
        (2, "--input takes", ["CKPT", "--fp32", "--input", "float64"]),
        (2, "bf16", ["CKPT", "--bf16", "--backend", "tensorrt-rtx"]),
        (2, "leave out --classes", ["CKPT", "--fp32", "--classes", "a,b"]),
        (2, "min <= opt <= max", ["CKPT", "--fp32", "--min-batch", "8", "--opt-batch", "8", "--max-batch", "4"]),
        (2, "does not exist", ["CKPT", "--int8", "--data", "missing.csv"]),
        (2, "No such option", ["CKPT", "--fp23"]),
    ],
)
def test_build_refuses(world: World, tmp_path: Path, code: int, words: str, arguments: list[str]) -> None:
    given = [word.replace("CKPT", str(world.checkpoint)).replace("FACES", str(world.data)) for word in arguments]
    backend = [] if "--backend" in given else ["--backend", "cpu"]
    fails(code, words, "build", *given, *backend, "-o", tmp_path / "engines", cwd=tmp_path)
    assert left_in(tmp_path) == []


def test_build_refuses_tensorrt_without_its_module(world: World, tmp_path: Path) -> None:
    if find_spec("tensorrt") is not None:
        pytest.skip("the module tensorrt is installed")
    given = ("build", world.checkpoint, "--fp16", "--backend", "tensorrt", "-o", tmp_path / "engines")
    fails(1, "pip install", *given)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("kind", ["text", "empty", "torch", "zip"])
def test_foreign_files_are_no_checkpoints(tmp_path: Path, kind: str) -> None:
    foreign = tmp_path / "foreign.pth"
    if kind == "text":
        foreign.write_text("no weights here\n" * 100)
    elif kind == "empty":
        foreign.touch()
    elif kind == "torch":
        torch.save({"layer.weight": torch.zeros(3, 3)}, foreign)
    else:
        with zipfile.ZipFile(foreign, "w") as archive:
            archive.writestr("notes.txt", "no weights here")
    fails(1, "foreign.pth", "export", foreign, "-o", tmp_path / "foreign.onnx")
    assert left_in(tmp_path) == ["foreign.pth"]


def test_export_refuses_other_classes_than_the_checkpoint_names(world: World, tmp_path: Path) -> None:
    fails(2, "leave out --classes", "export", world.checkpoint, "-o", tmp_path / "a.onnx", "--classes", "a,b")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("kind", ["column", "image", "split"])
def test_build_refuses_data_that_is_not_whole(world: World, tmp_path: Path, kind: str) -> None:
    data = tmp_path / "faces.csv"
    if kind == "column":
        write_csv(data, [["0.png", "fear", "train", *POINTS[:-1]]], ["file", "label", "split", *COLUMNS[:-1]])
    else:
        write_csv(data, [["0.png", "fear", "train" if kind == "image" else "test", *POINTS]])
    words = {"column": COLUMNS[-1], "image": "0.png", "split": "'train'"}[kind]
    given = ("build", world.checkpoint, "--int8", "--backend", "cpu", "--data", data, "-o", tmp_path / "engines")
    fails(2, words, *given)
    assert left_in(tmp_path) == ["faces.csv"]


@pytest.mark.slow
def test_an_engine_is_replaced_by_force_alone(world: World, tmp_path: Path) -> None:
    engine = tmp_path / "cpu-fp32"
    engine.mkdir()
    (engine / "mine.txt").write_text("keep")
    given = ("build", world.checkpoint, "--fp32", "--backend", "cpu", "-o", tmp_path)
    fails(2, "--force", *given)
    assert left_in(tmp_path) == ["cpu-fp32", "cpu-fp32/mine.txt"]
    succeeds(*given, "--force")
    assert left_in(engine) == ["engine.bin", "engine.json", "engine.xml"]
    assert left_in(tmp_path) == ["cpu-fp32", *(f"cpu-fp32/{name}" for name in left_in(engine))]


def small_files() -> None:
    """In the child: no file may grow past 300 kB, and a write that would is an error, as on a full disk."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


@linux
@pytest.mark.parametrize("command", ["init", pytest.param("build", marks=pytest.mark.slow)])
def test_a_full_disk_leaves_nothing(world: World, tmp_path: Path, command: str) -> None:
    given: dict[str, tuple[object, ...]] = {
        "init": ("init", tmp_path / "new" / "narrow.safetensors", "--width", 0.125),
        "build": ("build", world.checkpoint, "--fp32", "--backend", "cpu", "-o", tmp_path / "new"),
    }
    fails(1, "File too large" if command == "build" else "cannot write", *given[command], preexec_fn=small_files)
    assert left_in(tmp_path) == []


@pytest.mark.slow
@linux
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_stopped_build_leaves_nothing(world: World, tmp_path: Path, how: str) -> None:
    given = ["build", world.checkpoint, "--fp32", "--backend", "cpu"]
    process = subprocess.Popen(
        [*COMMAND, *map(str, [*given, "-o", tmp_path / "engines"])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    temporary = wait_for(lambda: list(tmp_path.glob("engines/.*.new")), process)
    assert temporary, "the build was not seen at work"
    os.killpg(process.pid, getattr(signal, how))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, how), said
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1] == "stopped; nothing was left half-written"
    assert not list(tmp_path.rglob(".*"))
    # What was whole before may stay; the engine in the making may not.
    assert all((engine / "engine.json").exists() for engine in tmp_path.glob("engines/*"))


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    while process.poll() is None:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    return None


# Bad pictures, landmarks and engines


def test_bad_pictures_are_named_and_the_others_classified(world: World, tmp_path: Path) -> None:
    good = (world.images / "0.png").read_bytes()
    (tmp_path / "good.png").write_bytes(good)
    (tmp_path / "corrupt.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    Image.new("CMYK", (224, 224)).save(tmp_path / "cmyk.jpg")
    Image.new("RGB", (1, 1)).save(tmp_path / "pixel.png")
    bad = ["cmyk.jpg", "corrupt.png", "empty.png", "pixel.png", "text.png"]
    rows: list[list[object]] = [[name, *POINTS] for name in ["good.png", *bad]]
    table = write_csv(tmp_path / "points.csv", rows, ["file", *COLUMNS])
    result = ampnet("run", world.fp32, tmp_path, "--landmarks", table, "--json", "-")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert [Path(json.loads(line)["file"]).name for line in result.stdout.splitlines()] == ["good.png"]
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(bad) + 1
    assert all(name in error for name, error in zip(bad, errors, strict=False))
    assert errors[-1] == "error: 5 of 6 pictures could not be classified"
    alone = ampnet("run", world.fp32, tmp_path / "empty.png", "--landmarks", table)
    assert (alone.returncode, alone.stdout) == (1, "")
    assert "1 of 1" in alone.stderr


def row(*values: object) -> list[list[object]]:
    return [["0.png", *values]]


@pytest.mark.parametrize(
    ("words", "header", "rows"),
    [
        ("left_eye_x of 0.png is nan", COLUMNS, row("nan", *POINTS[1:])),
        ("right_mouth_y of 0.png is missing", COLUMNS, row(*POINTS[:-1], "")),
        ("right_mouth_y of 0.png is missing", COLUMNS, row(*POINTS[:-1])),
        ("no column right_mouth_x, right_mouth_y", COLUMNS[:-2], row(*POINTS[:-2])),
        ("has no landmarks for", COLUMNS, [["1.png", *POINTS]]),
    ],
)
def test_run_refuses_landmarks(
    world: World, tmp_path: Path, words: str, header: list[str], rows: list[list[object]]
) -> None:
    table = write_csv(tmp_path / "points.csv", rows, ["file", *header])
    result = fails(2, words, "run", world.fp32, world.images / "0.png", "--landmarks", table)
    assert result.stdout == ""


def test_run_refuses_what_is_not_there(world: World, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    picture = world.images / "0.png"
    fails(2, "does not exist", "run", world.fp32, picture, "--landmarks", tmp_path / "missing.csv")
    fails(2, "does not exist", "run", world.fp32, tmp_path / "missing.png", "--landmarks", world.data)
    fails(2, "no pictures", "run", world.fp32, tmp_path / "empty", "--landmarks", world.data)
    fails(2, "--landmarks", "run", world.fp32, picture)
    fails(2, "does not exist", "run", tmp_path / "missing", picture, "--landmarks", world.data)
    fails(2, "not an engine", "run", tmp_path / "empty", picture, "--landmarks", world.data)
    fails(2, "is a file", "run", world.checkpoint, picture, "--landmarks", world.data)


def changed(engine: Path) -> None:
    path = engine / "engine.bin"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)


def missing(engine: Path) -> None:
    (engine / "engine.bin").unlink()


def cut_off(engine: Path) -> None:
    path = engine / "engine.json"
    path.write_text(path.read_text()[:100])


def edit(engine: Path, **values: object) -> None:
    path = engine / "engine.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def newer(engine: Path) -> None:
    edit(engine, backend_version="2099.1")


def other_format(engine: Path) -> None:
    edit(engine, format="ampnet-opt-engine/99")


def wrong_types(engine: Path) -> None:
    edit(engine, files=["engine.bin"], classes=None)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (changed, "changed after it was built"),
        (missing, "engine.bin is missing"),
        (cut_off, "is damaged"),
        (newer, "openvino>=2099.1"),
        (other_format, "another version"),
        (wrong_types, "is damaged"),
    ],
)
def test_run_refuses_an_engine(world: World, tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    engine = tmp_path / "engine"
    shutil.copytree(world.fp32, engine)
    damage(engine)
    result = fails(1, words, "run", engine, world.images / "0.png", "--landmarks", world.data)
    assert result.stdout == ""


def test_the_command_line_starts_without_numpy() -> None:
    code = "import sys, ampnet_opt.cli.main; print({'numpy', 'PIL', 'torch', 'openvino'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
