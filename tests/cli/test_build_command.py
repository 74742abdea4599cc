"""`ampnet-opt build`: engines, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from console_script import COMMAND, fails, left_in, succeeds, write_csv
from sidecars import SIDECAR
from world import POINTS, AnalysedWorld, World

from ampnet_opt.cli.build import say_engine
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.faces.face import COLUMNS
from ampnet_opt.runtime import cuda
from ampnet_opt.sensitivity.analysis import read_sensitivity

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's signals and limits")


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


@pytest.mark.parametrize(("precision", "advised"), [("int8", True), ("fp16", False)])
def test_fp16_is_recommended_after_an_int8_build_for_rtx(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: str, advised: bool
) -> None:
    (tmp_path / "engine.plan").write_bytes(b"plan")
    replace(SIDECAR, precision=precision).write(tmp_path)
    say_engine(tmp_path, "")
    said = capsys.readouterr()
    assert ("take --fp16 for TensorRT-RTX until INT8 has been timed" in said.err) is advised
    assert said.err.count("\n") == advised


def has_gpu() -> bool:
    try:
        cuda.gpu()
    except AmpnetError:
        return False
    return True


@pytest.mark.slow
def test_a_plan_for_rtx_is_built_without_its_gpu_and_refused_where_there_is_none(world: World, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    result = succeeds(
        "build", world.checkpoint, "-o", tmp_path, "--fp16", "--backend", "tensorrt-rtx", "--compute-capability", "8.6"
    )
    engine = tmp_path / "tensorrt-rtx-fp16"
    assert result.stdout.startswith(f"{engine}: ")
    assert left_in(engine) == ["engine.json", "engine.plan"]
    if not has_gpu():
        fails(1, "no CUDA GPU", "run", engine, world.images, "--landmarks", world.data)


@pytest.mark.parametrize(
    ("code", "words", "arguments"),
    [
        (2, "does not exist", ["CKPT.missing", "--fp32"]),
        (2, "say what to build", ["CKPT"]),
        (2, "has no rows of split 'never'", ["CKPT", "--int8", "--data", "FACES", "--split", "never"]),
        (2, "--backend takes", ["CKPT", "--fp32", "--backend", "abacus"]),
        (2, "--calibration takes", ["CKPT", "--fp32", "--calibration", "guess"]),
        (2, "--input takes", ["CKPT", "--fp32", "--input", "float64"]),
        (2, "bf16", ["CKPT", "--bf16", "--backend", "onnxruntime"]),
        (2, "leave out --classes", ["CKPT", "--fp32", "--classes", "a,b"]),
        (2, "min <= opt <= max", ["CKPT", "--fp32", "--min-batch", "8", "--opt-batch", "8", "--max-batch", "4"]),
        (2, "does not go with --static-batch", ["CKPT", "--fp32", "--static-batch", "4", "--max-batch", "8"]),
        (2, "does not exist", ["CKPT", "--int8", "--data", "missing.csv"]),
        (2, "No such option", ["CKPT", "--fp23"]),
    ],
)
def test_build_refuses(world: World, tmp_path: Path, code: int, words: str, arguments: list[str]) -> None:
    given = [word.replace("CKPT", str(world.checkpoint)).replace("FACES", str(world.data)) for word in arguments]
    backend = [] if "--backend" in given else ["--backend", "cpu"]
    fails(code, words, "build", *given, *backend, "-o", tmp_path / "engines", cwd=tmp_path)
    assert left_in(tmp_path) == []


def test_a_backend_of_one_precision_needs_no_flag(world: World, tmp_path: Path) -> None:
    built = succeeds("build", world.checkpoint, "--backend", "onnxruntime", "--static-batch", 2, "-o", tmp_path)
    assert built.stdout.startswith(f"{tmp_path / 'onnxruntime-fp32'}: ")
    batch = json.loads((tmp_path / "onnxruntime-fp32" / "engine.json").read_text())["batch"]
    assert batch == {"min": 2, "opt": 2, "max": 2}


def test_build_refuses_tensorrt_without_its_module(world: World, tmp_path: Path) -> None:
    if find_spec("tensorrt") is not None:
        pytest.skip("the module tensorrt is installed")
    given = ("build", world.checkpoint, "--fp16", "--backend", "tensorrt", "-o", tmp_path / "engines")
    fails(1, "pip install", *given)
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


@pytest.mark.slow
@linux
@pytest.mark.parametrize("how", ["SIGINT", "SIGHUP"])
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


@pytest.mark.slow
def test_layers_stay_in_floating_point_until_the_budget_holds(analysed: AnalysedWorld, tmp_path: Path) -> None:
    options = ("--int8", "--backend", "cpu", "--data", analysed.faces, "-o", tmp_path)
    chosen = ("--max-drop", 0, "--min-agreement", 100, "--sensitivity", analysed.sensitivity)
    said = succeeds("build", analysed.checkpoint, *options, *chosen).stdout
    record = json.loads((tmp_path / "cpu-int8" / "engine.json").read_text())["mixed_precision"]
    assert record["agreement"] == 1 and record["top1"] >= record["float_top1"]
    assert record["held_out_faces"] == 7 and record["judged_in"] == "an engine of cpu"
    known = {row.name for row in read_sensitivity(analysed.sensitivity).rows}
    assert {row["name"] for row in record["float_layers"]} <= known
    for text in (said, succeeds("inspect", tmp_path / "cpu-int8").stdout):
        assert "kept in floating point" in " ".join(text.split()) and "on 7 held-out faces" in " ".join(text.split())
    plain = json.loads((tmp_path / "cpu-int8" / "calibration.json").read_text())
    assert plain["method"] == "entropy"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("--int8", ["--fp32", "--max-drop", "1"]),
        ("--int8", ["--fp32", "--min-sqnr", "25"]),
        ("'nan' is not a finite number", ["--int8", "--min-sqnr", "nan"]),
        (
            "--held-out, --sensitivity would do nothing without --max-drop or --min-sqnr",
            ["--int8", "--held-out", "val", "--sensitivity", "FILE"],
        ),
        ("--calibration would do nothing without --int8", ["--fp32", "--calibration", "mse"]),
        ("run ampnet-opt sensitivity", ["--int8", "--max-drop", "1", "--calibration", "mse", "--sensitivity", "FILE"]),
        ("does not exist", ["--int8", "--max-drop", "1", "--sensitivity", "nowhere.json"]),
        ("no rows of split", ["--int8", "--max-drop", "1", "--held-out", "none"]),
        ("does not exist", ["--int8", "--scales", "nowhere.json"]),
    ],
)
def test_build_refuses_a_choice_it_cannot_make(
    analysed: AnalysedWorld, tmp_path: Path, words: str, arguments: list[str]
) -> None:
    given = [str(analysed.sensitivity) if argument == "FILE" else argument for argument in arguments]
    common = ("--backend", "cpu", "--data", analysed.faces, "-o", tmp_path / "engines")
    fails(2, words, "build", analysed.checkpoint, *common, *given)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("--calibration would do nothing beside --scales", ["--calibration", "mse", "--data", "FACES", "--faces", "3"]),
        ("--calibration would do nothing beside --scales", ["--calibration", "mse", "--faces", "3"]),
        ("--split, --faces would do nothing beside --scales without --data", ["--faces", "3", "--split", "train"]),
        ("--landmarks-format would do nothing beside --scales without --data", ["--landmarks-format", "pixels"]),
    ],
)
def test_what_calibrates_is_refused_beside_scales(world: World, tmp_path: Path, words: str, arguments: list[str]) -> None:
    given = [argument.replace("FACES", str(world.data)) for argument in arguments]
    table = world.int8 / "calibration.json"
    fails(2, words, "build", world.checkpoint, "--int8", "--backend", "cpu", "--scales", table, "-o", tmp_path / "a", *given)
    assert left_in(tmp_path) == []


@pytest.mark.slow
def test_scales_are_taken_from_a_table(world: World, tmp_path: Path) -> None:
    options = ("--int8", "--backend", "cpu", "--data", world.data)
    table = Path(shutil.copy(world.int8 / "calibration.json", tmp_path))
    few = ("--faces", 2, "--split", "test")  # to compare on; they calibrate nothing
    succeeds("build", world.checkpoint, *options, *few, "-o", tmp_path / "second", "--scales", table)
    assert (tmp_path / "second" / "cpu-int8" / "calibration.json").read_bytes() == table.read_bytes()
    assert (tmp_path / "second" / "cpu-int8" / "engine.bin").read_bytes() == (world.int8 / "engine.bin").read_bytes()
    content = json.loads(table.read_text())
    del content["scales"][next(iter(content["scales"]))]
    table.write_text(json.dumps(content))
    fails(2, "they are of another --input", "build", world.checkpoint, *options, "-o", tmp_path / "third", "--scales", table)
    assert not (tmp_path / "third").exists()
