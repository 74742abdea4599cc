"""The commands before there is a checkpoint, and the commands without arguments, from outside."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from console_script import fails, succeeds
from PIL import Image
from places import SHARED

from ampnet_opt import synthetic
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.network.checkpoint import read_checkpoint
from ampnet_opt.shipped import CHECKPOINT

pytestmark = pytest.mark.slow

YUNET = SHARED / "models" / "yunet_n_320_320.onnx"


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


def _only_train(drawn: Path) -> Path:
    lines = (drawn / "faces.csv").read_text().splitlines()
    table = drawn / "only_train.csv"
    table.write_text("\n".join(line for line in lines if ",val," not in line) + "\n")
    return table


def test_without_arguments_the_shipped_checkpoint_meets_drawn_faces(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the engines of these tests run in OpenVINO")
    fails(2, "ampnet-opt build --int8", "compare", cwd=tmp_path)
    here = {"cwd": tmp_path, "variables": {"AMPNET_OPT_CACHE": str(tmp_path / "cache")}}
    built = succeeds("build", "--int8", "--backend", "cpu", "--faces", 14, **here)
    assert "untrained" not in built.stdout and (tmp_path / "engines" / "cpu-int8" / "engine.json").is_file()
    compared = succeeds("compare", "--faces", 70, "--runs", 2, "--json", tmp_path / "report.json", **here)
    assert "drawn faces, split test" in compared.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert [found["name"] for found in report["results"]] == ["PyTorch", "cpu-int8"]
    assert report["faces"] == 70
    for found in report["results"]:  # a guess is right on one in seven
        assert found["accuracy"]["top1"]["low"] > 0.5


def test_shipped_checkpoint_is_small_and_says_what_it_is() -> None:
    loaded = read_checkpoint(CHECKPOINT)
    assert CHECKPOINT.stat().st_size < 8e6
    assert loaded.trained and loaded.classes == PRESETS["rafdb"]
    card = CHECKPOINT.with_name("MODEL_CARD.md").read_text()
    assert loaded.sha256 in card  # the numbers in the card are of these weights


def test_prepare_from_photos_to_faces(tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="faces are found with OpenCV")
    if not YUNET.is_file() or not (SHARED / "faces").is_dir():
        pytest.skip("the detector's file and the photos lie in ../shared, which is absent")
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("00000", "00001"):
        (photos / f"{name}.jpg").write_bytes((SHARED / "faces" / "images" / f"{name}.jpg").read_bytes())
    Image.new("RGB", (300, 200)).save(photos / "black.png")
    (photos / "broken.jpg").write_bytes(b"no picture")
    result = succeeds("prepare", photos, "-o", tmp_path / "faces", "--detector", YUNET, "--workers", 1)
    assert "faces.csv: 2 faces" in result.stdout and result.stderr.count("skipped: 1") == 2
    with open(tmp_path / "faces" / "faces.csv", encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream))) == 2
    fails(2, "--force", "prepare", photos, "-o", tmp_path / "faces", "--detector", YUNET)
    fails(2, "does not exist", "prepare", tmp_path / "nowhere", "-o", tmp_path / "x", "--detector", YUNET)
    fails(2, "does not exist", "prepare", photos, "-o", tmp_path / "x", "--detector", tmp_path / "no.onnx")
    fails(2, "fer2013", "prepare", photos, "-o", tmp_path / "x", "--format", "fer2013", "--detector", YUNET)
    assert not (tmp_path / "x").exists()
