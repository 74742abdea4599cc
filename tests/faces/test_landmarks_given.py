"""Landmarks that a table gives: other forms are refused with their name, or converted by it; bad rows are named."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_points import drawn_points
from PIL import Image
from places import SHARED

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.datasets.registry import read_dataset
from ampnet_opt.faces.face import COLUMNS, ORIGIN, SIZE, load_face, read_faces
from ampnet_opt.faces.landmark_checks import form_of, size_of
from ampnet_opt.faces.landmark_formats import Form, convert, parse_form, upright
from ampnet_opt.preparing.prepare import prepare
from ampnet_opt.synthetic.dataset import DEFAULT_CLASSES
from ampnet_opt.synthetic.dataset import write as draw

REAL = SHARED / "faces" / "faces.csv"
WIDTH, HEIGHT = 320, 240  # of the pictures

# Each form, by the landmarks in it of pictures of 320 x 240.
FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "normalised": lambda p: p / [WIDTH, HEIGHT],
    "signed": lambda p: p / [WIDTH / 2, HEIGHT / 2] - 1,
    "percent": lambda p: p / [WIDTH / 100, HEIGHT / 100],
    "five-x-five-y": lambda p: p.swapaxes(1, 2).reshape(-1, 5, 2),
    "yx": lambda p: p[..., ::-1],
    "nose-first": lambda p: p[:, [2, 0, 1, 3, 4]],
    "nose-last": lambda p: p[:, [0, 1, 3, 4, 2]],
    "mouth-first": lambda p: p[:, [3, 4, 2, 0, 1]],
    "subject": lambda p: p[:, [1, 0, 2, 4, 3]],
    "y-up": lambda p: p * [1, -1] + [0, HEIGHT],
    "normalised,y-up": lambda p: p * [1, -1] / [WIDTH, HEIGHT] + [0, 1],
    "normalised,subject": lambda p: p[:, [1, 0, 2, 4, 3]] / [WIDTH, HEIGHT],
}


def drawn(count: int) -> np.ndarray:
    """Landmarks of drawn faces in the middle of pictures of 320 x 240."""
    return drawn_points(count) * (HEIGHT / 224) + [(WIDTH - HEIGHT) / 2, 0]


def table(folder: Path, points: np.ndarray, size: tuple[int, int] = (WIDTH, HEIGHT), **columns: object) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    path = folder / "faces.csv"
    with open(path, "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "label", "split", *COLUMNS, *columns])
        for number, row in enumerate(points):
            name = folder / "images" / f"{number}.png"
            if not name.exists():
                Image.new("RGB", size, (number, 90, 90)).save(name)
            rows.writerow([name.name, "fear", "test", *np.round(row, 4).ravel(), *columns.values()])
    return path


def refusal(call: Callable[..., object], *arguments: object, **options: object) -> str:
    with pytest.raises(MisuseError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)


@pytest.mark.parametrize("count", [1, 6, 40])
@pytest.mark.parametrize("form", FORMS)
def test_a_table_in_another_form_is_refused_by_its_name_and_converted_by_it(form: str, count: int, tmp_path: Path) -> None:
    points = drawn(count)
    path = table(tmp_path, FORMS[form](points))
    message = refusal(read_faces, path)
    assert "0.png in line 2" in message and f"--landmarks-format {form} converts them" in message
    for found, expected in zip(read_faces(path, form=form), points):
        np.testing.assert_allclose(found.landmarks, expected, atol=0.05)


@pytest.mark.parametrize("side", [48, 100, 800])
def test_pixels_of_the_picture_scaled_to_224_are_told_where_the_picture_is_far_from_that(side: int, tmp_path: Path) -> None:
    points = drawn_points(6)
    path = table(tmp_path, points, (side, side))
    assert "--landmarks-format of-224 converts them" in refusal(read_faces, path)
    for found, expected in zip(read_faces(path, form="of-224"), points):
        np.testing.assert_allclose(found.landmarks, expected * side / 224, atol=0.01)


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p * 0 - 1, "no face was found"),
        (lambda p: p * 0, "no face was found"),
        (lambda p: p * 4.57 + 300, "a larger picture"),
        (lambda p: p[:, [1, 0, 2, 3, 4]], "left and right eye are swapped"),
        (lambda p: p[:, [0, 1, 2, 4, 3]], "left and right corner of the mouth are swapped"),
    ],
)
def test_what_no_option_mends_is_refused_with_its_cause(
    change: Callable[[np.ndarray], np.ndarray], words: str, count: int, tmp_path: Path
) -> None:
    assert words in refusal(read_faces, table(tmp_path, change(drawn(count))))


def test_one_bad_row_is_named_and_its_cause_said(tmp_path: Path) -> None:
    points = drawn(30)
    points[17] = points[17] / [WIDTH, HEIGHT]
    message = refusal(read_faces, table(tmp_path, points))
    assert "1 of 30" in message and "17.png in line 19" in message and "coordinates from 0 to 1" in message
    assert "--landmarks-format" not in message  # which would spoil the others


def test_improbable_landmarks_are_warned_of_with_their_share(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    points = drawn(10)
    points[3:5] = [WIDTH, HEIGHT] - points[3:5]
    with caplog.at_level(logging.WARNING):
        assert len(read_faces(table(tmp_path, points))) == 10
    (record,) = caplog.records
    assert "2 of 10 faces have improbable landmarks, first 3.png in line 5 (the face is upside down)" in record.message


def test_pixels_that_are_said_to_be_pixels_are_not_guessed_at(tmp_path: Path) -> None:
    small = drawn(6) * 0.3125  # as of-224 would be at 100 x 75, or per cent
    path = table(tmp_path, FORMS["percent"](drawn(6)))
    assert "--landmarks-format pixels takes them as they are" in refusal(read_faces, path)
    assert len(read_faces(path, form="pixels")) == 6
    path = table(tmp_path, small / 100)
    assert "within 4 pixels" in refusal(read_faces, path, form="pixels")  # what is impossible stays so
    assert "they were read as pixels" in refusal(read_faces, path, form="pixels")


@pytest.mark.parametrize("orientation", range(2, 9))
def test_points_of_the_picture_before_it_was_turned_upright(orientation: int, tmp_path: Path) -> None:
    points = drawn(1)
    path = table(tmp_path, points)
    turned = np.random.default_rng(0).integers(0, 99, (HEIGHT, WIDTH, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = (WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH)
    Image.fromarray(turned.reshape(stored[1], stored[0], 3)).save(tmp_path / "images" / "0.jpg", exif=exif)
    path.write_text(path.read_text().replace(".png", ".jpg"))
    assert size_of(tmp_path / "images" / "0.jpg") == (WIDTH, HEIGHT, orientation)
    assert len(read_faces(path)) == 1
    # The way back: each turn is its own inverse, but for the quarter turns, which are each other's.
    back = {6: 8, 8: 6}.get(orientation, orientation)
    as_stored = upright(points[0], np.array(stored), back)
    path = table(tmp_path, as_stored[None])
    path.write_text(path.read_text().replace(".png", ".jpg"))
    assert "--landmarks-format unrotated converts them" in refusal(read_faces, path)
    np.testing.assert_allclose(read_faces(path, form="unrotated")[0].landmarks, points[0], atol=0.05)


def test_formats_are_named_or_refused() -> None:
    assert form_of("auto") is None
    assert parse_form("y-up, normalised") == Form("normalised", ("y-up",))
    assert parse_form("subject,nose-first") == Form("pixels", ("nose-first", "subject"))
    for text in ("", "pixel", "normalised,percent", "auto,percent", "subject,subject"):
        with pytest.raises(MisuseError, match="--landmarks-format takes auto"):
            parse_form(text)
    given = drawn(2)[:, [2, 1, 0, 4, 3]]
    nose_first = convert(given, Form("pixels", ("nose-first", "subject")), np.ones((2, 2)), np.ones(2, int))
    np.testing.assert_allclose(nose_first, drawn(2), rtol=1e-6)


def test_a_picture_of_another_size_than_the_table_says_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, drawn(2), picture_width=224, picture_height=224)
    faces = read_faces(path)
    assert faces[0].size == (224, 224)
    assert "320 x 240 pixels; its landmarks are those of a picture of 224 x 224" in refusal(load_face, faces[0])
    assert "of a picture of 224 x 224" in refusal(read_dataset, path)
    assert load_face(read_faces(table(tmp_path, drawn(2), picture_width=WIDTH, picture_height=HEIGHT))[1])
    for size in ("-3", "1e3", "0", "", "²"):
        assert "whole pixels are needed" in refusal(
            read_faces, table(tmp_path, drawn(1), picture_width=9, picture_height=size)
        )


def test_a_face_outside_its_picture_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    (found,) = read_faces(table(tmp_path, drawn(1)))
    Image.new("RGB", (64, 48)).save(found.file)
    assert "most of its landmarks lie outside" in refusal(load_face, found)


def test_prepare_judges_the_landmarks_of_data_sets(tmp_path: Path) -> None:
    points = drawn(4)
    points[2] = -1
    made = prepare(read_dataset(table(tmp_path, points)).pictures, tmp_path / "out", crop=False, workers=1)
    assert made.faces == 3 and made.skipped == {"implausible landmarks": 1}
    with open(made.table, newline="") as stream:
        first = next(csv.DictReader(stream))
    assert [first[name] for name in SIZE] == ["224", "224"]
    assert [first[name] for name in ORIGIN] == ["0.png", str(WIDTH), str(HEIGHT), "", "", "", ""]
    assert len(read_faces(made.table)) == 3
    shares = read_dataset(table(tmp_path, FORMS["normalised"](drawn(4)))).pictures
    assert "--landmarks-format normalised" in refusal(prepare, shares, tmp_path / "no", crop=False, workers=1)
    assert not (tmp_path / "no").exists()
    made = prepare(shares, tmp_path / "yes", crop=False, workers=1, form="normalised")
    scale = 224 / WIDTH
    expected = drawn(4)[0] * scale + [0, (224 - HEIGHT * scale) / 2]
    np.testing.assert_allclose(read_faces(made.table)[0].landmarks, expected, atol=0.05)


def test_landmarks_that_a_detector_replaces_are_not_judged(tmp_path: Path) -> None:
    pictures = read_dataset(table(tmp_path, drawn(2) / 224)).pictures
    with pytest.raises(AmpnetError) as caught:  # the pictures hold no face, or there is no detector
        prepare(pictures, tmp_path / "out", workers=1)
    assert "impossible landmarks" not in str(caught.value)


def test_authors_landmarks_of_five_x_then_five_y_are_read_so(tmp_path: Path) -> None:
    data = draw(tmp_path / "drawn", {"train": 1}, DEFAULT_CLASSES)
    faces = read_faces(data)
    (tmp_path / "dataset").mkdir()
    lines = []
    for number, each in enumerate(faces, 1):
        Image.open(each.file).save(tmp_path / "dataset" / f"train_{number}.jpg")
        lines.append(f"train_{number}.jpg {number}")
    (tmp_path / "data_label.txt").write_text("\n".join(lines))
    points = np.stack([each.landmarks for each in faces])
    for content, noted in ((points, False), (points.swapaxes(1, 2).reshape(-1, 10), True)):
        np.save(tmp_path / "land_marks.npy", content)
        dataset = read_dataset(tmp_path, "authors")
        assert any("five x, then five y" in note for note in dataset.notes) == noted
        for picture, row in zip(dataset.pictures, points):
            assert picture.landmarks is not None
            np.testing.assert_allclose(picture.landmarks, row)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 6, 100])
def test_tables_of_real_faces_are_refused_in_every_other_form_and_in_none_of_ours(count: int, tmp_path: Path) -> None:
    if not REAL.is_file():
        pytest.skip(f"no faces at {REAL}")
    real = read_faces(REAL)
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(count)
    for trial in range(6):
        chosen = [real[row] for row in rng.choice(len(real), count, replace=False)]
        points = np.stack([each.landmarks for each in chosen]).astype(np.float64)
        for row, each in enumerate(chosen):
            target = tmp_path / "images" / f"{row}.png"
            target.unlink(missing_ok=True)
            target.symlink_to(each.file.resolve())
        assert len(read_faces(table(tmp_path, points))) == count, trial
        for form, change in FORMS.items():
            given = change(points * [WIDTH / 224, HEIGHT / 224])  # pictures and points of 224 x 224
            if form in ("normalised", "signed", "percent", "normalised,y-up", "normalised,subject"):
                refusal(read_faces, table(tmp_path, given))
        for order in ("five-x-five-y", "yx", "nose-first", "nose-last", "mouth-first", "subject"):
            refusal(read_faces, table(tmp_path, FORMS[order](points)))
