"""Data without splits is used whole, and that is said; nothing both calibrates and proves."""

from __future__ import annotations

import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_points import drawn_points
from PIL import Image
from typer.testing import CliRunner

from ampnet_opt.calibration.table import CalibrationTable
from ampnet_opt.cli.conversion import independent
from ampnet_opt.cli.inputs import apart, faces_of
from ampnet_opt.cli.main import application
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.faces.face import COLUMNS, identity, read_faces

NAMES = ("--split", "--held-out")
LABELS = ["fear", "anger", "neutral"]


def table(folder: Path, splits: list[str] | None, labels: list[str] | None = None, separator: str = ",") -> Path:
    (folder / "images").mkdir(exist_ok=True)
    count = 12 if splits is None else len(splits)
    points = drawn_points(count)
    with open(folder / "faces.csv", "w", newline="") as stream:
        rows = csv.writer(stream, delimiter=separator)
        rows.writerow(["file", "label", *(["split"] if splits is not None else []), *COLUMNS])
        for number in range(count):
            Image.new("RGB", (224, 224), (number, 0, 0)).save(folder / "images" / f"{number}.png")
            label = LABELS[number % 3] if labels is None else labels[number]
            split = [] if splits is None else [splits[number]]
            rows.writerow([f"{number}.png", label, *split, *np.round(points[number], 2).ravel()])
    return folder / "faces.csv"


@pytest.mark.parametrize("splits", [None, [""] * 12])
@pytest.mark.parametrize("separator", [",", ";"])
def test_data_without_splits_is_taken_whole_and_that_is_said(
    splits: list[str] | None, separator: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path, splits, separator=separator)
    for given in (path, path.parent):
        assert len(faces_of(given, "train")) == 12
        assert "has no splits; all 12 faces are taken" in capsys.readouterr().err
    assert len(faces_of(path, "all")) == 12
    assert capsys.readouterr().err == ""


def test_all_is_every_row_and_a_split_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = table(tmp_path, ["train"] * 4 + ["val"] * 3 + [""])
    assert [len(faces_of(path, split)) for split in ("all", "train", "val")] == [8, 4, 3]
    assert "1 row without a split left out" in caplog.text
    with pytest.raises(MisuseError, match="no rows of split 'test'; it has train, val"):
        faces_of(path, "test")


def test_what_calibrates_does_not_prove(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = read_faces(table(tmp_path, None), "all", whole=True)
    calibrating, proving = apart([whole, whole], NAMES)
    assert {face.file for face in calibrating}.isdisjoint(face.file for face in proving)
    assert sorted(face.label for face in calibrating) == sorted(face.label for face in proving) == sorted(LABELS * 2)
    assert "data without splits: 6 faces for --split, 6 faces for --held-out" in capsys.readouterr().err
    path = table(tmp_path, ["train"] * 6 + ["val"] * 6)
    train, val = read_faces(path, "train"), read_faces(path, "val")
    assert apart([train, val], NAMES) == [train, val]
    with pytest.raises(MisuseError, match="--split and --held-out share 6 faces"):
        apart([read_faces(path, "all"), val], NAMES)
    with pytest.raises(MisuseError, match="data without splits: no class has 2 faces, one each for --split, --held-out"):
        apart([whole[:3], whole[:3]], NAMES)


def test_copies_of_pictures_that_calibrate_do_not_prove(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Published data sets have some pictures in two splits, under two names."""
    path = table(tmp_path, ["train"] * 6 + ["val"] * 6)
    rows = path.read_text().splitlines()
    rows[7] = rows[1].replace("0.png", "6.png").replace("train", "val")  # the same landmarks
    path.write_text("\n".join(rows) + "\n")
    shutil.copy(tmp_path / "images" / "0.png", tmp_path / "images" / "6.png")
    train, val = read_faces(path, "train"), read_faces(path, "val")
    assert apart([train, val], NAMES) == [train, val[1:]]
    assert "1 face of --held-out left out: copies of pictures of --split" in capsys.readouterr().err
    with pytest.raises(MisuseError, match="all faces of --held-out are copies of pictures of --split"):
        apart([train, val[:1]], NAMES)


@pytest.mark.parametrize("splits", [("val", "val", "test"), ("train", "val", "val"), ("val", "val", "absent")])
def test_optimize_refuses_splits_that_share_faces(splits: tuple[str, str, str], tmp_path: Path) -> None:
    path = table(tmp_path, ["train"] * 3 + ["val"] * 6 + ["test"] * 3)
    names = (word for pair in zip(("--split", "--held-out", "--final"), splits) for word in pair)
    command = ["optimize", "--data", str(path), "-o", str(tmp_path / "engines"), *names]
    result = CliRunner().invoke(application(), command)
    assert isinstance(result.exception, MisuseError)
    assert re.search("share [36] faces: faces that train, calibrate or choose cannot prove", str(result.exception))


def test_what_a_bundle_carries_to_judge_by_has_not_calibrated(tmp_path: Path) -> None:
    path = table(tmp_path, ["train"] * 6 + ["test"] * 6)
    what = ["bundle", "--target", "cpu", "--int8", "--fp32", "-o", str(tmp_path / "b.tar"), "--data", str(path)]

    def refusal(*words: str) -> str:
        result = CliRunner().invoke(application(), [*what, *words])
        assert isinstance(result.exception, MisuseError) and not (tmp_path / "b.tar").exists()
        return str(result.exception)

    assert "--split and --final share 6 faces" in refusal("--with-faces", "--split", "test")
    assert refusal("--final", "nosuch") == "--final would do nothing without --with-faces"
    assert "has no rows of split 'nosuch'" in refusal("--with-faces", "--final", "nosuch")
    what[-2:] = ["--split", "test"]
    assert "--split and the drawn faces that the bundle carries share" in refusal()


def test_faces_that_gave_the_scales_do_not_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path, ["train"] * 6 + ["test"] * 6)
    test = read_faces(path, "test")
    scales = CalibrationTable("minmax", 3, "ab" * 32, "cd" * 32, {}, seen=[identity(face) for face in test[:2]])
    assert independent(test, scales, "--final") == test[2:]
    assert "data: 2 faces of --final left out: the scales (--scales) are of them" in capsys.readouterr().err
    assert independent(test, replace(scales, seen=None), "--final") == test
    assert "do not say which faces they are of; some of --final may be among them" in capsys.readouterr().err
    replace(scales, seen=[identity(face) for face in test]).write(tmp_path / "scales.json")
    what = ["bundle", "--target", "cpu", "--int8", "--fp32", "-o", str(tmp_path / "b.tar"), "--data", str(path)]
    result = CliRunner().invoke(application(), [*what, "--with-faces", "--scales", str(tmp_path / "scales.json")])
    assert str(result.exception).startswith("the scales (--scales) are of all faces of --final")


def test_options_of_faces_that_nobody_takes_are_refused(tmp_path: Path) -> None:
    def refusal(*words: str) -> str:
        result = CliRunner().invoke(application(), [*words, "-o", str(tmp_path / "out")])
        assert isinstance(result.exception, MisuseError) and list(tmp_path.iterdir()) == []
        return str(result.exception)

    idle = "--split, --faces would do nothing without --int8 or --data"
    assert refusal("build", "--backend", "cpu", "--fp32", "--split", "test", "--faces", "9") == idle
    assert refusal("bundle", "--target", "cpu", "--fp32", "--split", "test", "--faces", "9") == idle
    form = "--landmarks-format would do nothing without --data"
    assert refusal("build", "--backend", "cpu", "--int8", "--landmarks-format", "pixels") == form
    assert refusal("optimize", "--landmarks-format", "pixels") == form


def test_training_does_not_validate_on_what_it_trains_on(tmp_path: Path) -> None:
    def refusal(*tables: Path) -> str:
        words = [word for path in tables for word in ("--data", str(path))]
        result = CliRunner().invoke(application(), ["train", *words, "-o", str(tmp_path / "x.safetensors")])
        assert isinstance(result.exception, MisuseError)
        return str(result.exception)

    one = table(tmp_path, ["train"] * 6 + ["val"] * 6)
    other = tmp_path / "other.csv"
    swapped = {",val,": ",train,", ",train,": ",val,"}
    other.write_text(re.sub("|".join(swapped), lambda found: swapped[found[0]], one.read_text()))
    assert refusal(one, other).startswith("the split train and the split val share 12 faces")
    (tmp_path / "copies").mkdir()
    copies = table(tmp_path / "copies", ["val"] * 6 + ["train"] * 6)
    assert refusal(one, copies).startswith("all faces of the split val are copies of pictures of the split train")


def test_training_without_splits_is_refused_in_words(tmp_path: Path) -> None:
    for splits, words in ((None, "no column split"), ([""] * 12, "no row of it has a split")):
        result = CliRunner().invoke(
            application(), ["train", "--data", str(table(tmp_path, splits)), "-o", str(tmp_path / "x.pth")]
        )
        assert isinstance(result.exception, AmpnetError) and words in str(result.exception)


@pytest.mark.parametrize("command", ["build", "bundle", "compare", "sensitivity", "report", "train", "prepare", "run"])
def test_every_command_that_takes_landmarks_takes_their_format(command: str) -> None:
    assert "--landmarks-format" in CliRunner().invoke(application(), [command, "--help"], env={"COLUMNS": "200"}).output
