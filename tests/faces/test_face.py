from __future__ import annotations

import io
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from places import SHARED

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.graph_interface import IMAGE_SIDE
from ampnet_opt.core.pictures import read_image
from ampnet_opt.faces.face import COLUMNS, Face, fingerprint, fit, load_batches, load_face, read_faces

POINTS = ["70", "80", "150", "80.5", "110", "120", "80", "160", "140", "160"]
WHOLE = (224, 224)
HEADER = ["file", "label", "split", *COLUMNS]
REAL = SHARED / "faces" / "faces.csv"


def table(folder: Path, *rows: list[str], header: list[str] = HEADER, encoding: str = "utf-8") -> Path:
    path = folder / "faces.csv"
    path.write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n", encoding=encoding)
    return path


def picture(path: Path, size: tuple[int, int] = (32, 24), seed: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def refusal(call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(MisuseError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the table


def test_rows_are_read_as_they_stand(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png", WHOLE), picture(tmp_path / "images" / "ü.png", WHOLE, seed=1)
    path = table(tmp_path, ["a.png", "fear", "train", *POINTS], [" ü.png", " anger ", "test", *POINTS], encoding="utf-8-sig")
    a, b = read_faces(path)
    assert (a.file, a.label, a.split) == (tmp_path / "images" / "a.png", "fear", "train")
    assert (b.file.name, b.label) == ("ü.png", "anger")
    assert a.landmarks.dtype == np.float32 and a.landmarks[1].tolist() == [150, 80.5]
    assert [face.file.name for face in read_faces(path, "test")] == ["ü.png"]
    message = refusal(read_faces, path, "val")
    assert "no rows of split 'val'" in message and "test, train" in message


def test_unlabelled_rows_and_images_beside_the_table(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", WHOLE)
    path = table(tmp_path, ["a.png", *POINTS], header=["file", *COLUMNS])
    assert [(face.label, face.split) for face in read_faces(path, labelled=False)] == [("", "")]
    assert "has no column label, split" in refusal(read_faces, path)
    assert "has no column split" in refusal(read_faces, path, "train", labelled=False)


def test_a_table_without_rows_or_columns(tmp_path: Path) -> None:
    assert "has no rows" in refusal(read_faces, table(tmp_path))
    message = refusal(read_faces, table(tmp_path, header=["file", "label", *COLUMNS[:-2]]))
    assert "has no column split, right_mouth_x, right_mouth_y" in message
    (tmp_path / "faces.csv").write_text("")
    assert "has no column file" in refusal(read_faces, tmp_path / "faces.csv")
    assert "does not exist" in refusal(read_faces, tmp_path / "absent.csv")
    (tmp_path / "images").mkdir()
    assert "is a folder without faces.csv" in refusal(read_faces, tmp_path / "images")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = table(tmp_path, ["ü.png", "fear", "test", *POINTS], encoding="latin-1")
    assert "not a readable CSV" in refusal(read_faces, path)
    path.write_bytes(path.read_bytes().replace(b"\xfc", b"a").decode().encode("utf-16-le"))  # without a byte order mark
    assert "has no column" in refusal(read_faces, path)


@pytest.mark.parametrize("value", ["", " ", "nan", "NaN", "inf", "-inf", "1e39", "1e400", "left", "1;2"])
def test_landmarks_must_be_finite(tmp_path: Path, value: str) -> None:
    picture(tmp_path / "images" / "a.png")
    good = ["a.png", "fear", "test", *POINTS]
    path = table(tmp_path, good, [*good[:7], value, *good[8:]])
    message = refusal(read_faces, path)
    assert f"line 3: landmark nose_x of a.png is {value.strip() or 'missing'}" in message


def test_rows_that_do_not_fit_the_header(tmp_path: Path) -> None:
    good = ["a.png", "fear", "test", *POINTS]
    assert "line 2: landmark right_mouth_y of a.png is missing" in refusal(read_faces, table(tmp_path, good[:-1]))
    assert "more values than there are columns" in refusal(read_faces, table(tmp_path, [*good, "1"]))
    assert "file name is empty" in refusal(read_faces, table(tmp_path, ["", *good[1:]]))
    assert "label of a.png is missing" in refusal(read_faces, table(tmp_path, ["a.png", "", *good[2:]]))
    late = ["file", *COLUMNS, "label", "split"]
    assert "label of a.png is missing" in refusal(read_faces, table(tmp_path, ["a.png", *POINTS], header=late), "test")


def test_absent_images_are_counted(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    rows = [[name, "fear", "test", *POINTS] for name in ("a.png", "b.png", "c.png")]
    assert "2 images" in refusal(read_faces, table(tmp_path, *rows))
    message = refusal(read_faces, table(tmp_path, *rows[:2]))
    assert "an image that does not exist" in message and "b.png" in message


def test_real_faces_load() -> None:
    if not REAL.is_file():
        pytest.skip(f"no faces at {REAL}")
    faces = read_faces(REAL)
    images, landmarks = next(load_batches(faces[:5], 3))
    assert images.shape == (3, IMAGE_SIDE, IMAGE_SIDE, 3) and images.dtype == np.uint8
    assert landmarks.shape == (3, 5, 2) and landmarks.dtype == np.float32
    assert [len(batch) for batch, _ in load_batches(faces[:5], 3)] == [3, 2]
    assert (landmarks[:, 0, 0] < landmarks[:, 1, 0]).all() and (landmarks[:, 0, 1] < landmarks[:, 3, 1]).all()


# --- pictures

GREY = np.arange(32 * 24, dtype=np.uint8).reshape(24, 32)


def saved(path: Path, image: Image.Image, **options: Any) -> np.ndarray:
    image.save(path, **options)
    return read_image(path)


def png(path: Path, pixels: np.ndarray, colour: int, depth: int = 16) -> Path:
    """A PNG of the given colour type, for the kinds that Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, colour, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


def test_grey_of_any_depth_is_grey(tmp_path: Path) -> None:
    expected = np.repeat(GREY[..., None], 3, 2)
    path = tmp_path / "x.png"
    np.testing.assert_array_equal(saved(path, Image.fromarray(GREY)), expected)
    np.testing.assert_array_equal(read_image(png(path, GREY.astype(np.uint16) * 257, 0)), expected)
    np.testing.assert_array_equal(read_image(png(path, np.minimum(GREY.astype(np.uint32) * 257 + 100, 65535), 0)), expected)
    np.testing.assert_array_equal(saved(tmp_path / "x.tif", Image.fromarray(GREY.astype(np.uint16) * 257)), expected)
    np.testing.assert_array_equal(saved(tmp_path / "x.tif", Image.fromarray(GREY - np.float32(0.25) * (GREY > 0))), expected)
    one_bit = saved(path, Image.fromarray(GREY).point(lambda v: 255 * (v > 99)).convert("1"))
    np.testing.assert_array_equal(one_bit, np.where(expected > 99, 255, 0))


def test_sixteen_bit_colour_is_colour(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint16)
    found = read_image(png(tmp_path / "x.png", pixels * 257, 2))
    assert np.abs(found.astype(int) - pixels).max() <= 1


def test_transparency_is_laid_over_black(tmp_path: Path) -> None:
    colour = np.full((20, 20, 4), (200, 100, 50, 255), np.uint8)
    colour[:10, :, 3] = 0
    colour[10:15, :, 3] = 128
    found = saved(tmp_path / "rgba.png", Image.fromarray(colour))
    assert found[0, 0].tolist() == [0, 0, 0] and found[19, 0].tolist() == [200, 100, 50]
    np.testing.assert_allclose(found[12, 0], [100, 50, 25], atol=1)
    found = saved(tmp_path / "la.png", Image.fromarray(colour[..., [0, 3]], "LA"))
    assert found[0, 0].tolist() == [0, 0, 0] and found[19, 0].tolist() == [200] * 3
    palette = Image.fromarray((np.arange(400).reshape(20, 20) % 2).astype(np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 255, 0])
    assert saved(tmp_path / "p.png", palette)[0, :2].tolist() == [[255, 0, 0], [0, 255, 0]]
    assert saved(tmp_path / "pt.png", palette, transparency=0)[0, :2].tolist() == [[0, 0, 0], [0, 255, 0]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_upright(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((24, 32, 3), np.uint8)
    upright[:12, :16] = 255  # the top left quarter
    half, t = upright[::-1, ::-1], (1, 0, 2)
    stored = [upright, upright[:, ::-1], half, upright[::-1], upright.transpose(t)]
    stored += [np.rot90(upright), half.transpose(t), np.rot90(upright, -1)]
    image = Image.fromarray(np.ascontiguousarray(stored[orientation - 1]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = saved(tmp_path / "x.jpg", image, exif=exif, quality=95)
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright)[::4, ::4].max() < 60


@given(
    width=st.integers(16, 500),
    height=st.integers(16, 500),
    where=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
)
def test_a_marked_spot_stays_under_its_landmark(width: int, height: int, where: tuple[float, float]) -> None:
    x, y = int(where[0] * width), int(where[1] * height)
    radius = 1 + max(width, height) // IMAGE_SIDE  # large enough to be seen when the picture shrinks
    image = np.zeros((height, width, 3), np.uint8)
    image[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1] = 255
    fitted, landmarks = fit(image, np.tile(np.float32([x + 0.5, y + 0.5]), (5, 1)))
    assert fitted.shape == (IMAGE_SIDE, IMAGE_SIDE, 3) and landmarks.dtype == np.float32
    column, row = np.floor(landmarks[0]).astype(int)
    assert fitted[row, column].min() > 200


def test_wide_and_tall_pictures_are_padded_with_black(tmp_path: Path) -> None:
    wide, points = fit(np.full((50, 100, 3), 255, np.uint8), np.float32([[0, 0], [100, 50], [50, 25], [0, 50], [100, 0]]))
    assert not wide[:56].any() and not wide[168:].any() and wide[56:168].min() == 255
    assert points.tolist() == [[0, 56], [224, 168], [112, 112], [0, 168], [224, 56]]
    tall, _ = fit(np.full((4000, 16, 3), 255, np.uint8), np.zeros((5, 2), np.float32))
    assert tall.any(axis=(0, 2)).sum() == 1
    square = np.zeros((IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
    assert fit(square, points)[0] is square


# --- what is no picture


def test_refusals_of_pictures(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    assert "does not exist" in refusal(read_image, path)
    assert "is a directory" in refusal(read_image, tmp_path)
    for content, reason in [
        (b"", "is empty"),
        (b"some text", "it is no picture"),
        (b"\xff\xd8\xff\xe0", "header is damaged"),
    ]:
        path.write_bytes(content)
        assert reason in refusal(read_image, path)
    whole = picture(path, (64, 64)).read_bytes()
    for length in (len(whole) // 2, len(whole) - len(whole) // 8):
        path.write_bytes(whole[:length])
        assert "truncated" in refusal(read_image, path)
    Image.new("CMYK", (32, 32)).save(path)
    assert "is CMYK" in refusal(read_image, path)
    for size in [(1, 1), (15, 300), (300, 15)]:
        assert f"is {size[0]} x {size[1]} pixels" in refusal(read_image, picture(tmp_path / "small.png", size))


def test_a_picture_of_damaged_bytes_is_read_or_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for suffix in ("png", "jpg", "gif", "tif", "bmp", "webp"):
        whole = picture(tmp_path / f"x.{suffix}").read_bytes()
        for _ in range(40):
            raw = bytearray(whole)
            for place in rng.integers(0, min(len(raw), 400), 3):
                raw[place] = rng.integers(256)
            path = tmp_path / f"y.{suffix}"
            path.write_bytes(raw)
            try:
                assert read_image(path).shape[2] == 3
            except MisuseError as error:
                assert "\n" not in str(error)


def test_a_header_of_a_giant_picture_is_refused(tmp_path: Path) -> None:
    path = picture(tmp_path / "x.png")
    raw = bytearray(path.read_bytes())
    raw[16:24] = struct.pack(">II", 60000, 60000)
    raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    path.write_bytes(raw)
    assert "60000 x 60000 pixels; at most 268 megapixels" in refusal(read_image, path)


def test_values_of_unknown_range_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    for values, reason in [
        (GREY.astype(np.float32) / 255, "0 to 1"),
        (GREY.astype(np.float32) * 3, "outside 0 to 255"),
        (np.where(GREY > 3, np.nan, 1).astype(np.float32), "outside 0 to 255"),
        (GREY.astype(np.int32) * 1000, "outside 0 to 65535"),
        (GREY.astype(np.int32) - 1, "outside 0 to 65535"),
    ]:
        Image.fromarray(values).save(path)
        assert reason in refusal(read_image, path)


# --- the fingerprint


def test_the_fingerprint_is_of_bytes_landmarks_and_order(tmp_path: Path) -> None:
    points = np.float32(POINTS).reshape(5, 2)
    (tmp_path / "copy").mkdir()
    files = [picture(tmp_path / f"{seed}.png", seed=seed) for seed in range(3)]
    faces = [Face(file, points) for file in files]
    value = fingerprint(faces)
    copies = [Face(Path(shutil.copy(file, tmp_path / "copy" / f"_{file.name}")), points.copy()) for file in files]
    assert fingerprint(copies) == value
    assert fingerprint([Face(face.file, np.asfortranarray(face.landmarks.astype(">f4"))) for face in faces]) == value
    moved = points.copy()
    moved[4, 1] = np.nextafter(moved[4, 1], np.float32(999))
    others = [faces[::-1], faces[:2], [*faces[:2], Face(files[2], moved)], [*faces, faces[0]]]
    values = [fingerprint(other) for other in others]
    files[1].write_bytes(files[1].read_bytes() + b"\0")
    values.append(fingerprint(faces))
    assert len({value, *values}) == 6


def test_a_loaded_face_is_fitted(tmp_path: Path) -> None:
    face = Face(picture(tmp_path / "x.png", (448, 224)), np.float32(POINTS).reshape(5, 2))
    image, landmarks = load_face(face)
    assert image.shape == (IMAGE_SIDE, IMAGE_SIDE, 3)
    np.testing.assert_allclose(landmarks, face.landmarks / 2 + [0, 56])
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    assert not image[:56].any()
