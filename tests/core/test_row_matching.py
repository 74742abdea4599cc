"""Which row is a picture's: its own by path, in either spelling; what could be two pictures' or two rows' is refused."""

from __future__ import annotations

import csv
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.faces.face import COLUMNS, read_faces
from ampnet_opt.pipeline.classify import find_faces

POINTS = np.float64([[70, 90], [150, 92], [112, 135], [76, 170], [142, 172]])


def picture(path: Path, shade: int, size: tuple[int, int] = (224, 224)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, 9)).save(path)
    return path


def table(path: Path, rows: dict[str, float] | list[tuple[str, float]], **columns: object) -> Path:
    """Rows of a file and how far its landmarks are moved down."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", *COLUMNS, *columns])
        for file, down in rows.items() if isinstance(rows, dict) else rows:
            writer.writerow([file, *np.add(POINTS, (0, down)).ravel(), *columns.values()])
    return path


def moved(pictures: list[Path], path: Path) -> list[float]:
    return [float(face.landmarks[0, 1] - POINTS[0, 1]) for face in find_faces(pictures, path)]


def refusal(pictures: list[Path], path: Path) -> str:
    with pytest.raises(MisuseError) as caught:
        find_faces(pictures, path)
    return str(caught.value)


def test_pictures_of_one_name_in_two_folders_get_their_own_rows(tmp_path: Path) -> None:
    a, b = picture(tmp_path / "a/1.png", 1), picture(tmp_path / "b/1.png", 2)
    rows = {"a/1.png": 1.0, "b/1.png": 2.0}
    for folder in (tmp_path, tmp_path / "elsewhere"):  # beside the pictures, and where they are known by their folders alone
        path = table(folder / "t.csv", rows)
        assert moved([b, a], path) == [2, 1] and moved([a], path) == [1]
        assert moved([tmp_path / "b", tmp_path / "a"], path) == [2, 1]
    (tmp_path / "images").mkdir()
    assert moved([b, a], table(tmp_path / "t.csv", rows)) == [2, 1]  # an empty images/ hides nothing


def test_a_name_alone_serves_when_there_is_one_row_and_one_picture_of_it(tmp_path: Path) -> None:
    a, b = picture(tmp_path / "a/1.png", 1), picture(tmp_path / "b/1.png", 2)
    path = table(tmp_path / "t.csv", {"1.png": 1.0, "2.png": 2.0})
    assert moved([a], path) == [1]
    assert "one row 1.png for" in refusal([a, b], path) and str(b) in refusal([a, b], path)
    c = picture(tmp_path / "c/1.png", 3)
    message = refusal([c], table(tmp_path / "far" / "t.csv", {"x/1.png": 1.0, "y/1.png": 2.0}))
    assert "x/1.png" in message and "y/1.png" in message and str(c) in message


@pytest.mark.parametrize("name", ["x" * 5000 + "/1.png", "a\0b/1.png"])
def test_a_row_whose_name_no_file_can_have_is_no_obstacle(name: str, tmp_path: Path) -> None:
    assert moved([picture(tmp_path / "a/1.png", 1)], table(tmp_path / "t.csv", {name: 3.0, "a/1.png": 1.0})) == [1]


def test_two_rows_of_one_picture_must_be_equal(tmp_path: Path) -> None:
    a = picture(tmp_path / "1.png", 1)
    assert moved([a], table(tmp_path / "t.csv", [("1.png", 1.0), ("1.png", 1.0)])) == [1]
    message = refusal([a], table(tmp_path / "t.csv", [("1.png", 1.0), ("1.png", 2.0)]))
    assert "line 3" in message and "line 2" in message
    assert "other landmarks" in refusal([a], table(tmp_path / "t.csv", [("1.png", 1.0), ("./1.png", 2.0)]))


def test_a_row_whose_own_picture_is_another_one_is_not_taken(tmp_path: Path) -> None:
    photo, cut = picture(tmp_path / "photo.png", 1, (640, 480)), picture(tmp_path / "faces/images/photo.png", 2)
    path = table(tmp_path / "faces/faces.csv", {"photo.png": 1.0})
    message = refusal([photo], path)
    assert f"those of {cut}, which is not the picture {photo}" in message and str(cut.parent) in message
    assert moved([cut], path) == [1] and moved([cut.parent], tmp_path / "faces") == [1]
    copy = tmp_path / "copy" / "photo.png"
    copy.parent.mkdir()
    shutil.copy(cut, copy)
    assert moved([copy], path) == [1]  # the same picture, wherever it lies


def test_a_photo_that_was_cut_into_a_picture_of_another_name_is_told_so(tmp_path: Path) -> None:
    photo = picture(tmp_path / "photo.png", 1, (640, 480))
    picture(tmp_path / "faces/images/photo.jpg", 2)
    path = table(tmp_path / "faces/faces.csv", {"photo.jpg": 1.0}, source="photo.png")
    assert f"cut out of {photo}; ask for {tmp_path / 'faces/images'} instead" in refusal([photo], path)


def test_a_picture_of_another_size_than_its_row_says_is_refused(tmp_path: Path) -> None:
    from ampnet_opt.faces.face import load_face

    large = picture(tmp_path / "1.png", 1, (640, 640))
    (face,) = find_faces([large], table(tmp_path / "t.csv", {"1.png": 1.0}, picture_width=224, picture_height=224))
    with pytest.raises(MisuseError, match="640 x 640 pixels; its landmarks are those of a picture of 224 x 224"):
        load_face(face)


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
def test_names_are_equal_in_both_normal_forms(on_disk: str, in_table: str, tmp_path: Path) -> None:
    file = picture(tmp_path / "é" / unicodedata.normalize(on_disk, "café.png"), 1)  # type: ignore[arg-type]
    path = table(tmp_path / "é" / "t.csv", {unicodedata.normalize(in_table, "café.png"): 1.0})  # type: ignore[arg-type]
    assert moved([file], path) == [1] and moved([file.parent], path) == [1]
    (face,) = read_faces(path, labelled=False)
    assert face.file.samefile(file)


def test_a_row_may_name_its_folder_of_images(tmp_path: Path) -> None:
    file = picture(tmp_path / "images/1.png", 1)
    path = table(tmp_path / "t.csv", {"images/1.png": 1.0})
    assert moved([file], path) == [1]
    assert read_faces(path, labelled=False)[0].file == file


def test_what_is_missing_is_named_in_a_line(tmp_path: Path) -> None:
    pictures = [picture(tmp_path / f"{'long' * 30}{number}.png", number) for number in range(9)]
    message = refusal(pictures, table(tmp_path / "t.csv", {"other.png": 1.0}))
    assert "has no landmarks for" in message and "8 more" in message
