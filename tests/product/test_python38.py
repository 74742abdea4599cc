"""The machine that a bundle goes to: no torch, no onnx, and maybe the Python 3.8 of JetPack 5."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
from bundled import make_bundle, recipe
from PIL import Image
from small import CLASSES, run

from ampnet_opt.convert.build import prepared
from ampnet_opt.faces.face import COLUMNS
from ampnet_opt.runtime import Engine
from ampnet_opt.runtime.backend import UNSIGNED, find_backend
from ampnet_opt.runtime.build import EngineRequest, compile_engine
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.sidecar import BatchRange, read_sidecar
from ampnet_opt.synthetic import face

pytestmark = pytest.mark.slow
# What the base install, the cpu backend and the rtx backend need, and nothing else.
NEEDED = ("numpy", "pillow", "rich", "typer", "openvino", "tensorrt-rtx-cu13")
LOGITS = """
import sys, numpy as np
from ampnet_opt.runtime import Engine
with Engine.load(sys.argv[1], threads=1) as engine:
    content = np.load(sys.argv[2])
    np.save(sys.argv[3], engine.infer(content["images"], content["landmarks"]))
"""
HEAVY = "import importlib.util as u; print([n for n in ('torch', 'onnx', 'onnxruntime', 'safetensors') if u.find_spec(n)])"


class Board:
    """A virtual environment with the wheel of a bundle in it."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder = folder
        self.python = python

    def run(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        """The command there; one sentence on stderr when it fails."""
        return self.python_runs("-c", "from ampnet_opt.cli.main import main; main()", *arguments, code=code)

    def python_runs(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = [str(self.python), *map(str, arguments)]
        variables = {**clean, "COLUMNS": "200", "AMPNET_OPT_CACHE": str(self.folder / "cache")}
        result = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, env=variables, timeout=300)
        assert result.returncode == code, result.stderr
        assert "Traceback" not in result.stderr
        return result

    def logits(self, engine: Path, inputs: Path) -> np.ndarray:
        self.python_runs("-c", LOGITS, engine, inputs, self.folder / "logits.npy")
        return np.load(self.folder / "logits.npy")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cpu.tar, rtx.tar, and what is unpacked from the first: the wheel and the README."""
    folder = tmp_path_factory.mktemp("bundles")
    make_bundle(folder / "rtx.tar", "rtx", ["int8"])
    with tarfile.open(make_bundle(folder / "cpu.tar", "cpu", ["int8"])) as tar:
        for member in tar:
            if member.name.endswith((".whl", ".txt")):
                tar.extract(member, folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with faces.csv, images/, a broken picture, and the same faces as arrays in faces.npz."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "images").mkdir()
    rows, images, landmarks = [",".join(["file", *COLUMNS])], [], []
    for number, label in enumerate(("happiness", "anger")):
        image, points = face(number, label)
        Image.fromarray(image).save(folder / "images" / f"{label}.png")
        rows.append(",".join([f"{label}.png", *map(str, points.ravel())]))
        images.append(image)
        landmarks.append(points)
    rows.append(",".join(["broken.png", *map(str, landmarks[0].ravel())]))
    (folder / "images" / "broken.png").write_bytes(b"no picture")
    (folder / "faces.csv").write_text("\n".join(rows) + "\n")
    np.savez(folder / "faces.npz", images=np.stack(images), landmarks=np.stack(landmarks))
    return folder


def wheel_in(folder: Path) -> Path:
    (wheel,) = folder.glob("*.whl")
    return wheel


def closure(names: tuple[str, ...]) -> set[str]:
    """Names of distributions and of all that they need, as far as it is installed."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            waiting += [
                "".join(c if c.isalnum() or c in "-_." else " " for c in n).split()[0] for n in needs if "extra" not in n
            ]
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, bundles: Path) -> Board:
    """This Python without torch and onnx: the few distributions that are needed are linked in from here."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    site = folder / "site"
    site.mkdir()
    for name in closure(NEEDED):
        for file in distribution(name).files or []:
            top = file.parts[0]
            source = Path(str(distribution(name).locate_file(top)))
            if top != ".." and source.exists() and not (site / top).exists():
                (site / top).symlink_to(source)
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run([str(python), "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    (Path(own) / "few.pth").write_text(f"{site}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, str(wheel_in(bundles))], check=True)
    board = Board(folder, python)
    assert board.python_runs("-c", HEAVY).stdout.strip() == "[]"
    return board


def test_a_bare_machine_builds_a_cpu_engine_with_the_logits_of_a_direct_one(
    bare: Board, bundles: Path, pictures: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    bare.run("build", bundles / "cpu.tar", "-o", tmp_path / "board")
    direct, engine_there = tmp_path / "direct", tmp_path / "board" / "cpu-int8"
    direct.mkdir()
    ready = prepared(recipe(), recipe().model("int8"), "int8", UNSIGNED)
    request = EngineRequest(find_backend("cpu"), CompileOptions(), recipe().origin, ready, recipe().proof)
    compile_engine(request, direct)[0].write(direct)
    with np.load(pictures / "faces.npz") as content, Engine.load(direct, threads=1) as engine:
        expected = engine.infer(content["images"], content["landmarks"])
    np.testing.assert_array_equal(bare.logits(engine_there, pictures / "faces.npz"), expected)
    assert np.abs(expected[0] - expected[1]).max() > 0  # or equal logits would prove nothing


def test_a_bare_machine_builds_an_rtx_plan(bare: Board, bundles: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("tensorrt_rtx")
    options = ("--compute-capability", "8.9", "--max-batch", 4)
    said = bare.run("build", bundles / "rtx.tar", "-o", tmp_path / "board", *options)
    assert "tensorrt-rtx-int8: " in said.stdout
    sidecar = read_sidecar(tmp_path / "board" / "tensorrt-rtx-int8")
    assert (sidecar.backend, sidecar.backend_version) == ("tensorrt-rtx", library.__version__)
    assert (sidecar.classes, sidecar.batch) == (list(CLASSES), BatchRange(1, 1, 4))
    assert sidecar.target["compute_capabilities"] == ["8.9"] and len(sidecar.target["float32_layers"]) > 10
    assert sidecar.graph_sha256 == recipe().source.sha256 and sidecar.calibration_sha256


def test_a_bare_machine_says_what_conversion_needs(bare: Board, tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(b"x")
    said = bare.run("build", tmp_path / "model.pth", "--fp32", "--backend", "cpu", "-o", tmp_path / "engines", code=1)
    assert ".whl[convert]" in said.stderr  # the wheel that it was installed from


def python38() -> Path | None:
    """An interpreter of Python 3.8: from the PATH, or the newest of pyenv's."""
    folders = [os.environ.get("PYENV_ROOT"), Path.home() / ".pyenv"]
    found = [file for folder in folders if folder for file in sorted(Path(folder).glob("versions/3.8.*/bin/python3.8"))]
    for file in [shutil.which("python3.8"), *reversed(found)]:
        if file and subprocess.run([str(file), "-c", "import venv"], capture_output=True).returncode == 0:
            return Path(file)
    return None


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory, bundles: Path) -> Board:
    """Python 3.8 with the bundle's wheel and what the README of the bundle has pip install with it."""
    python = python38()
    if python is None:
        pytest.skip("there is no Python 3.8 on the PATH or in pyenv")
    folder = tmp_path_factory.mktemp("python38")
    subprocess.run([str(python), "-m", "venv", str(folder / "venv")], check=True)
    board = Board(folder, folder / "venv" / "bin" / "python")
    command = [str(board.python), "-m", "pip", "install", "--quiet", f"{wheel_in(bundles)}[cpu]"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        pytest.skip(f"what Python 3.8 needs cannot be installed here: {result.stderr.strip().splitlines()[-1]}")
    return board


def test_python38_goes_from_the_bundle_to_expressions(old: Board, bundles: Path, pictures: Path, tmp_path: Path) -> None:
    assert old.python_runs("--version").stdout.startswith("Python 3.8")
    findings = json.loads(old.run("doctor", "--json", "-").stdout)
    assert findings["backends"]["cpu"]["builds"] and findings["backends"]["cpu"]["version"].startswith("2024.4")
    old.run("doctor")

    old.run("build", bundles / "cpu.tar", "-o", tmp_path)
    engine = tmp_path / "cpu-int8"
    assert read_sidecar(engine).backend_version.startswith("2024.4")
    with np.load(pictures / "faces.npz") as content:
        (reference,) = run(recipe().model("int8"), (content["images"], content["landmarks"]))
    logits = old.logits(engine, pictures / "faces.npz")
    np.testing.assert_allclose(logits, reference, atol=0.02 * np.abs(reference).max())

    images, landmarks = pictures / "images", ("--landmarks", pictures / "faces.csv")
    told = old.run("run", engine, images / "happiness.png", images / "anger.png", *landmarks, "--json", "-").stdout
    for line, row in zip(told.splitlines(), logits, strict=True):
        assert json.loads(line)["label"] == CLASSES[row.argmax()]
    assert "int8" in old.run("inspect", engine).stdout

    broken = old.run("run", engine, images, *landmarks, code=1)
    assert len(broken.stdout.splitlines()) == 2 and "broken.png" in broken.stderr
    old.run("run", tmp_path / "none", images, *landmarks, code=2)
    old.run("run", engine, images / "none.png", *landmarks, code=2)
    old.run("build", bundles / "cpu.tar", "-o", tmp_path, code=2)
    old.run("build", bundles / "cpu.tar", "--data", "faces.csv", "-o", tmp_path, code=2)
    (tmp_path / "cut.tar").write_bytes((bundles / "cpu.tar").read_bytes()[:50_000])
    assert "damaged" in old.run("build", tmp_path / "cut.tar", "-o", tmp_path / "new", code=1).stderr
    for command in (
        ("compare", engine),
        ("report", engine),
        ("sensitivity",),
        ("build", "--int8"),
        ("bundle", "--target", "cpu"),
    ):
        assert "needs Python 3.10" in old.run(*command, code=1).stderr
    measured = tmp_path / "benchmark.json"
    old.run("benchmark", engine, "--runs", 30, "--seconds", 0, "--json", measured)
    assert json.loads(measured.read_text())["engines"][0]["name"] == engine.name
