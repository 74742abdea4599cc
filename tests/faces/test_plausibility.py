"""What can be a face: every face that is one, in any pose, and none whose points are in the wrong order or unit."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from drawn_points import drawn_points
from hypothesis import given
from hypothesis import strategies as st
from places import SHARED

from ampnet_opt.faces.face import COLUMNS
from ampnet_opt.faces.landmark_checks import MEAN_FACE, impossible, improbable, shape_of, typical

REAL = SHARED / "faces" / "faces.csv"
FACE = np.float64([[70, 90], [150, 92], [112, 135], [76, 170], [142, 172]])
# Which point stands where ours should.
WRONG_ORDERS = {
    "the person's left and right": [1, 0, 2, 4, 3],
    "eyes swapped": [1, 0, 2, 3, 4],
    "mouth swapped": [0, 1, 2, 4, 3],
    "mouth first": [3, 4, 2, 0, 1],
    "nose first": [2, 0, 1, 3, 4],
    "nose last": [0, 1, 3, 4, 2],
}
UNKNOWN = np.full((1, 2), np.nan)


def sizes(count: int, width: float = 224, height: float = 224) -> np.ndarray:
    return np.tile(np.float64([[width, height]]), (count, 1))


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    if not REAL.is_file():
        pytest.skip(f"no faces at {REAL}")
    with open(REAL, newline="") as stream:
        return np.array([[float(row[name]) for name in COLUMNS] for row in csv.DictReader(stream)]).reshape(-1, 5, 2)


def test_real_faces_are_possible_and_all_but_one_of_a_thousand_probable(real: np.ndarray) -> None:
    assert not any(impossible(real, sizes(len(real))))
    assert sum(map(bool, improbable(real, sizes(len(real))))) <= len(real) / 1000


def test_drawn_faces_are_probable() -> None:
    assert typical(drawn_points(300), sizes(300)).all()


@pytest.mark.parametrize("name", WRONG_ORDERS)
def test_real_faces_with_points_in_a_wrong_order_are_impossible(name: str, real: np.ndarray) -> None:
    reasons = impossible(real[:, WRONG_ORDERS[name]], sizes(len(real)))
    assert np.mean([bool(reason) for reason in reasons]) > 0.999
    assert not typical(real[:, WRONG_ORDERS[name]], sizes(len(real))).any()


@pytest.mark.parametrize(
    "kind", ["0 to 1", "-1 to 1", "not found", "y before x", "y from the bottom", "five x, five y", "twice the size"]
)
def test_real_faces_in_other_forms_are_impossible(kind: str, real: np.ndarray) -> None:
    moved = {
        "0 to 1": real / 224,
        "-1 to 1": real / 112 - 1,
        "not found": real * 0 - 1,
        "y before x": real[..., ::-1],
        "y from the bottom": real * [1, -1] + [0, 224],
        "five x, five y": real.swapaxes(1, 2).reshape(-1, 5, 2),
        "twice the size": real * 2,
    }[kind]
    assert np.mean([bool(reason) for reason in impossible(moved, sizes(len(moved)))]) > 0.995


@given(st.floats(0.1, 30), st.floats(-180, 180), st.floats(-500, 500), st.floats(-500, 500))
def test_place_size_and_roll_do_not_change_the_shape(scale: float, roll: float, x: float, y: float) -> None:
    angle = np.radians(roll)
    turned = FACE @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    before, after = shape_of(FACE[None]), shape_of((turned * scale + [x, y])[None])
    np.testing.assert_allclose(after.error, before.error, atol=1e-6)
    np.testing.assert_allclose(np.cos(np.radians(after.roll - before.roll)), np.cos(angle), atol=1e-6)


@given(st.floats(-80, 80), st.floats(-35, 35), st.floats(-180, 180))
def test_a_face_is_possible_however_the_head_is_turned(yaw: float, pitch: float, roll: float) -> None:
    a, b, c = np.radians([yaw, pitch, roll])
    around_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    around_x = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    around_z = np.array([[np.cos(c), -np.sin(c)], [np.sin(c), np.cos(c)]])
    seen = (MEAN_FACE @ around_y.T @ around_x.T)[:, :2] @ around_z.T
    points = seen[None] * 80 + 112
    assert impossible(points, sizes(1)) == [""]
    tilted = "side" in improbable(points, UNKNOWN)[0] or "upside" in improbable(points, UNKNOWN)[0]
    assert tilted == (abs(roll) > 60) or abs(abs(roll) - 60) < 8 or abs(yaw) > 60


@pytest.mark.parametrize(
    ("points", "why"),
    [
        (FACE[:, ::-1] @ np.diag([1, -1]) + [0, 224], "on its side"),
        (224 - FACE, "upside down"),
        (FACE * 0.3 + 80, "small part"),
        (FACE - [85, 0], "outside"),
        (FACE * 0.7 - [20, 40], "edge"),
    ],
)
def test_what_is_improbable_is_said(points: np.ndarray, why: str) -> None:
    assert impossible(points[None], sizes(1)) == [""]
    assert why in improbable(points[None], sizes(1))[0]


def test_a_picture_of_unknown_size_is_not_judged_by_it() -> None:
    assert impossible(FACE[None] * 9 + 5000, UNKNOWN) == [""] and improbable(FACE[None] / 4, UNKNOWN) == [""]
    assert "outside" in impossible(FACE[None] + 150, sizes(1))[0]
