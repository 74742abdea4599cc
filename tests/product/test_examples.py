"""The examples run as they stand, on drawn faces."""

from __future__ import annotations

import csv
import importlib.util
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from engines import save_engine
from PIL import Image
from places import ROOT
from small import CLASSES, float_graph

from ampnet_opt.pipeline.video_writer import VideoWriter
from ampnet_opt.shipped import GOLDEN_FACES
from ampnet_opt.synthetic.video import draw_video

EXAMPLES = ROOT / "examples"
TENSORRT = ("/usr/include", "/usr/include/x86_64-linux-gnu", "/usr/include/aarch64-linux-gnu", "/usr/local/tensorrt/include")
CUDA = ("/usr/local/cuda/include", "/usr/include")
JSON = ("/usr/include", "/usr/local/include")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_engine(float_graph(), "0" * 64, tmp_path_factory.mktemp("examples") / "small", CLASSES)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of two drawn faces, one of none, and one that is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    group = Image.new("RGB", (700, 400), (90, 110, 100))
    for left, name in ((40, "happiness"), (400, "anger")):
        group.paste(Image.open(GOLDEN_FACES / "images" / f"{name}.jpg"), (left, 80))
    group.save(folder / "group.png")
    Image.new("RGB", (320, 240), (40, 60, 80)).save(folder / "nobody.png")
    (folder / "none.png").write_bytes(b"no picture")
    return folder


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ran(name: str, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, EXAMPLES / f"{name}.py", *map(str, words)], capture_output=True, text=True)


def test_a_photo_is_read_and_drawn(engine: Path, pictures: Path, tmp_path: Path) -> None:
    done = ran("photo", engine, pictures / "group.png", tmp_path / "drawn.png")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 and all(line.split()[2] in CLASSES for line in done.stdout.splitlines())
    assert Image.open(tmp_path / "drawn.png").size == (700, 400)
    assert "error: image" in ran("photo", engine, pictures / "none.png", tmp_path / "none.png").stderr


def test_a_camera_is_followed(engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av", reason="the extra [video] is not installed")
    video = VideoWriter(tmp_path / "clip.mp4", (640, 480), 10)
    for frame in draw_video(0, 1, people=2, rate=10):
        video.write(frame.image, frame.time)
    video.close()
    example("camera_loop").main(str(engine), str(tmp_path / "clip.mp4"))
    said = capsys.readouterr().out.splitlines()
    assert said and all(line.rpartition(": ")[2] in CLASSES and " s  face " in line for line in said)


def test_a_folder_becomes_a_table(engine: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"none\.png cannot be read"):
        example("batch_job").main(str(engine), str(pictures), str(tmp_path / "faces.csv"))
    assert "2 faces in 2 pictures" in capsys.readouterr().out
    with open(tmp_path / "faces.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [Path(row["file"]).name for row in rows] == ["group.png"] * 2


def test_the_actor_of_the_ray_example_answers_batches(engine: Path, pictures: Path) -> None:
    """Without a cluster: tests/serving/test_ray_batch.py starts one."""
    if find_spec("ray") is None:
        pytest.skip("the extra [ray] is not installed")
    files = sorted(pictures.iterdir())
    batch = {"bytes": [file.read_bytes() for file in files], "path": [str(file) for file in files]}
    answer = example("ray_batch").Faces(str(engine))(batch)
    assert answer["path"] == batch["path"] and [len(labels) for labels in answer["labels"]] == [2, 0, 0]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(EXAMPLES / "ampnet_opt.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells), "the file holds outputs: clear them"
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]
    assert "engines/cpu-fp32" in said[0] and said[1].count("answered") == 7
    assert "image/png" in cells[2].outputs[-1].data and len(said[3].splitlines()) == 4


def found(variable: str, places: tuple[str, ...], header: str) -> Path:
    """The folder of a header; the test is skipped where there is none. variable: names another folder."""
    for place in (os.environ.get(variable, ""), *places):
        if place and (Path(place) / header).is_file():
            return Path(place)
    pytest.skip(f"{header} is not here: no package registry has it; name its folder in {variable}")


def test_the_cpp_example_compiles(tmp_path: Path) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    folders = [
        found("TENSORRT_INCLUDE", TENSORRT, "NvInfer.h"),
        found("CUDA_INCLUDE", CUDA, "cuda_runtime_api.h"),
        found("JSON_INCLUDE", JSON, "nlohmann/json.hpp"),
    ]
    strict = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations", "-c", "-o", str(tmp_path / "o")]
    includes = [word for folder in folders for word in ("-isystem", str(folder))]
    source = EXAMPLES / "cpp" / "run_engine.cpp"
    done = subprocess.run([compiler, *strict, *includes, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
