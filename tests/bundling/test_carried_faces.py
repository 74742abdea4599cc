"""Labelled faces that travel in a bundle: what comes out is what went in, or a sentence."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ampnet_opt.bundling.carried_faces import LOGITS, QUALITY, open_carried, shrunk, write_carried
from ampnet_opt.core.tables import NAME as TABLE
from ampnet_opt.faces.face import Face, load_face, read_faces
from ampnet_opt.shipped import GOLDEN_FACES


@pytest.fixture(scope="module")
def faces() -> list[Face]:
    return read_faces(GOLDEN_FACES, whole=True)


@pytest.fixture(scope="module")
def logits(faces: list[Face]) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(len(faces), 7)).astype(np.float32)


def carried(faces: list[Face], logits: np.ndarray, folder: Path) -> bytes:
    write_carried(folder / "faces.zip", faces, logits)
    return (folder / "faces.zip").read_bytes()


def test_faces_come_out_as_they_went_in(faces: list[Face], logits: np.ndarray, tmp_path: Path) -> None:
    with open_carried(carried(faces, logits, tmp_path), 7) as (found, numbers):
        np.testing.assert_array_equal(numbers, logits)
        assert [face.label for face in found] == [face.label for face in faces]
        for one, other in zip(found, faces, strict=True):
            assert one.file.read_bytes() == other.file.read_bytes()
            np.testing.assert_array_equal(one.landmarks, other.landmarks)
        folder = found[0].file.parent
    assert not folder.exists()


def test_faces_that_a_bundle_repeats_count_once(faces: list[Face], logits: np.ndarray, tmp_path: Path) -> None:
    twice = carried([*faces, *faces[:3]], np.concatenate([logits, logits[:3]]), tmp_path)
    with open_carried(twice, 7) as (found, numbers):
        assert [face.label for face in found] == [face.label for face in faces]
        np.testing.assert_array_equal(numbers, logits)


def test_drawn_faces_are_made_small_and_keep_their_landmarks(faces: list[Face], tmp_path: Path) -> None:
    for one, other in zip(shrunk(faces, tmp_path), faces, strict=True):
        (image, points), (drawn, exact) = load_face(one), load_face(other)
        np.testing.assert_allclose(points, exact)
        assert np.abs(image.astype(float) - drawn).mean() < 4  # of JPEG at this quality
        assert Image.open(one.file).format == "JPEG"
        assert one.file.stat().st_size < 30_000
    assert QUALITY < 95


@pytest.mark.parametrize("name", ["../out.jpg", "images/00000/../../out.jpg", "/out.jpg", "images/one.jpg", "other"])
def test_a_member_that_is_none_of_ours_is_refused(faces: list[Face], logits: np.ndarray, tmp_path: Path, name: str) -> None:
    data = io.BytesIO(carried(faces, logits, tmp_path))
    with zipfile.ZipFile(data, "a") as archive:
        archive.writestr(name, b"no")
    with pytest.raises(ValueError, match="its faces are not those of a bundle"), open_carried(data.getvalue(), 7):
        pass


def test_logits_that_do_not_fit_are_refused(faces: list[Face], logits: np.ndarray, tmp_path: Path) -> None:
    whole = carried(faces, logits, tmp_path)
    with pytest.raises(ValueError, match="do not fit together"), open_carried(whole, 8):
        pass
    with pytest.raises(ValueError, match="do not fit together"), open_carried(carried(faces, logits[:-1], tmp_path), 7):
        pass
    with pytest.raises(ValueError, match="do not fit together"), open_carried(carried(faces, logits * np.nan, tmp_path), 7):
        pass


@pytest.mark.parametrize("missing", [TABLE, LOGITS])
def test_what_is_missing_is_noticed(faces: list[Face], logits: np.ndarray, tmp_path: Path, missing: str) -> None:
    kept = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(carried(faces, logits, tmp_path))) as old, zipfile.ZipFile(kept, "w") as new:
        for member in old.infolist():
            if member.filename != missing:
                new.writestr(member, old.read(member))
    with pytest.raises(ValueError, match="not those of a bundle"), open_carried(kept.getvalue(), 7):
        pass


def test_bytes_of_anything_else_are_refused(faces: list[Face], logits: np.ndarray, tmp_path: Path) -> None:
    whole = carried(faces, logits, tmp_path)
    for data in (b"", b"PK", whole[: len(whole) // 2], whole[:-100]):
        with pytest.raises(ValueError), open_carried(data, 7):
            pass
