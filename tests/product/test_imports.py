"""What stands above may import what stands below, never the other way: the contracts of pyproject.toml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

pytest.importorskip("importlinter")

LINT = "import sys; sys.argv = ['lint-imports', '--no-cache']; from importlinter.cli import lint_imports_command; "
LINT += "lint_imports_command()"
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.safetensors")
FOLDERS = ("ampnet_opt", "benchmarks", "calibration", "convert", "runtime")


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources as they lie in the repository, links included."""
    place = tmp_path_factory.mktemp("sources")
    shutil.copy(ROOT / "pyproject.toml", place)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, place / folder, symlinks=True, ignore=LEFT_OUT)
    return place


def lint(place: Path) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(place)}
    return subprocess.run([sys.executable, "-c", LINT], cwd=place, env=variables, capture_output=True, text=True)


def test_no_import_goes_up(copied: Path) -> None:
    result = lint(copied)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("ampnet_opt/core/text.py", "import ampnet_opt.faces.face"),
        ("convert/source.py", "import ampnet_opt.sensitivity.search"),
        ("calibration/table.py", "import ampnet_opt.convert.export"),
        ("ampnet_opt/training/loop.py", "import ampnet_opt.benchmarks.compare"),
        ("benchmarks/report.py", "import ampnet_opt.cli.main"),
        ("runtime/engine.py", "import ampnet_opt.faces.face"),
        ("runtime/openvino/compile.py", "import onnx"),
        ("benchmarks/sensors.py", "import ampnet_opt.benchmarks.power"),  # a circle
    ],
)
def test_a_wrong_import_is_found(copied: Path, file: str, line: str) -> None:
    """In each folder that lies beside the package, too."""
    path = copied / file
    before = path.read_text(encoding="utf-8")
    path.write_text(f"{before}\n{line}\n", encoding="utf-8")
    try:
        result = lint(copied)
    finally:
        path.write_text(before, encoding="utf-8")
    assert result.returncode == 1 and "BROKEN" in result.stdout
