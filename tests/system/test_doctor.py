"""What `doctor` says on boards whose files are recorded in tests/boards, and here."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
from places import BOARDS
from rich.console import Console

from ampnet_opt.runtime.backend import REGISTERED
from ampnet_opt.system import doctor

PYTHON = "{}.{}".format(*sys.version_info[:2])
no_tensorrt = pytest.mark.skipif(find_spec("tensorrt") is not None, reason="this Python has tensorrt")


def shown(findings: dict[str, Any]) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(doctor.render_findings(findings))
    return " ".join(console.export_text().replace("│", " ").split())


def test_keys_that_others_read_stay() -> None:
    findings = doctor.examine()
    assert {"ampnet_opt", "python", "system", "processor", "cores", "gpu", "convert", "backends", "default_backend"} <= set(
        findings
    )
    assert set(findings["backends"]) == set(REGISTERED)
    assert json.loads(json.dumps(findings)) == findings


def test_machine_without_files_of_a_jetson(tmp_path: Path) -> None:
    findings = doctor.examine(tmp_path)
    assert (findings["board"], findings["advice"]) == (None, [])
    assert (findings["cuda"], findings["driver"], findings["tensorrt"]["system"]) == (None, None, None)
    assert "jetpack" not in shown(findings)


@no_tensorrt
def test_orin_nano() -> None:
    findings = doctor.examine(BOARDS / "orin-nano")
    assert findings["board"]["jetpack"] == "6.2"
    assert (findings["cuda"], findings["driver"]) == ("12.6.68", "540.4.0")
    problem = findings["backends"]["tensorrt"]["problem"]
    assert problem.endswith("/usr/bin/python3.10 -m venv --system-site-packages ENV")
    assert "on a Jetson use --backend tensorrt" in findings["backends"]["tensorrt-rtx"]["problem"]
    text = shown(findings)
    assert "6.2 (L4T 36.4.3), with TensorRT 10.3, CUDA 12.6 and Python 3.10" in text
    assert "gpu clock 306 MHz, of 306 to 1020" in text and "power mode 15W (0)" in text
    assert "* power mode 15W; the fastest is MAXN_SUPER: sudo nvpmodel -m 2" in text


def test_nano_is_refused_for_every_gpu_backend() -> None:
    findings = doctor.examine(BOARDS / "nano")
    for name in ("tensorrt", "tensorrt-rtx"):
        backend = findings["backends"][name]
        assert (backend["builds"], backend["runs"]) == (False, False)
        assert "JetPack 4.6.1 (L4T 32.7.1) is not supported" in backend["problem"]
    assert findings["default_backend"] == "cpu"
    assert "no newer JetPack exists for this board" in shown(findings)


@pytest.fixture
def orin_of_this_python(tmp_path: Path) -> Path:
    """An Orin Nano whose TensorRT is for the Python that runs this."""
    shutil.copytree(BOARDS / "orin-nano", tmp_path / "board")
    (tmp_path / "board/usr/lib/python3.10").rename(tmp_path / f"board/usr/lib/python{PYTHON}")
    return tmp_path / "board"


@no_tensorrt
@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="not in a virtual environment")
def test_virtual_environment_that_does_not_see_the_systems_packages(orin_of_this_python: Path) -> None:
    problem = doctor.examine(orin_of_this_python)["backends"]["tensorrt"]["problem"]
    assert "which this virtual environment does not see" in problem
    assert problem.endswith(f"/usr/bin/python{PYTHON} -m venv --system-site-packages ENV")


@no_tensorrt
def test_systems_module_that_is_seen(orin_of_this_python: Path) -> None:
    folder = orin_of_this_python / f"usr/lib/python{PYTHON}/dist-packages"
    code = "import json, sys; from pathlib import Path; from ampnet_opt.system import doctor; "
    code += "print(json.dumps(doctor.examine(Path(sys.argv[1]))))"
    command = [sys.executable, "-c", code, str(orin_of_this_python)]
    done = run(command, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=True)
    findings = json.loads(done.stdout)
    assert findings["tensorrt"]["found"] == str(folder / "tensorrt")
    assert findings["backends"]["tensorrt"]["version"] == "10.3.0"
    assert "venv" not in findings["backends"]["tensorrt"].get("problem", "")


def test_sources_of_the_pipeline_are_shown_where_the_caller_adds_them(tmp_path: Path) -> None:
    findings = doctor.examine(tmp_path)
    assert "videos" not in shown(findings)
    findings["sources"] = {
        "videos": {"problem": None, "version": "18.1"},
        "cameras": {"problem": None, "version": "5.0", "found": ["/dev/video0"]},
        "csi": {"problem": "no GStreamer here"},
    }
    text = shown(findings)
    assert (
        "videos PyAV 18.1" in text and "cameras OpenCV 5.0; found: /dev/video0" in text and "csi no GStreamer here" in text
    )


@pytest.mark.parametrize("width", [40, 60, 100])
def test_what_to_do_is_shown_whole_however_narrow_the_terminal(tmp_path: Path, width: int) -> None:
    command = f"/{'folder/' * 12}pip install '/{'folder/' * 12}ampnet_opt-0.3.0-py3-none-any.whl[tensorrt]'"
    findings = doctor.examine(tmp_path)
    findings["backends"]["tensorrt"]["problem"] = findings["convert"]["problem"] = command
    findings["convert"].pop("versions", None)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(doctor.render_findings(findings))
    text = console.export_text()
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "".join(re.sub(r"[\s│]", "", text)).count(command.replace(" ", "")) == 2
