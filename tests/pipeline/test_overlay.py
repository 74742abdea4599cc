"""What is drawn, and what is hidden."""

from __future__ import annotations

import numpy as np
import pytest
from faces_of_a_frame import CLASSES, face, result

from ampnet_opt.pipeline.hiding import KEPT, Lingering, hide
from ampnet_opt.pipeline.overlay import draw


def ground(value: int = 128, width: int = 640, height: int = 480) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_face_gets_a_box_and_a_plate_on_any_ground(value: int) -> None:
    image = ground(value)
    drawn = draw(result(image, face(200, 120, 180)), CLASSES)
    changed = (drawn != value).any(axis=2)
    assert (image == value).all(), "the frame itself stays as it was"
    assert changed[120:300, 200].all() and changed[120, 200:380].all()
    assert changed[140:200, 390:480].mean() > 0.9
    plate = drawn[120:200, 390:480].astype(int)
    assert plate.max() - plate.min() > 180, "white text on a dark plate"


@pytest.mark.parametrize(
    "x, y, side", [(-60, -60, 120), (600, 440, 120), (-500, 900, 50), (0, 0, 640), (3, 3, 2), (630, 2, 8)]
)
def test_faces_at_the_border_and_beyond_are_drawn_without_an_error(x: int, y: int, side: int) -> None:
    for blur in (False, True):
        assert draw(result(ground(), face(x, y, side)), CLASSES, blur=blur).shape == (480, 640, 3)


def test_a_picture_smaller_than_its_label_is_drawn() -> None:
    assert draw(result(ground(width=16, height=16), face(2, 2, 12)), CLASSES).shape == (16, 16, 3)


def test_labels_leave_the_landmarks_of_other_faces_uncovered() -> None:
    faces = [face(20 + 100 * column, 15 + 92 * row, 64, 6 * row + column + 1) for row in range(5) for column in range(6)]
    drawn = draw(result(ground(), *faces), CLASSES)
    for each in faces:
        for x, y in each.detection.landmarks.round().astype(int):
            assert (drawn[y, x] == 255).all()


def test_hiding_leaves_no_more_than_a_few_cells_of_a_face() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    hidden = image.copy()
    hide(hidden, (200, 120, 160, 160))
    inside = hidden[120:280, 200:360].astype(float)
    assert inside.std() < 0.1 * image[120:280, 200:360].astype(float).std()
    assert np.abs(np.diff(inside, axis=1)).max() < 8, "no edge is left"
    assert (hidden[:40] == image[:40]).all() and (hidden[:, 450:] == image[:, 450:]).all()


def test_the_mosaic_stands_still_while_a_box_trembles() -> None:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    one, other = image.copy(), image.copy()
    hide(one, (202, 122, 160, 160))
    hide(other, (204, 123, 160, 160))
    middle = np.s_[160:240, 240:320]
    assert (one[middle] == other[middle]).all()


def test_a_face_that_is_not_found_for_a_moment_stays_hidden() -> None:
    image, kept = ground(), Lingering()
    assert kept.update(result(image, face(100, 100, 80), time=0.0)) == []
    assert kept.update(result(image, time=KEPT / 2)) == [(100, 100, 80, 80)]
    assert kept.update(result(image, face(105, 100, 80), time=KEPT / 2)) == [], "it is found again"
    assert kept.update(result(image, time=2 * KEPT)) == []


def test_pictures_are_not_hidden_for_the_faces_of_others() -> None:
    kept = Lingering()
    kept.update(result(ground(), face(100, 100, 80), name="a.jpg"))
    assert kept.update(result(ground(), name="b.jpg")) == []
