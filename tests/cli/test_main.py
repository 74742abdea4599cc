"""The console script: how it starts, and what a full disk leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from console_script import fails, left_in, succeeds
from world import World

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's signals and limits")


def test_version() -> None:
    assert succeeds("--version").stdout.startswith("ampnet-opt ")


def test_the_command_line_starts_without_numpy() -> None:
    heavy = "{'numpy', 'PIL', 'torch', 'openvino'}"
    code = f"import sys, ampnet_opt.cli.main as cli; cli.application(); print({heavy} & {{*sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


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
