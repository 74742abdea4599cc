"""`ampnet-opt train`: a checkpoint from faces."""

from __future__ import annotations

from pathlib import Path

import pytest
from console_script import fails, succeeds
from world import World

from ampnet_opt import synthetic
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.network.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of faces: two of a class to train on, one to validate."""
    folder = tmp_path_factory.mktemp("drawn") / "faces"
    synthetic.write(folder, {"train": 2, "val": 1}, PRESETS["rafdb"], seed=9)
    return folder


def test_train_from_faces_to_a_checkpoint(drawn: Path, tmp_path: Path) -> None:
    options = ("--width", 0.125, "--epochs", 1, "--batch", 7)
    result = succeeds("train", "--data", drawn, "-o", tmp_path / "net.safetensors", *options)
    assert "7 validation faces" in result.stdout
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors", ".csv", ".png"}
    assert read_checkpoint(tmp_path / "net.safetensors").classes == PRESETS["rafdb"]
    fails(2, "--force", "train", "--data", drawn, "-o", tmp_path / "net.safetensors", *options)
    fails(2, "contempt", "train", "--data", drawn, "-o", tmp_path / "new.safetensors", "--classes", "contempt,joy", *options)
    fails(2, "no rows of split", "train", "--data", _only_train(drawn), "-o", tmp_path / "new.safetensors", *options)
    assert not (tmp_path / "new.safetensors").exists()


def test_what_cannot_be_trained_or_would_do_nothing_is_refused(world: World, drawn: Path, tmp_path: Path) -> None:
    lines = (drawn / "faces.csv").read_text().splitlines()
    one = next(i for i, line in enumerate(lines) if ",train," in line)
    table = drawn / "one.csv"
    table.write_text("\n".join(line for i, line in enumerate(lines) if i == one or ",train," not in line) + "\n")
    new = tmp_path / "new.safetensors"
    fails(2, "training takes two different faces or more, and there are 1", "train", "--data", table, "-o", new)
    words = "--width would do nothing with --from"
    fails(2, words, "train", "--data", drawn, "-o", new, "--from", world.checkpoint, "--width", 0.5)
    assert not list(tmp_path.iterdir())


def test_what_force_would_replace_stays_where_the_command_is_refused(drawn: Path, tmp_path: Path) -> None:
    state = tmp_path / "net.state"
    state.write_text("hours of work")
    for wrong in (("--device", "cuda:99"), ("--rate", 0), ("--width", 0), ("--classes", "contempt,joy")):
        fails(2, "error: ", "train", "--data", drawn, "-o", tmp_path / "net.safetensors", "--force", *wrong)
    assert state.read_text() == "hours of work"


def _only_train(drawn: Path) -> Path:
    lines = (drawn / "faces.csv").read_text().splitlines()
    table = drawn / "only_train.csv"
    table.write_text("\n".join(line for line in lines if ",val," not in line) + "\n")
    return table
