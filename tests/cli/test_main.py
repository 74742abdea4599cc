"""The console script: how it starts, and what a full disk and a closed stream leave."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from console_script import COMMAND, ampnet, fails, left_in, succeeds
from world import World

from ampnet_opt.pipeline.video_writer import VideoWriter

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


@linux
@pytest.mark.parametrize("closed", ["1", "2", "12", "012"])
@pytest.mark.parametrize("words", [("--version",), ("run", "nowhere", "x.jpg"), ("nonsense",)])
def test_what_goes_to_a_closed_stream_goes_nowhere_and_the_rest_as_ever(words: tuple[str, ...], closed: str) -> None:
    usual = ampnet(*words)
    script = 'exec "$@" ' + " ".join(f"{descriptor}>&-" for descriptor in closed)
    environment = {**os.environ, "COLUMNS": "200", "TERM": "dumb"}
    found = subprocess.run(["sh", "-c", script, "sh", *COMMAND, *words], capture_output=True, text=True, env=environment)
    assert found.returncode == usual.returncode
    assert (found.stdout, found.stderr) == ("" if "1" in closed else usual.stdout, "" if "2" in closed else usual.stderr)


@linux
def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    """A library that writes to descriptor 1 or 2 would write into it."""
    program = (
        "import os, sys\n"
        "from ampnet_opt.core.messages import replace_closed_streams\n"
        "replace_closed_streams()\n"
        "with open(sys.argv[1], 'w') as file:\n"
        "    for number in (1, 2):\n"
        "        os.write(number, b'stray')\n"
        "    os.system('echo stray; echo stray >&2')\n"
        "    print('stray'), print('stray', file=sys.stderr)\n"
    )
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", program, str(tmp_path / "file")]
    assert subprocess.run(command).returncode == 0
    assert (tmp_path / "file").read_text() == ""


@linux
@pytest.mark.parametrize("stdout", ["a pipe whose reader left", "/dev/full"])
def test_a_stdout_that_takes_no_more_is_not_laid_at_an_outputs_door(world: World, tmp_path: Path, stdout: str) -> None:
    """While the file of --json is in the making."""
    reading, writing = os.pipe()
    os.close(reading)
    if stdout == "/dev/full":
        os.close(writing)
        writing = os.open(stdout, os.O_WRONLY)
    given = ("run", world.fp32, world.images, "--landmarks", world.data, "--json", tmp_path / "run.jsonl")
    with open(writing, "w") as taking:
        command = [*COMMAND, *map(str, given)]
        found = subprocess.run(command, stdout=taking, stderr=subprocess.PIPE, text=True, timeout=120)
    errors = [line for line in found.stderr.splitlines() if "error" in line or "Traceback" in line]
    assert found.returncode == 1
    assert errors == (["error: cannot write to standard output: No space left on device"] if stdout == "/dev/full" else [])
    assert left_in(tmp_path) == []


@linux
def test_a_full_stdout_is_named_whatever_was_printed(world: World, tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    with contextlib.closing(VideoWriter(video, (64, 48), 5)) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8), 0)
    one = (world.images / "0.png", "--landmarks", world.data)
    for words in (
        ("inspect", world.fp32),
        ("inspect", world.fp32, "--json", "-"),
        ("run", world.fp32, *one, "--json", "-"),
        ("run", world.fp32, video, "--json", "-"),
    ):
        with open("/dev/full", "w") as full:
            command = [*COMMAND, *map(str, words)]
            found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
        assert found.returncode == 1
        assert found.stderr.splitlines()[-1] == "error: cannot write to standard output: No space left on device"


def test_control_c_while_a_command_is_set_up_is_one_line() -> None:
    """Here: while its module is imported."""
    program = (
        "import signal, sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'ampnet_opt.cli.inspect':\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from ampnet_opt.cli.main import main\n"
        "sys.argv = ['ampnet-opt', 'inspect', 'x']\n"
        "main()\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (130, "stopped; nothing was left half-written\n")
