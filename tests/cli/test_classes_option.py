"""`--classes` on every command that takes it: it names outputs that have no names, and never renames those that have."""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from console_script import left_in, write_csv
from picture_file import picture
from sidecars import SIDECAR

from ampnet_opt import synthetic
from ampnet_opt.benchmarks.compare import compare
from ampnet_opt.cli.main import application
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.files import sha256
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.faces.face import read_faces
from ampnet_opt.network.checkpoint import init_checkpoint, read_checkpoint
from ampnet_opt.shipped import CHECKPOINT

COMMANDS: dict[str, Callable[[Path], list[object]]] = {
    "export": lambda out: ["export", CHECKPOINT, "-o", out / "a.onnx"],
    "build": lambda out: ["build", CHECKPOINT, "--fp32", "--backend", "cpu", "-o", out / "engines"],
    "bundle": lambda out: ["bundle", CHECKPOINT, "--target", "cpu", "-o", out / "a.tar"],
    "optimize": lambda out: ["optimize", CHECKPOINT, "-o", out / "engines"],
    "compare": lambda out: ["compare", CHECKPOINT, "ENGINE", "--runs", "1"],
    "report": lambda out: ["report", CHECKPOINT, "ENGINE", "-o", out / "a.html", "--runs", "1"],
    "sensitivity": lambda out: ["sensitivity", CHECKPOINT, "-o", out / "a.json"],
    "train --from": lambda out: ["train", "--from", CHECKPOINT, "-o", out / "a.safetensors"],
    "train --qat": lambda out: ["train", "--qat", CHECKPOINT, "-o", out / "a.safetensors"],
}


def call(*arguments: object) -> None:
    application()([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "faces"
    synthetic.write(folder, {"train": 1, "val": 1, "test": 1}, PRESETS["rafdb"], seed=9)
    return folder / "faces.csv"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an engine that is never loaded: the checkpoint is refused before."""
    folder = tmp_path_factory.mktemp("engine")
    (folder / "engine.plan").write_bytes(b"plan")
    replace(SIDECAR, files={"engine.plan": sha256(folder / "engine.plan")}).write(folder)
    return folder


def test_every_command_with_classes_is_tried_here() -> None:
    from typer.main import get_command

    group = get_command(application())
    takes = {name for name, command in group.commands.items() if any("--classes" in p.opts for p in command.params)}  # type: ignore[attr-defined]
    others = {"init", "prepare"}  # which read no checkpoint
    assert takes == others | {name.split()[0] for name in COMMANDS}


@pytest.mark.parametrize(
    ("name", "others"), [*((name, "fer2013") for name in COMMANDS), ("export", "affectnet8"), ("export", "a,b,c,d,e,f,g")]
)
def test_names_in_a_checkpoint_are_never_replaced(name: str, others: str, drawn: Path, engine: Path, tmp_path: Path) -> None:
    command = [engine if word == "ENGINE" else word for word in COMMANDS[name](tmp_path / "out")]
    data = ["--data", drawn] if name not in ("export", "build") else []
    with pytest.raises(MisuseError, match=r"names its classes: surprise, fear, .*, neutral; leave out --classes"):
        call(*command, *data, "--classes", others)
    assert left_in(tmp_path) == []


@pytest.mark.slow
def test_what_is_assumed_of_an_authors_file_is_said_and_noted(
    published_file: Path, drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = Path(shutil.copy(published_file, tmp_path))  # a path is warned of once a process
    sentence = f"{file} names no classes: RAF-DB's order is assumed (surprise, fear, disgust, happiness, sadness, "
    report = compare(file, [], read_faces(drawn, "test")[:1], runs=1).report
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len([warning for warning in warnings if warning.startswith(sentence)]) == 1
    assert report.notes[0].startswith(sentence)
    named = read_checkpoint(file, PRESETS["fer2013"])
    assert named.classes == PRESETS["fer2013"] and named.assumed == ""


def relabelled(table: Path, label: str) -> Path:
    """A table like `table`, whose first row has another label."""
    with open(table, newline="", encoding="utf-8") as stream:
        head, *rows = list(csv.reader(stream))
    rows[0][head.index("label")] = label
    for row in rows:
        picture(table.parent / "copy" / "images" / row[0], 224)
    return write_csv(table.parent / "copy" / "faces.csv", rows, head)


@pytest.mark.parametrize("label", ["contempt", "3"])
def test_training_says_which_labels_its_classes_lack(label: str, drawn: Path, tmp_path: Path) -> None:
    table = relabelled(drawn, label)
    with pytest.raises(
        MisuseError, match=rf"lacks: '{label}'; its classes are surprise, .*; name the network's with --classes"
    ):
        call("train", "--data", table, "-o", tmp_path / "a.safetensors")
    with pytest.raises(MisuseError, match=f"lacks: '{label}'; its classes are surprise"):
        call("train", "--from", CHECKPOINT, "--data", table, "-o", tmp_path / "a.safetensors")
    assert left_in(tmp_path) == []


@pytest.mark.slow
def test_training_goes_on_with_the_classes_of_its_checkpoint(drawn: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun.safetensors"
    init_checkpoint(begun, seed=0, width=0.125, classes=PRESETS["fer2013"])
    call("train", "--from", begun, "--data", drawn, "-o", tmp_path / "a.safetensors", "--epochs", "1", "--batch", "7")
    assert read_checkpoint(tmp_path / "a.safetensors").classes == PRESETS["fer2013"]
