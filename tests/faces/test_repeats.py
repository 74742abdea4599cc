"""A repeated face counts once; rows that contradict each other about a face are named, and two faces of a picture stay."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from drawn_points import drawn_points
from PIL import Image

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.faces.face import COLUMNS, read_faces, read_tables

POINTS = drawn_points(4)
Row = tuple[str, str, str, np.ndarray]  # file, label, split, landmarks


def table(folder: Path, rows: Sequence[Row]) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    with open(folder / "faces.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label", "split", *COLUMNS])
        for name, label, split, points in rows:
            file = folder / "images" / name
            if not file.exists():
                Image.new("RGB", (300, 300), (int(Path(name).stem), 90, 90)).save(file)
            writer.writerow([name, label, split, *np.round(points, 2).ravel()])
    return folder / "faces.csv"


def rows(count: int = 4) -> list[Row]:
    return [(f"{i}.png", "fear", "test", POINTS[i]) for i in range(count)]


def refusal(path: Path, split: str = "test") -> str:
    with pytest.raises(MisuseError) as caught:
        read_faces(path, split)
    return str(caught.value)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_repeated_row_is_left_out_with_a_warning(labelled: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    once = read_faces(table(tmp_path, rows()), "test", labelled)
    assert "left out" not in caplog.text
    many = read_faces(table(tmp_path, rows() * 9), "test", labelled)
    assert [face.file for face in many] == [face.file for face in once] and len(once) == 4
    assert "32 rows left out, with a face that another row has: line 6 (0.png) repeats line 2 (0.png)" in caplog.text
    assert caplog.text.count("left out") == 1


def test_a_picture_under_another_spelling_of_its_name_is_the_same(tmp_path: Path) -> None:
    path = table(tmp_path, [*rows(), ("../images/0.png", "joy", "test", POINTS[0])])
    assert "one face of 0.png has one label in line 2 and another in line 6; keep one row" in refusal(path)


@pytest.mark.parametrize("link", [shutil.copy, os.link])
def test_a_copy_under_another_name_is_left_out(link: object, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = table(tmp_path, rows())
    for name in ("7.png", "8.png"):
        link(tmp_path / "images" / "0.png", tmp_path / "images" / name)  # type: ignore[operator]
    copies = [("7.png", "fear", "test", POINTS[0]), ("8.png", "joy", "test", POINTS[0])]
    assert len(read_faces(table(tmp_path, [*rows(), *copies]), "test")) == 4
    assert (
        "2 rows left out, with a face that another row has: line 6 (7.png) repeats line 2 (0.png); 1 under another"
        in caplog.text
    )
    assert len(read_faces(path, labelled=False)) == 4


@pytest.mark.parametrize(
    "row, words",
    [
        (("0.png", "joy", "test", POINTS[0]), "has one label in line 2 and another in line 6"),
        (("0.png", "fear", "train", POINTS[0]), "has one split in line 2 and another in line 6"),
        (("0.png", "fear", "", POINTS[0]), "has one split in line 2 and another in line 6"),
        (("0.png", "fear", "test", POINTS[0] + 1), "has one set of landmarks in line 2 and another in line 6"),
        (("0.png", "joy", "train", POINTS[0] + 1), "has one label in line 2 and another in line 6"),
    ],
)
def test_rows_that_contradict_each_other_are_named(row: Row, words: str, tmp_path: Path) -> None:
    path = table(tmp_path, [*rows(), row])
    message = refusal(path)
    assert words in message and "faces.csv: one face of 0.png" in message and message.endswith("; keep one row")
    assert len(read_faces(path, labelled=False)) >= 4  # what they are called does not matter then


def test_a_face_of_two_tables_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    other = [("1.png", "joy", "test", POINTS[1]), ("9.png", "joy", "test", POINTS[3])]
    tables = [table(tmp_path / "a", rows(3)), table(tmp_path / "b", other)]
    assert [face.label for face in read_tables(tables, "test")] == ["fear"] * 3 + ["joy"]
    assert "faces.csv: 1 row left out" in caplog.text and "1 under another label" in caplog.text


def test_two_faces_of_a_picture_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    beside = [("0.png", "joy", "test", POINTS[0] + [110, 0]), ("0.png", "anger", "train", POINTS[0] + [0, 110])]
    path = table(tmp_path, [*rows(), *beside])
    assert [face.label for face in read_faces(path, "test")] == ["fear"] * 4 + ["joy"]
    assert [face.label for face in read_faces(path, "train")] == ["anger"]
    assert "left out" not in caplog.text


@pytest.mark.parametrize("form", ["normalised", "five-x-five-y"])
def test_faces_are_told_apart_in_every_form_of_landmarks(form: str, tmp_path: Path) -> None:
    def given(points: np.ndarray) -> np.ndarray:
        return points / 300 if form == "normalised" else points.T.reshape(5, 2)

    own = [(name, label, split, given(points)) for name, label, split, points in rows()]
    two = [*own, ("0.png", "joy", "test", given(POINTS[0] + [110, 0]))]
    wrong = [*own, ("0.png", "joy", "test", given(POINTS[0] + [2, 0]))]
    assert len(read_faces(table(tmp_path, two), "test", form=form)) == 5
    assert "one face of 0.png has one label" in refusal(table(tmp_path, wrong))
