"""No command writes over what it reads, or two outputs into one file; what is refused leaves all as it was."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from console_script import COMMAND, fails, succeeds
from hypothesis import given
from hypothesis import strategies as st
from world import World

from ampnet_opt import synthetic
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.files import require_apart, sha256
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.pipeline.video_writer import VideoWriter


@pytest.fixture
def world(world: World, tmp_path: Path) -> World:
    """A copy, which a test may harm."""
    folder = tmp_path / "world"
    shutil.copytree(world.folder, folder)

    def moved(path: Path) -> Path:
        return folder / path.relative_to(world.folder)

    places = map(moved, (world.checkpoint, world.images, world.data, world.fp32, world.int8))
    return World(folder, *places, built=world.built)


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("--csv would be written to", lambda w: ("run", w.fp32, w.images / "0.png", "--csv", w.images / "0.png")),
        (
            "--json would be written to",
            lambda w: ("run", w.fp32, w.images, "--landmarks", w.data, "--json", w.images / "3.png"),
        ),
        ("--csv would be written to", lambda w: ("run", w.fp32, w.images, "--landmarks", w.data, "--csv", w.data)),
        (
            "--csv would be written to",
            lambda w: ("run", w.fp32, w.images, "--landmarks", w.folder, "--csv", w.folder / "link"),
        ),
        ("--json would be written to", lambda w: ("run", w.fp32, w.images / "0.png", "--json", w.fp32 / "engine.json")),
        ("-o would be written to", lambda w: ("run", w.fp32, w.images / "0.png", "-o", w.images / "0.png", "--force")),
        ("the folder of the pictures", lambda w: ("run", w.fp32, w.images, "-o", w.images, "--force")),
        (
            "--json and --csv would be written to the same",
            lambda w: ("run", w.fp32, w.images / "0.png", "--json", "s", "--csv", "./s"),
        ),
        (
            "-o and --json would be written to the same",
            lambda w: ("run", w.fp32, w.images / "0.png", "-o", "s.png", "--json", "s.png"),
        ),
        ("--json would be written to", lambda w: ("compare", w.checkpoint, w.fp32, "--data", w.data, "--json", w.data)),
        (
            "--json would be written to",
            lambda w: ("compare", w.checkpoint, w.fp32, "--data", w.data, "--json", w.checkpoint),
        ),
        (
            "-o would be written to",
            lambda w: ("report", w.checkpoint, w.fp32, "--data", w.data, "-o", w.images / "5.png", "--force"),
        ),
        ("--json would be written to", lambda w: ("benchmark", w.fp32, "--json", w.fp32 / "engine.json", "--force")),
        ("-o would be written to", lambda w: ("export", w.checkpoint, "-o", w.checkpoint, "--force")),
        (
            "-o would be written to",
            lambda w: ("bundle", w.checkpoint, "--target", "cpu", "--data", w.data, "-o", w.data, "--force"),
        ),
        ("-o would be written to", lambda w: ("sensitivity", w.checkpoint, "--data", w.data, "-o", w.data, "--force")),
        (
            "-o and --picture would be",
            lambda w: ("sensitivity", w.checkpoint, "--data", w.data, "-o", "b.png", "--picture", "b.png"),
        ),
    ],
)
def test_inputs_are_not_written_over(world: World, words: str, arguments: Callable[[World], tuple[object, ...]]) -> None:
    (world.folder / "link").symlink_to(world.data)
    before = content(world.folder)
    fails(2, words, *arguments(world), cwd=world.folder)
    assert content(world.folder) == before


def test_training_leaves_its_table_and_its_checkpoint_alone(tmp_path: Path) -> None:
    synthetic.write(tmp_path, {"train": 1, "val": 1}, PRESETS["rafdb"], seed=9)
    options = ("--width", 0.125, "--epochs", 1, "--batch", 7)
    before = content(tmp_path)
    for words, output in (
        ("the metrics would be written to", "faces.safetensors"),
        ("-o and the metrics would be written to the same file", "net.csv"),
        ("-o and their picture would be written to the same file", "net.png"),
        ("-o and the state would be written to the same file", "net.state"),
    ):
        fails(2, words, "train", "--data", tmp_path, "-o", tmp_path / output, *options)
        fails(2, words, "train", "--data", ".", "-o", output, *options, "--force", cwd=tmp_path)
    assert content(tmp_path) == before
    (tmp_path / "net.csv").write_text("mine")
    fails(2, "net.csv exists already", "train", "--data", tmp_path, "-o", tmp_path / "net.safetensors", *options)
    assert (tmp_path / "net.csv").read_text() == "mine"


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_video_on_standard_input_is_not_written_over(world: World, tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    with contextlib.closing(VideoWriter(video, (64, 48), 5)) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8), 0)
    before = sha256(video)
    for option in ("--csv", "--json", "-o"):
        command = [*COMMAND, "run", world.fp32, "-", option, video, "--force"]
        with open(video, "rb") as stream:
            found = subprocess.run(list(map(str, command)), stdin=stream, capture_output=True, text=True)
        assert found.returncode == 2 and f"{option} would be written to /dev/stdin, which is read" in found.stderr
    assert sha256(video) == before


def test_drawings_go_to_a_folder_that_is_there_whatever_its_name(world: World, tmp_path: Path) -> None:
    drawn = folder(tmp_path / "results-1.2")
    given = ("run", world.fp32, world.images / "0.png", world.images / "1.png")
    succeeds(*given, "-o", drawn, "--force")
    assert sorted(file.name for file in drawn.iterdir()) == ["0.png", "1.png"]
    succeeds(*given[:3], "-o", drawn, "--force")
    fails(2, "is one file, and there are 2 pictures", *given, "-o", tmp_path / "results-1.3")


def test_a_run_that_cannot_begin_leaves_earlier_results(world: World, tmp_path: Path) -> None:
    earlier = tmp_path / "old.jsonl"
    earlier.write_text("old\n")
    given = ("run", world.fp32, world.images / "0.png", "--json", earlier)
    fails(2, "abc", *given, "--view", "abc")
    fails(1, "cannot write /proc/x.csv", *given, "--csv", "/proc/x.csv")
    (tmp_path / "file").touch()
    if os.path.isdir("/sys/fs"):  # not even root may write there
        fails(1, "cannot write /sys/fs", *given, "-o", "/sys/fs/drawn.jpg")
        fails(1, "cannot write /sys/fs", *given, "-o", "/sys/fs/drawn")
    fails(2, "is a file, not a directory", *given, "-o", tmp_path / "file" / "drawn.jpg")
    fails(2, "is a file, not a directory", *given, "-o", tmp_path / "file", "--force")
    video = tmp_path / "clip.mp4"
    with contextlib.closing(VideoWriter(video, (64, 48), 5)) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8), 0)
    given = ("run", world.fp32, video, "--json", earlier)
    if os.path.isdir("/sys/fs"):
        fails(1, "cannot write /sys/fs", *given, "-o", "/sys/fs/drawn.mp4")
    fails(2, "folder.mp4 is a directory", *given, "-o", folder(tmp_path / "folder.mp4"), "--force")
    assert earlier.read_text() == "old\n"
    succeeds("run", world.fp32, world.images / "0.png", "--json", os.devnull, "--csv", os.devnull)


@given(st.lists(st.sampled_from(["a", "./a", "b", "d/../a", "link", "hard", "-", None, "/dev/null"]), max_size=3), st.data())
def test_what_is_one_file_is_told_whatever_it_is_called(
    tmp_path_factory: pytest.TempPathFactory, names: list[str | None], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("apart")
    (folder / "d").mkdir()
    (folder / "a").touch()
    (folder / "link").symlink_to("a")
    os.link(folder / "a", folder / "hard")
    of = {"a": "a", "./a": "a", "d/../a": "a", "link": "a", "hard": "a", "b": "b"}
    read = data.draw(st.lists(st.sampled_from(["a", "link", "hard", "b", "d"]), max_size=2))
    outputs = {f"--{place}": name if name in (None, "-") else folder / name for place, name in enumerate(names)}
    files = [of[name] for name in names if name in of]
    apart = len(set(files)) == len(files) and not {of[name] for name in read if name in of} & {*files}
    try:
        require_apart(outputs, [folder / name for name in read])
    except MisuseError:
        assert not apart
    else:
        assert apart
