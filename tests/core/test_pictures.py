"""Picture files: which formats are read, which are refused, and what reading may cost."""

from __future__ import annotations

import importlib.util
import io
import os
import random
import resource
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.installing import install_command
from ampnet_opt.core.picture_files import FORMATS, LARGEST, Budget, InMemory, recognised
from ampnet_opt.core.pictures import (
    OTHER_PICTURES,
    PICTURES,
    WHOLE,
    decoded_photo,
    image_header,
    is_picture,
    opened_photo,
    read_image,
)
from ampnet_opt.faces.face import Face, load_face

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pytest shows what the package's own filter hides
SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[0:240:48j, 0:200:64j], 90), -1).astype(np.uint8)  # [48, 64, 3]
POINTS = np.float32([[20, 15], [40, 15], [30, 25], [22, 35], [38, 35]])


def refusal(path: Path) -> str:
    with pytest.raises(AmpnetError) as caught:
        read_image(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300 + len(str(path)) and "Error" not in message
    return message


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, pixels: bytes, colour: int = 0, depth: int = 8, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    end = chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + end


def tiff(entries: list[tuple[int, int, int, int]], rest: bytes) -> bytes:
    """tag, type, count, value or offset; the directory ends at 8 + 2 + 12 * len(entries) + 4."""
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + struct.pack("<I", 0) + rest


# --- formats


@pytest.mark.parametrize("suffix", sorted(PICTURES - {".heic", ".heif", ".hif"}))
def test_every_suffix_that_is_listed_is_read_in_either_case(tmp_path: Path, suffix: str) -> None:
    kind = next(format.name for format in FORMATS if suffix in format.suffixes)
    path = tmp_path / f"x{suffix.upper()}"
    Image.fromarray(SMOOTH).save(path, kind)
    assert np.abs(read_image(path).astype(int) - SMOOTH).mean() < 8
    assert image_header(path) == ((64, 48), 1) and is_picture(path)
    shutil.copy(path, tmp_path / "x.txt")  # the name does not matter, what is inside does
    assert np.array_equal(read_image(tmp_path / "x.txt"), read_image(path))


def test_suffixes_are_read_or_listed_as_left_out_never_both() -> None:
    assert {".jpg", ".jpe", ".jfif", ".gif", ".tif", ".png", ".bmp"} <= PICTURES
    assert {".avif", ".webp", ".jp2", ".heic"} <= PICTURES | OTHER_PICTURES
    assert {".dng", ".svg", ".eps", ".pdf"} <= OTHER_PICTURES and not PICTURES & OTHER_PICTURES
    assert not is_picture(Path("._x.jpg")) and is_picture(Path("x.heic"), PICTURES | OTHER_PICTURES)


def test_no_other_program_and_no_other_format_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = tmp_path / "started"
    for name in ("gs", "gswin64c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {started}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    image = Image.fromarray(SMOOTH)
    for kind in ("EPS", "PCX", "TGA", "PPM", "ICO", "PDF", "SGI", "IM", "DDS"):
        path = tmp_path / "photo.jpg"
        image.save(path, kind)
        assert "it is no picture (JPEG, PNG" in refusal(path)
        with pytest.raises(MisuseError):
            image_header(path)
    assert not started.exists()


def heif(brand: bytes) -> bytes:
    return struct.pack(">I", 24) + b"ftyp" + brand + b"\0\0\0\0mif1" + brand + bytes(40)


def test_heic_says_what_to_do_whatever_its_name(tmp_path: Path) -> None:
    assert recognised(heif(b"heic")).name == "HEIF" and recognised(heif(b"avif")).name == "AVIF"
    if any(importlib.util.find_spec(name) for name in ("pi_heif", "pillow_heif")):
        pytest.skip("a reader of HEIF is installed")
    for name in ("x.heic", "x.jpg"):
        (tmp_path / name).write_bytes(heif(b"heic"))
        assert f"is HEIF, which is not read here: {install_command('heif')}, or convert" in refusal(tmp_path / name)
    assert ".heic" in OTHER_PICTURES


def test_heic_is_read_with_its_extra(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif to write a HEIC")
    pillow_heif.from_pillow(Image.fromarray(SMOOTH)).save(tmp_path / "x.heic")
    assert np.abs(read_image(tmp_path / "x.heic").astype(int) - SMOOTH).mean() < 8


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif", "tif", "mpo"])
def test_the_first_of_several_frames_is_read(tmp_path: Path, suffix: str) -> None:
    if f".{suffix}" not in PICTURES:
        pytest.skip(f"Pillow reads no {suffix} here")
    first, second = Image.new("RGB", (32, 32), (250, 0, 0)), Image.new("RGB", (32, 32), (0, 0, 250))
    first.save(tmp_path / f"x.{suffix}", save_all=True, append_images=[second])
    assert np.abs(read_image(tmp_path / f"x.{suffix}").astype(int) - (250, 0, 0)).max() < 12


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
@pytest.mark.parametrize("orientation", range(10))
def test_size_and_pixels_are_upright_in_every_format(tmp_path: Path, suffix: str, orientation: int) -> None:
    if f".{suffix}" not in PICTURES:
        pytest.skip(f"Pillow reads no {suffix} here")
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(SMOOTH).save(tmp_path / f"x.{suffix}", exif=exif)
    turned = 5 <= orientation <= 8
    with opened_photo(tmp_path / f"x.{suffix}") as photo:
        assert (
            photo.size == photo.image.size == image_header(tmp_path / f"x.{suffix}")[0] == ((48, 64) if turned else (64, 48))
        )
    expected = Image.fromarray(SMOOTH)
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)  # of Image.Transpose, by EXIF 2.32, section 4.6.4
    expected = expected if turn is None else expected.transpose(Image.Transpose(turn))
    assert np.abs(read_image(tmp_path / f"x.{suffix}").astype(int) - np.asarray(expected)).mean() < 8


# --- ranges


def test_twelve_bits_in_sixteen_are_never_read_as_black(tmp_path: Path) -> None:
    twelve = np.linspace(40, 4095, 48 * 64).reshape(48, 64).astype(np.uint16)
    path = tmp_path / "x.png"
    Image.fromarray(twelve).save(path)
    assert "none above 4095 of 65535, as of 10-bit or 12-bit data; scale it" in refusal(path)
    for rows, colour in [(np.stack([twelve] * 3, -1), 2), (np.stack([twelve, twelve, twelve, twelve * 16], -1), 6)]:
        data = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
        path.write_bytes(png(64, 48, zlib.compress(data), colour, 16))
        assert "of 65535, as of 10-bit or 12-bit data" in refusal(path)
    Image.fromarray(twelve).save(tmp_path / "x.tif")
    assert "of 65535, as of" in refusal(tmp_path / "x.tif")
    Image.fromarray(np.zeros_like(twelve)).save(path)
    assert not read_image(path).any()  # black in any range


def test_twelve_bits_are_read_where_the_file_says_so(tmp_path: Path) -> None:
    twelve = np.linspace(40, 4095, 48 * 64).reshape(48, 64).astype(np.uint16)
    expected = np.repeat((twelve * (255 / 4095)).round().astype(np.uint8)[..., None], 3, 2)
    Image.fromarray(twelve).save(tmp_path / "x.tif", tiffinfo={281: 4095})  # MaxSampleValue
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif"), expected)
    pairs = twelve.reshape(-1, 2).astype(np.uint32)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], -1).astype(np.uint8)
    entries = [(256, 3, 1, 64), (257, 3, 1, 48), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1)]
    entries += [(273, 4, 1, 134), (277, 3, 1, 1), (278, 3, 1, 48), (279, 4, 1, packed.size), (284, 3, 1, 1)]
    (tmp_path / "y.tif").write_bytes(tiff(entries, packed.tobytes()))
    np.testing.assert_array_equal(read_image(tmp_path / "y.tif"), expected)


# --- large pictures


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smooth JPEG of 108 megapixels, as phones make them."""
    path = tmp_path_factory.mktemp("large") / "x.jpg"
    Image.fromarray(SMOOTH).resize((12000, 9000), Image.Resampling.BICUBIC).save(path, quality=60)
    return path


def test_a_photo_of_108_megapixels_is_scaled_down_and_its_landmarks_stay(large: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with opened_photo(large) as photo:
            assert photo.size == image_header(large)[0] == (12000, 9000) and photo.image.size == (6000, 4500)
        image, points = load_face(Face(large, POINTS * 187.5))
    Image.fromarray(SMOOTH).resize((3000, 2250), Image.Resampling.BICUBIC).save(tmp_path / "small.jpg", quality=95)
    expected, expected_points = load_face(Face(tmp_path / "small.jpg", POINTS * 46.875))
    np.testing.assert_allclose(points, expected_points, atol=1e-3)
    assert np.abs(image.astype(int) - expected).mean() < 2


@pytest.mark.parametrize(("suffix", "size"), [("bmp", (10000, 9600)), ("jp2", (9600, 9600))])
def test_large_pictures_of_other_formats_are_scaled_down_too(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    if f".{suffix}" not in PICTURES:
        pytest.skip(f"Pillow reads no {suffix} here")
    Image.new("L", size, 77).save(tmp_path / f"x.{suffix}")
    with opened_photo(tmp_path / f"x.{suffix}") as photo:
        assert photo.size == size and photo.image.size == (size[0] // 2, size[1] // 2)
        assert photo.image.getpixel((9, 9)) == (77, 77, 77)


def test_a_picture_of_ordinary_size_is_not_scaled(tmp_path: Path) -> None:
    assert WHOLE > 2**26  # what was read without a warning is read as it was
    Image.new("L", (9400, 9500), 9).save(tmp_path / "x.jpg")
    with opened_photo(tmp_path / "x.jpg") as photo:
        assert photo.image.size == (9400, 9500)


def test_bombs_are_refused_in_words_without_the_memory(tmp_path: Path) -> None:
    zeros = zlib.compress(bytes(1 << 20))
    bombs = {
        "giant.png": png(65536, 65536, zeros),
        "text.png": png(64, 48, zeros, extra=b"".join(chunk(b"zTXt", b"a%d\0\0" % i + zeros) for i in range(200))),
        "profile.png": png(64, 48, zeros, extra=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 28)))),
        "giant.bmp": b"BM" + struct.pack("<IIIIiiHHIIIIII", 1 << 20, 0, 54, 40, 1 << 16, 1 << 16, 1, 24, 0, 0, 0, 0, 0, 0),
        "giant.gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + bytes(20),
        "giant.webp": b"RIFF" + struct.pack("<I", 100) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + b"\xff" * 6 + bytes(80),
        "giant.tif": tiff([(256, 4, 1, 1 << 20), (257, 4, 1, 1 << 20), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8)], b""),
        # 20,000 tags that all are the whole file
        "tags.tif": tiff([(tag, 1, 1 << 22, 8) for tag in range(1000, 21000)], bytes(1 << 22)),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, content in bombs.items():
        (tmp_path / name).write_bytes(content)
        began = time.perf_counter()
        refusal(tmp_path / name)
        assert time.perf_counter() - began < 20, name  # generous: other tests may share the cores
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB


def test_a_picture_over_the_limit_names_both(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(20000, 20000, b""))
    assert "has 20000 x 20000 pixels; at most 268 megapixels are read: scale it down first" in refusal(tmp_path / "x.png")


RUN = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from ampnet_opt.faces.face import Face, load_face
with ThreadPoolExecutor(3) as pool:
    list(pool.map(load_face, [Face(file, np.zeros((5, 2), np.float32)) for file in sys.argv[1:] * 3]))
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_is_bounded_however_many_large_pictures_there_are(tmp_path: Path) -> None:
    side = 12000  # 144 megapixels: 720 MB while they are made RGB, and two are more than the budget
    (tmp_path / "x.png").write_bytes(png(side, side, zlib.compress(bytes((side + 1) * side), 1)))
    used = subprocess.run([sys.executable, "-c", RUN, str(tmp_path / "x.png")], capture_output=True, text=True, check=True)
    assert 500 < int(used.stdout) / 1024 < 1100  # MB


@given(st.lists(st.integers(1, 30), max_size=12), st.integers(1, 6))
def test_the_budget_is_kept_by_all_threads_and_given_back(amounts: list[int], threads: int) -> None:
    budget, lock, used, most = Budget(20), threading.Lock(), 0, 0

    def take(amount: int) -> None:
        nonlocal used, most
        with budget.taken(amount):
            with lock:
                used += min(amount, 20)
                most = max(most, used)
            time.sleep(0.0001)
            with lock:
                used -= min(amount, 20)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(take, amounts))
    assert most <= 20 and budget.free == 20


def test_a_picture_that_fails_gives_its_share_back(tmp_path: Path) -> None:
    from ampnet_opt.core.pictures import _budget

    whole = io.BytesIO()
    Image.fromarray(SMOOTH).resize((640, 480)).save(whole, "JPEG")
    (tmp_path / "x.jpg").write_bytes(whole.getvalue()[:-2000])
    assert "truncated" in refusal(tmp_path / "x.jpg")
    assert _budget.free == LARGEST


# --- what is no regular file, and what changes


@pytest.fixture
def alarm() -> Iterator[None]:
    """A test that hangs fails instead."""
    import signal

    def late(*_: Any) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX files")
def test_what_is_no_regular_file_is_never_waited_for(tmp_path: Path, alarm: None) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "fifo.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.jpg"))
        for name, reason in [
            ("fifo.jpg", "is a FIFO, not a file"),
            ("link.jpg", "is a FIFO, not a file"),
            ("zero.jpg", "is a device, not a file"),
            ("folder.jpg", "is a directory"),
            ("socket.jpg", "is a socket, not a file"),
            ("loop.jpg", "cannot be read: Too many levels of symbolic links"),
            ("a" * 300 + ".jpg", "cannot be read: File name too long"),
        ]:
            assert reason in refusal(tmp_path / name)
            with pytest.raises(MisuseError):
                image_header(tmp_path / name)
    assert "cannot be read: embedded null" in refusal(Path("a\0.jpg"))


def test_a_picture_that_is_changed_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(SMOOTH).save(path)
    with pytest.raises(MisuseError, match=r"was changed while it was read; run the command again"), opened_photo(path):
        Image.fromarray(SMOOTH[::-1]).save(path)
        os.utime(path, (1, 1))


def test_damaged_metadata_is_no_warning_with_a_line_of_source(tmp_path: Path) -> None:
    Image.fromarray(SMOOTH).save(tmp_path / "x.tif")
    whole = bytearray((tmp_path / "x.tif").read_bytes())
    number = struct.unpack_from("<H", whole, struct.unpack_from("<I", whole, 4)[0])[0]
    struct.pack_into("<I", whole, struct.unpack_from("<I", whole, 4)[0] + 2 + 12 * (number - 1) + 4, 1 << 30)
    (tmp_path / "x.tif").write_bytes(whole)
    code = "import sys, ampnet_opt.core.pictures as p\ntry: p.read_image(sys.argv[1])\nexcept Exception as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.tif")], capture_output=True, text=True, check=True)
    assert done.stderr == ""


DAMAGES: dict[str, Callable[[bytearray, random.Random], bytearray]] = {
    "cut": lambda raw, rng: raw[: rng.randrange(len(raw))],
    "changed": lambda raw, rng: bytearray(b if rng.random() > 0.01 else rng.randrange(256) for b in raw),
    "repeated": lambda raw, rng: raw[: rng.randrange(40)] + raw * 2,
}


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "tif", "webp", "jp2", "avif"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_of_every_format_are_read_or_refused(tmp_path: Path, suffix: str, damage: str) -> None:
    if f".{suffix}" not in PICTURES:
        pytest.skip(f"Pillow reads no {suffix} here")
    rng, path = random.Random(7), tmp_path / f"x.{suffix}"
    Image.fromarray(SMOOTH).save(path)
    whole = bytearray(path.read_bytes())
    for _ in range(25):
        path.write_bytes(DAMAGES[damage](bytearray(whole), rng))
        try:
            assert read_image(path).shape[2] == 3
        except AmpnetError as error:
            assert "\n" not in str(error)


def test_a_picture_in_memory_is_that_of_its_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with decoded_photo((tmp_path / "a.png").read_bytes()) as photo:
        assert np.array_equal(np.asarray(photo.image), read_image(tmp_path / "a.png")) and photo.size == (60, 40)
    for content, words in ((b"", "image sent is empty"), (b"text", "image sent cannot be read: it is no picture")):
        with pytest.raises(MisuseError, match=words), decoded_photo(content):
            pass


def test_a_picture_in_memory_is_not_read_again_and_again() -> None:
    stream = InMemory(b"x" * 100)
    with pytest.raises(OSError, match="the same bytes again and again"):
        for _ in range(1 << 15):
            stream.seek(0)
            stream.read()
