"""`--classes` on every command that takes it: it names outputs that have no names, and never renames those that have."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_cli import left_in, write_csv
from test_datasets import picture

from ampnet_opt import synthetic
from ampnet_opt.checkpoint import init_checkpoint, read_checkpoint
from ampnet_opt.cli import app
from ampnet_opt.errors import MisuseError
from ampnet_opt.labels import PRESETS
from ampnet_opt.shipped import CHECKPOINT

COMMANDS: dict[str, Callable[[Path], list[object]]] = {
    "export": lambda out: ["export", CHECKPOINT, "-o", out / "a.onnx"],
    "build": lambda out: ["build", CHECKPOINT, "--fp32", "--backend", "cpu", "-o", out / "engines"],
    "bundle": lambda out: ["bundle", CHECKPOINT, "--target", "cpu", "-o", out / "a.tar"],
    "compare": lambda out: ["compare", CHECKPOINT, "ENGINE", "--runs", "1"],
    "report": lambda out: ["report", CHECKPOINT, "ENGINE", "-o", out / "a.html", "--runs", "1"],
    "sensitivity": lambda out: ["sensitivity", CHECKPOINT, "-o", out / "a.json"],
    "train --from": lambda out: ["train", "--from", CHECKPOINT, "-o", out / "a.safetensors"],
    "train --qat": lambda out: ["train", "--qat", CHECKPOINT, "-o", out / "a.safetensors"],
}


def call(*arguments: object) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "faces"
    synthetic.write(folder, {"train": 1, "val": 1, "test": 1}, PRESETS["rafdb"], seed=9)
    return folder / "faces.csv"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    pytest.importorskip("openvino", reason="the engine of these tests runs in OpenVINO")
    folder = tmp_path_factory.mktemp("engine")
    call("build", CHECKPOINT, "--fp32", "--backend", "cpu", "-o", folder)
    yield folder / "cpu-fp32"


def test_every_command_with_classes_is_tried_here() -> None:
    from typer.main import get_command

    group = get_command(app)
    takes = {name for name, command in group.commands.items() if any("--classes" in p.opts for p in command.params)}  # type: ignore[attr-defined]
    assert takes == {
        *(name.split()[0] for name in COMMANDS),
        "init",
        "prepare",
    }  # init writes them, prepare has no checkpoint


@pytest.mark.parametrize(
    ("name", "others"), [*((name, "fer2013") for name in COMMANDS), ("export", "affectnet8"), ("export", "a,b,c,d,e,f,g")]
)
def test_names_in_a_checkpoint_are_never_replaced(name: str, others: str, drawn: Path, engine: Path, tmp_path: Path) -> None:
    command = [engine if word == "ENGINE" else word for word in COMMANDS[name](tmp_path / "out")]
    data = ["--data", drawn] if name not in ("export", "build", "bundle") else []
    with pytest.raises(MisuseError, match=r"names its classes: surprise, fear, .*, neutral; leave out --classes"):
        call(*command, *data, "--classes", others)
    assert left_in(tmp_path) == []


def test_the_same_names_and_their_synonyms_are_no_others(tmp_path: Path) -> None:
    same = "Surprised,fear,disgust,HAPPY,sad,angry,neutral"
    call("export", CHECKPOINT, "--classes", same, "-o", tmp_path / "a.onnx")
    call("export", CHECKPOINT, "-o", tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_an_engine_of_another_order_is_not_compared(drawn: Path, engine: Path, tmp_path: Path) -> None:
    turned = tmp_path / "turned.safetensors"
    init_checkpoint(turned, seed=0, width=0.125, classes=PRESETS["fer2013"])
    with pytest.raises(
        MisuseError, match=r"has the classes surprise, .*, but checkpoint .* has anger, .*; build the engine"
    ):
        call("compare", turned, engine, "--data", drawn, "--runs", "1")


@pytest.mark.slow
def test_what_is_assumed_of_an_authors_file_is_said_and_noted(
    published_file: Path, drawn: Path, engine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sentence = f"{published_file} names no classes: RAF-DB's order is assumed (surprise, fear, disgust, happiness, sadness, "
    call("compare", published_file, engine, "--data", drawn, "--limit", "1", "--runs", "1", "--json", tmp_path / "a.json")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len([warning for warning in warnings if warning.startswith(sentence)]) == 1
    assert sentence in (tmp_path / "a.json").read_text(encoding="utf-8")
    with pytest.raises(MisuseError, match="build the engine from this checkpoint"):
        call("compare", published_file, engine, "--data", drawn, "--classes", "fer2013", "--runs", "1")


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


def test_training_goes_on_with_the_classes_of_its_checkpoint(drawn: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun.safetensors"
    init_checkpoint(begun, seed=0, width=0.125, classes=PRESETS["fer2013"])
    call("train", "--from", begun, "--data", drawn, "-o", tmp_path / "a.safetensors", "--epochs", "1", "--batch", "7")
    assert read_checkpoint(tmp_path / "a.safetensors").classes == PRESETS["fer2013"]
