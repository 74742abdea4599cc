"""Videos give every frame, in order, upright, at the time it is shown; what is damaged is one sentence."""

from __future__ import annotations

import gc
import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ampnet_opt.core import picture_files
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.pipeline.frames import Frame
from ampnet_opt.pipeline.sources import Source, decoding, open_source, source, video

pytest.importorskip("av", reason="PyAV is not installed")
from video_file import DIFFERENT, number, picture, set_matrix, write_video

STEADY = [index / 25 for index in range(12)]
LONGEST = 300  # characters of a message


def frames(*texts: object) -> list[Frame]:
    with open_source(*map(str, texts)) as opened:
        return list(opened)


def refusal(*texts: object) -> str:
    with pytest.raises(MisuseError) as raised:
        frames(*texts)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) <= LONGEST
    return str(raised.value)


@pytest.mark.parametrize("suffix, codec", [(".mp4", "mpeg4"), (".mkv", "mpeg4"), (".avi", "mpeg4"), (".mov", "mpeg4")])
def test_every_frame_comes_once_and_in_order(tmp_path: Path, suffix: str, codec: str) -> None:
    write_video(tmp_path / f"clip{suffix}", STEADY, codec=codec)
    found = frames(tmp_path / f"clip{suffix}")
    assert [number(frame.image) for frame in found] == list(range(12)) == [frame.index for frame in found]
    assert [frame.time for frame in found] == pytest.approx(STEADY, abs=0.002)
    assert {frame.image.shape for frame in found} == {(48, 64, 3)}
    assert found[0].image.dtype == np.uint8 and not found[0].name


def test_colours_come_as_red_green_blue(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", STEADY)
    red, green, blue = frames(tmp_path / "clip.mp4")[0].image[4, 4]
    assert red > 200 and green < 60 and blue < 60


def test_frames_of_a_variable_rate_keep_their_times(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.5, 0.51, 2.0, 2.2]
    write_video(tmp_path / "clip.mkv", times)
    found = frames(tmp_path / "clip.mkv")
    assert [frame.time for frame in found] == pytest.approx(times, abs=0.002)
    assert [number(frame.image) for frame in found] == list(range(6))


def test_a_video_without_times_takes_those_of_its_rate(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mjpeg", STEADY, codec="mjpeg", pixels="yuvj420p", container="mjpeg")
    assert [frame.time for frame in frames(tmp_path / "clip.mjpeg")] == pytest.approx(STEADY)


# a, b, c, d of the display matrix; where the red corner of the top left is then seen: row and column, 0 or -1.
MATRICES = {
    "as it is": ((1, 0, 0, 1), (0, 0)),
    "a quarter turn to the right": ((0, 1, -1, 0), (0, -1)),
    "upside down": ((-1, 0, 0, -1), (-1, -1)),
    "a quarter turn to the left": ((0, -1, 1, 0), (-1, 0)),
    "mirrored": ((-1, 0, 0, 1), (0, -1)),
    "mirrored upside down": ((1, 0, 0, -1), (-1, 0)),
    "transposed": ((0, 1, 1, 0), (0, 0)),
    "transposed the other way": ((0, -1, -1, 0), (-1, -1)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_rotation_and_mirroring_in_the_metadata_are_obeyed(tmp_path: Path, name: str) -> None:
    matrix, (row, column) = MATRICES[name]
    write_video(tmp_path / "clip.mp4", STEADY)
    set_matrix(tmp_path / "clip.mp4", matrix)
    image = frames(tmp_path / "clip.mp4")[3].image
    assert image.shape == ((48, 64, 3) if matrix[0] else (64, 48, 3))
    corners = {(r, c): int(image[r, c, 0]) - int(image[r, c, 1]) for r in (0, -1) for c in (0, -1)}
    assert max(corners, key=lambda corner: corners[corner]) == (row, column)


def test_frames_that_were_taken_do_not_wait_for_the_collection_of_garbage(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", [index / 25 for index in range(60)])
    gc.collect()
    gc.disable()
    try:
        with open_source(str(tmp_path / "clip.mp4")) as opened:
            assert sum(1 for _ in opened) == 60
            kept = sum(type(one).__name__ == "VideoFrame" for one in gc.get_objects())
    finally:
        gc.enable()
    assert kept < 10


def test_a_size_that_changes_in_the_middle_is_each_frames_own_and_time_goes_on(tmp_path: Path) -> None:
    parts = []
    for size in ((64, 48), (96, 64)):
        part = io.BytesIO()
        write_video(part, STEADY, size=size, codec="mpeg2video", container="mpegts")
        parts.append(part.getvalue())
    (tmp_path / "clip.ts").write_bytes(b"".join(parts))
    found = frames(tmp_path / "clip.ts")
    assert [frame.image.shape for frame in found if frame.index in (0, len(found) - 1)] == [(48, 64, 3), (64, 96, 3)]
    times = [frame.time for frame in found]
    assert times == sorted(times)
    assert times[-1] > 1.5 * STEADY[-1]


def test_sound_is_left_out(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mkv", STEADY, sound=True)
    assert len(frames(tmp_path / "clip.mkv")) == 12


def test_a_video_of_one_frame_is_a_video(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", [0.0])
    assert [frame.time for frame in frames(tmp_path / "clip.mp4")] == [0.0]


@pytest.mark.parametrize("name", ["clip", "clip.jpg", "clip.txt"])
def test_a_video_is_told_by_its_bytes(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / name, STEADY, container="mp4")
    assert len(frames(tmp_path / name)) == 12


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, bytes(range(256)) * 20, b"\x1aE\xdf\xa3" + b"\xff" * 2000])
def test_what_is_no_video_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    assert "clip.mp4" in refusal(tmp_path / "clip.mp4")


def test_what_is_neither_picture_nor_video_says_so(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Nothing to see.\n" * 20)
    assert "neither a picture" in refusal(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    "content", ["#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n", "ffconcat version 1.0\nfile clip.mp4\n"]
)
def test_a_playlist_opens_no_other_files(tmp_path: Path, content: str) -> None:
    write_video(tmp_path / "clip.mp4", STEADY)
    (tmp_path / "list.ts").write_text(content)
    assert "not a video" in refusal(tmp_path / "list.ts")


def test_a_video_that_is_cut_off_gives_what_is_there_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_video(tmp_path / "clip.mkv", [index / 10 for index in range(40)])
    data = (tmp_path / "clip.mkv").read_bytes()
    (tmp_path / "clip.mkv").write_bytes(data[: len(data) // 2])
    with caplog.at_level(logging.WARNING):
        found = frames(tmp_path / "clip.mkv")
    assert 5 < len(found) < 35
    assert [number(frame.image) for frame in found] == [index % DIFFERENT for index in range(len(found))]
    assert "breaks off" in caplog.text or "ends early" in caplog.text


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_that_damage_took_are_counted(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    clip = tmp_path / f"clip{suffix}"
    write_video(clip, [index / 25 for index in range(60)], size=(320, 240))
    data = bytearray(clip.read_bytes())
    with pytest.importorskip("av").open(str(clip)) as whole:
        packets = [bytes(packet) for packet in whole.demux(video=0) if packet.size]
    for packet in packets[10:40]:  # what the codec reads, not what the container finds it by
        place = data.index(packet)
        data[place : place + len(packet)] = bytes(len(packet))
    clip.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        read = len(frames(clip))
    assert read < 55
    assert f"{read} of 60 frames were read" in caplog.text


def test_frames_before_a_cut_are_not_missed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Cut without decoding: frames before the start stay in the file, marked as not to be shown."""
    av = pytest.importorskip("av")
    write_video(tmp_path / "clip.mp4", STEADY)
    with av.open(str(tmp_path / "clip.mp4")) as whole, av.open(str(tmp_path / "cut.mp4"), "w") as cut:
        stream = cut.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(whole.streams.video[0]):
            if packet.dts is not None:
                packet.pts -= round(0.2 / packet.time_base)
                packet.dts -= round(0.2 / packet.time_base)
                packet.stream = stream
                cut.mux(packet)
    with caplog.at_level(logging.WARNING):
        assert len(frames(tmp_path / "cut.mp4")) < len(STEADY)
    assert not caplog.records


def test_a_video_of_any_name_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    av = pytest.importorskip("av")
    opened, real = [], av.open

    def counted(*arguments: object, **options: object) -> object:
        opened.append(arguments)
        return real(*arguments, **options)

    write_video(tmp_path / "clip.mp4", STEADY)
    (tmp_path / "clip.mp4").rename(tmp_path / "clip.data")
    monkeypatch.setattr(av, "open", counted)
    assert len(frames(tmp_path / "clip.data")) == len(STEADY) and len(opened) == 1
    assert "goes alone" in refusal(tmp_path / "clip.data", tmp_path)


def test_a_whole_video_gives_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_video(tmp_path / "clip.mkv", [index / 10 for index in range(40)], sound=True)
    with caplog.at_level(logging.WARNING):
        assert len(frames(tmp_path / "clip.mkv")) == 40
    assert not caplog.records


LAPSE = Fraction(1, 3)  # frames a second


@pytest.mark.parametrize(
    "name, times, rate",
    [
        ("lapse.mp4", [index * 3.0 for index in range(10)], LAPSE),  # whose last frame is a tenth of it
        ("lapse.mkv", [index * 3.0 for index in range(10)], LAPSE),
        ("one.mp4", [0.0], Fraction(1, 2)),
        ("one.mkv", [0.0], Fraction(1, 2)),
        ("late.mkv", [5 + index / 25 for index in range(60)], 25),  # as -copyts leaves it
        ("late.mp4", [5 + index / 25 for index in range(60)], 25),
    ],
)
def test_a_video_that_is_whole_does_not_break_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, times: list[float], rate: int | Fraction
) -> None:
    write_video(tmp_path / name, times, rate=rate)
    with caplog.at_level(logging.WARNING):
        found = frames(tmp_path / name)
    assert [frame.time for frame in found] == pytest.approx([time - times[0] for time in times], abs=0.002)
    assert not caplog.records


@pytest.mark.parametrize(
    "times, rate, words",
    [([index * 3.0 for index in range(20)], LAPSE, "of 60.0 s"), ([5 + index / 10 for index in range(60)], 10, "of 6.0 s")],
)
def test_a_slow_and_a_late_video_that_are_cut_off_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, times: list[float], rate: int | Fraction, words: str
) -> None:
    write_video(tmp_path / "clip.mkv", times, size=(320, 240), rate=rate)
    data = (tmp_path / "clip.mkv").read_bytes()
    (tmp_path / "clip.mkv").write_bytes(data[: len(data) * 2 // 3])
    with caplog.at_level(logging.WARNING):
        assert 2 < len(frames(tmp_path / "clip.mkv")) < len(times)
    assert "breaks off" in caplog.text and words in caplog.text


def test_a_codec_that_is_missing_is_one_sentence(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mkv", STEADY)
    data = (tmp_path / "clip.mkv").read_bytes()
    assert b"V_MPEG4/ISO/ASP" in data
    (tmp_path / "clip.mkv").write_bytes(data.replace(b"V_MPEG4/ISO/ASP", b"V_UNKNOWN/CODEC"))
    with pytest.raises(AmpnetError, match="codec that this FFmpeg lacks"):
        frames(tmp_path / "clip.mkv")


@pytest.mark.parametrize("seed", range(8))
def test_damage_anywhere_never_ends_in_anything_but_frames_or_a_sentence(tmp_path: Path, seed: int) -> None:
    write_video(tmp_path / "clip.mp4", STEADY)
    data = bytearray((tmp_path / "clip.mp4").read_bytes())
    random = np.random.default_rng(seed)
    for place in random.integers(0, len(data), 30):
        data[place] ^= int(random.integers(1, 256))
    (tmp_path / "clip.mp4").write_bytes(data)
    try:
        times = [frame.time for frame in frames(tmp_path / "clip.mp4")]
    except AmpnetError as error:
        assert len(str(error)) <= LONGEST
    else:
        assert times == sorted(times)


def test_frames_larger_than_pictures_may_be_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "clip.mp4", STEADY)
    monkeypatch.setattr(source, "LARGEST", 64 * 48 - 1)
    assert "64 x 48" in refusal(tmp_path / "clip.mp4")


def test_a_frame_that_grows_beyond_the_limit_is_never_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = []
    for size in ((64, 48), (640, 480)):
        part = io.BytesIO()
        write_video(part, STEADY, size=size, codec="mpeg2video", container="mpegts")
        parts.append(part.getvalue())
    (tmp_path / "clip.ts").write_bytes(b"".join(parts))
    monkeypatch.setattr(decoding, "LARGEST", 64 * 64 * 8)
    assert {frame.image.shape for frame in frames(tmp_path / "clip.ts")} == {(48, 64, 3)}
    assert picture_files.LARGEST == 2**28


def test_a_video_goes_alone(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", STEADY)
    assert "goes alone" in refusal(tmp_path / "clip.mp4", tmp_path / "clip.mp4")
    assert "goes alone" in refusal("-", tmp_path / "clip.mp4")


def test_closing_a_video_ends_its_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", STEADY)
    opened = open_source(str(tmp_path / "clip.mp4"))
    taken = []
    for frame in opened:
        taken.append(frame)
        opened.close()
        opened.close()
    assert len(taken) == 1
    assert list(opened) == []


def test_closing_a_video_that_nobody_read_frees_its_file(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", STEADY)
    opened = open_source(str(tmp_path / "clip.mp4"))
    opened.close()
    assert list(opened) == []


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.FileIO]:
    """What is written to it comes from standard input."""
    reading, writing = os.pipe()
    with open(reading) as stdin, io.FileIO(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield pipe


def _feed(pipe: io.FileIO, data: bytes, end: bool = True) -> threading.Thread:
    def work() -> None:
        left = memoryview(data)
        while left:
            left = left[pipe.write(left) or 0 :]
        if end:
            pipe.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "container, codec, pixels",
    [("matroska", "mpeg4", "yuv420p"), ("mpegts", "mpeg2video", "yuv420p"), ("mjpeg", "mjpeg", "yuvj420p")],
)
def test_a_video_comes_from_standard_input(piped: io.FileIO, container: str, codec: str, pixels: str) -> None:
    data = io.BytesIO()
    write_video(data, STEADY, codec=codec, pixels=pixels, container=container)
    _feed(piped, data.getvalue())
    assert [number(frame.image) for frame in frames(video.STDIN)] == list(range(12))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"\0" * 99])
def test_standard_input_that_is_no_video_is_one_sentence(piped: io.FileIO, content: bytes) -> None:
    _feed(piped, content)
    assert "standard input" in refusal(video.STDIN)


def test_no_standard_input_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert "closed" in refusal(video.STDIN)


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot wait for a pipe")
def test_closing_ends_a_pipe_that_gives_nothing_more(piped: io.FileIO) -> None:
    data = io.BytesIO()
    write_video(data, [index / 25 for index in range(40)], container="matroska")
    _feed(piped, data.getvalue()[:-10], end=False)
    opened: Source = open_source(video.STDIN)
    ended = threading.Event()

    def work() -> None:
        for _ in opened:
            pass
        ended.set()

    threading.Thread(target=work, daemon=True).start()
    opened.close()
    assert ended.wait(10)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_video_comes_from_a_fifo(tmp_path: Path) -> None:
    data = io.BytesIO()
    write_video(data, STEADY, container="matroska")
    os.mkfifo(tmp_path / "pipe")
    thread = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(data.getvalue()), daemon=True)
    thread.start()
    assert len(frames(tmp_path / "pipe")) == 12


@pytest.mark.parametrize("name", ["v.mjpeg", "v.MJPG"])
def test_motion_jpeg_without_a_container_is_a_video_whose_size_may_change(tmp_path: Path, name: str) -> None:
    data = io.BytesIO()
    for index, width in enumerate((64, 64, 128)):
        Image.fromarray(picture(index, (width, 48))).save(data, "JPEG")
    (tmp_path / name).write_bytes(data.getvalue())
    found = [(number(frame.image), frame.image.shape) for frame in frames(tmp_path / name)]
    assert found == [(0, (48, 64, 3)), (1, (48, 64, 3)), (2, (48, 128, 3))]


def test_reading_that_stops_amid_a_video_ends(tmp_path: Path) -> None:
    """In a process of its own: where FFmpeg's log takes the lock of Python, closing a decoder at work may never end."""
    import av

    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)  # takes long to decode
    with av.open(str(tmp_path / "clip.mp4"), "w") as out:
        stream: Any = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for index in range(30):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(noise, 3 * index, 1), format="rgb24")))
        out.mux(stream.encode(None))
    program = (
        "import sys\n"
        "from ampnet_opt.pipeline.sources import open_source\n"
        "for _ in range(20):\n"
        "    for frame in open_source(sys.argv[1]):\n"
        "        break\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "clip.mp4"], check=True, timeout=40)
