"""Data sets with something wrong, through the commands that read them: one sentence each, and nothing lost or left."""

from __future__ import annotations

import csv
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from console_script import COMMAND, fails, left_in, succeeds
from PIL import Image

from ampnet_opt import synthetic
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.faces.face import COLUMNS

TRAINING = ("--width", 0.125, "--epochs", 1, "--batch", 7)
Rows = list[dict[str, str]]


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    folder = tmp_path / "faces"
    synthetic.write(folder, {"train": 1, "val": 1}, PRESETS["rafdb"], seed=9)
    return folder


def rewrite(folder: Path, change: Callable[[Rows], None], header: list[str] | None = None) -> None:
    table = folder / "faces.csv"
    with open(table, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    change(rows)
    with open(table, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, header or list(rows[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def without_a_column(folder: Path) -> None:
    rewrite(folder, lambda rows: None, [name for name in ("file", "label", "split", *COLUMNS) if name != "nose_x"])


def without_a_picture(folder: Path) -> None:
    next((folder / "images").glob("train_*")).unlink()


def with_a_label_of_no_class(folder: Path) -> None:
    rewrite(folder, lambda rows: rows[0].update(label="9"))


def with_a_landmark_that_is_no_number(folder: Path) -> None:
    rewrite(folder, lambda rows: rows[0].update(mouth_right_x="nan", **{COLUMNS[0]: "nan"}))


def with_a_cut_off_picture(folder: Path) -> None:
    picture = next((folder / "images").glob("train_*"))
    picture.write_bytes(picture.read_bytes()[:500])


def without_a_split(folder: Path) -> None:
    rewrite(folder, lambda rows: rows.__setitem__(slice(None), [row for row in rows if row["split"] == "train"]))


def without_rows(folder: Path) -> None:
    rewrite(folder, lambda rows: None)
    lines = (folder / "faces.csv").read_text().splitlines()
    (folder / "faces.csv").write_text(lines[0] + "\n")


def without_its_table(folder: Path) -> None:
    (folder / "faces.csv").unlink()


def with_a_binary_table(folder: Path) -> None:
    (folder / "faces.csv").write_bytes(bytes(range(256)))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_a_column, "nose_x"),
        (without_a_picture, "image that does not exist"),
        (with_a_label_of_no_class, "9"),
        (with_a_landmark_that_is_no_number, COLUMNS[0]),
        pytest.param(with_a_cut_off_picture, "cannot be read", marks=pytest.mark.slow),
        (without_a_split, "val"),
        (without_rows, "train"),
        (without_its_table, "faces.csv"),
        (with_a_binary_table, "faces.csv"),
    ],
)
def test_train_and_build_say_what_is_wrong(drawn: Path, tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(drawn)
    before = left_in(tmp_path)
    fails(2, words, "train", "--data", drawn, "-o", tmp_path / "net.safetensors", *TRAINING)
    assert left_in(tmp_path) == before
    if damage in (without_a_picture, with_a_cut_off_picture):  # what reads the table alone is `train`'s own reading
        build = ("build", "--int8", "--backend", "cpu", "--data", drawn / "faces.csv", "-o", tmp_path / "engines")
        fails(2, words, *build)
        assert left_in(tmp_path) == before


def test_a_class_without_faces_is_no_error(drawn: Path, tmp_path: Path) -> None:
    rewrite(drawn, lambda rows: rows.__setitem__(slice(None), [row for row in rows if row["label"] != "fear"]))
    succeeds("train", "--data", drawn, "-o", tmp_path / "net.safetensors", *TRAINING)


@pytest.mark.slow
def test_a_training_run_that_was_killed_goes_on(drawn: Path, tmp_path: Path) -> None:
    output, options = tmp_path / "net.safetensors", ("--width", 0.125, "--epochs", 12, "--batch", 7)
    arguments = ["train", "--data", drawn, "-o", output, *options]
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], stderr=subprocess.DEVNULL)
    metrics = output.with_suffix(".csv")
    deadline = time.monotonic() + 100
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = metrics.read_text().splitlines()[1:]
    assert output.with_suffix(".state").is_file()
    fails(2, "--force", *arguments[:-3], 13, *arguments[-2:])  # another recipe would not be the same run
    assert output.with_suffix(".state").is_file()
    result = succeeds(*arguments)
    assert "of 12" in result.stdout
    rows = metrics.read_text().splitlines()[1:]
    assert len(rows) == 12 and rows[: len(done) - 1] == done[:-1]
    assert not output.with_suffix(".state").exists()


def test_prepare_lists_what_it_cannot_read(tmp_path: Path) -> None:
    published = tmp_path / "rafdb"
    (published / "Image" / "aligned").mkdir(parents=True)
    (published / "EmoLabel").mkdir()
    Image.new("RGB", (100, 100)).save(published / "Image" / "aligned" / "train_00001_aligned.jpg")
    table = published / "EmoLabel" / "list_patition_label.txt"
    table.write_text("train_00001.jpg 9\n")
    fails(2, "9", "prepare", published, "-o", tmp_path / "x", "--detector", tmp_path / "none.onnx")
    table.write_text("train_00001.jpg 4\ntrain_00002.jpg 4\n")
    (tmp_path / "empty").mkdir()
    fails(2, "empty", "prepare", tmp_path / "empty", "-o", tmp_path / "x", "--detector", tmp_path / "none.onnx")
    (tmp_path / "fer.csv").write_text("emotion,pixels,Usage\n0,1 2 3,Training\n")
    fails(2, "fer.csv", "prepare", tmp_path / "fer.csv", "-o", tmp_path / "x", "--detector", tmp_path / "none.onnx")
    assert not (tmp_path / "x").exists()
