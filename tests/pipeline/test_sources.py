"""Sources of frames, read from real files, pipes, a thread and an RTSP server."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from videos import frame, write_video

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.pipeline.sources import open_source
from ampnet_opt.pipeline.sources.available import available_sources
from ampnet_opt.pipeline.sources.csi import command
from ampnet_opt.pipeline.sources.rtsp import without_password
from ampnet_opt.pipeline.sources.source import LiveSource
from ampnet_opt.pipeline.video_writer import VideoWriter

pytest.importorskip("av")

UPRIGHT = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)  # matrix of a track's header (ISO/IEC 14496-12)
CLOCKWISE = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)


def jpeg(index: int, width: int = 64) -> bytes:
    data = BytesIO()
    Image.fromarray(frame(index, width)).save(data, "JPEG")
    return data.getvalue()


def test_a_video_gives_every_frame_in_order_with_its_time(tmp_path: Path) -> None:
    with open_source(str(write_video(tmp_path / "v.mp4"))) as source:
        frames = list(source)
        assert (source.live, source.still, source.dropped) == (False, False, 0)
    assert [each.index for each in frames] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose([each.time for each in frames], [0, 0.1, 0.2, 0.3, 0.4], atol=1e-3)
    assert [round(each.image[..., 0].mean() / 10) for each in frames] == [0, 1, 2, 3, 4]


def test_rotation_in_the_metadata_is_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "v.mov"
    image = frame(0)
    image[:24] = 255
    writer = VideoWriter(path, (64, 48), 10)
    writer.write(image, 0.0)
    writer.close()
    film, track, rest = path.read_bytes().partition(b"tkhd")  # the film's header before it has a matrix of its own
    path.write_bytes(film + track + rest.replace(UPRIGHT, CLOCKWISE, 1))
    [turned] = open_source(str(path))
    assert turned.image.shape == (64, 48, 3)
    assert turned.image[:, 30:].mean() > 240 > 150 > turned.image[:, :18].mean(), "what was above is at the right"


def test_motion_jpeg_is_a_video_whose_size_may_change(tmp_path: Path) -> None:
    path = tmp_path / "v.mjpeg"
    path.write_bytes(b"".join([jpeg(0), jpeg(1), jpeg(2, 128), jpeg(3)]))
    assert [each.image.shape[1] for each in open_source(str(path))] == [64, 64, 128, 64]


@pytest.mark.parametrize("suffix", [".mjpeg", ".ts", ".mkv"])
def test_a_video_comes_through_standard_input(tmp_path: Path, suffix: str) -> None:
    if suffix == ".mjpeg":
        data = b"".join(map(jpeg, range(5)))
    else:
        data = write_video(tmp_path / "v.mkv").read_bytes() if suffix == ".mkv" else transport_stream(tmp_path)
    script = "from ampnet_opt.pipeline.sources import open_source\nprint(len(list(open_source('-'))))"
    assert subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=True).stdout == b"5\n"


def transport_stream(folder: Path) -> bytes:
    import av

    write_video(folder / "v.mp4")
    with av.open(str(folder / "v.mp4")) as read, av.open(str(folder / "v.ts"), "w") as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                written.mux(packet)
    return (folder / "v.ts").read_bytes()


def test_a_pipe_with_a_name_is_read(tmp_path: Path) -> None:
    data = write_video(tmp_path / "v.mkv").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    writing = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    writing.start()
    assert len(list(open_source(str(tmp_path / "pipe")))) == 5
    writing.join()


def test_a_file_is_a_video_or_a_picture_by_its_content(tmp_path: Path) -> None:
    os.rename(write_video(tmp_path / "v.mp4"), tmp_path / "v.jpg")
    (tmp_path / "p.mp4").write_bytes(jpeg(1))
    shutil.copy(tmp_path / "v.jpg", tmp_path / "plain")
    assert not open_source(str(tmp_path / "v.jpg")).still and not open_source(str(tmp_path / "plain")).still
    assert open_source(str(tmp_path / "p.mp4")).still


def test_damage_in_the_middle_leaves_the_frames_around_it(tmp_path: Path) -> None:
    data = bytearray(write_video(tmp_path / "v.mkv", [index / 10 for index in range(60)]).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = os.urandom(40)
    (tmp_path / "v.mkv").write_bytes(data)
    assert 20 <= len(list(open_source(str(tmp_path / "v.mkv")))) <= 60


@pytest.mark.parametrize("content", [b"", b"hello " * 999, bytes(5000), b"\x00\x00\x00\x18ftypmp42" + bytes(400)])
@pytest.mark.parametrize("suffix", [".mp4", ".txt", ""])
def test_what_is_no_video_is_one_sentence(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"v{suffix}").write_bytes(content)
    with pytest.raises(MisuseError) as raised:
        list(open_source(str(tmp_path / f"v{suffix}")))
    assert len(str(raised.value)) <= 300 and "\n" not in str(raised.value)


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nv.mp4\n#EXT-X-ENDLIST\n")
    with pytest.raises(MisuseError, match="neither a picture"):
        open_source(str(tmp_path / "list.m3u8"))


def test_pictures_and_folders_are_frames_and_a_bad_one_is_left_out(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.jpg"):
        (tmp_path / name).write_bytes(jpeg(1))
    (tmp_path / "c.jpg").write_bytes(jpeg(1)[:100])
    source = open_source(str(tmp_path))
    assert [Path(each.name).name for each in source] == ["a.jpg", "b.jpg"]
    assert source.still and source.count == 3 and len(source.failures) == 1


@pytest.mark.parametrize(
    "text", ["camera:99", "/dev/video999", "http://x/y", "camera:x", "csi:", "rtsp:///x", "rtsp://[::1/x"]
)
def test_names_of_nothing_are_one_sentence(text: str) -> None:
    with pytest.raises((MisuseError, AmpnetError)) as raised:
        open_source(text)
    assert len(str(raised.value)) <= 300


def test_a_video_goes_alone(tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "v.mp4"))
    with pytest.raises(MisuseError, match="goes alone"):
        open_source(path, path)


class Thread(LiveSource[int]):
    """Gives the numbers that it is told to give."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__("thread")
        self.told, self.given, self.fails = threading.Semaphore(0), threading.Semaphore(0), fails

    def read(self) -> Iterator[int]:
        for number in range(10):
            self.told.acquire()
            if self.closing.is_set():
                return
            yield number
            self.given.release()
        if self.fails:
            raise AmpnetError("it is unplugged")

    def image(self, raw: int) -> np.ndarray:
        return frame(raw)

    def close(self) -> None:
        self.closing.set()
        self.told.release()
        super().close()


def test_a_live_source_gives_the_newest_frame_and_counts_the_others() -> None:
    source = Thread()
    frames = iter(source)
    source.told.release()
    assert next(frames).index == 0
    source.given.acquire()
    for _ in range(5):
        source.told.release()
        source.given.acquire()
    newest = next(frames)
    assert (newest.index, source.dropped) == (5, 4)
    assert (newest.image == frame(5)).all()
    source.close()
    assert next(frames, None) is None


def test_a_live_source_that_fails_gives_its_last_frame_and_then_the_error() -> None:
    source = Thread(fails=True)
    source.told.release(10)
    frames = iter(source)
    with pytest.raises(AmpnetError, match="unplugged"):
        for _ in range(11):
            last = next(frames)
    assert last.index == 9


def test_closing_a_live_source_wakes_who_waits_for_a_frame() -> None:
    source = Thread()
    threading.Timer(0.2, source.close).start()
    assert list(source) == []


def test_the_words_of_a_csi_camera_are_those_of_gstreamer() -> None:
    words = command(1)
    assert words[:4] == ["gst-launch-1.0", "-q", "nvarguscamerasrc", "sensor-id=1"]
    assert words[-3:] == ["fdsink", "fd=1", "sync=false"] and "video/x-raw,format=RGBA,width=1280,height=720" in words


def test_a_csi_camera_without_its_driver_is_one_sentence() -> None:
    with pytest.raises(AmpnetError, match=r"GStreamer|nvarguscamerasrc"):
        list(open_source("csi:0"))


def test_doctor_hears_of_each_kind_of_source() -> None:
    assert list(available_sources()) == ["videos and RTSP", "cameras", "CSI cameras"]
    assert all(0 < len(text) <= 300 for text in available_sources().values())


@pytest.mark.parametrize(
    "url", ["rtsp://me:secret@host:554/live?key=secret", "rtsp://me:se@cret@host:554/live?secret#secret"]
)
def test_passwords_of_an_address_are_not_shown(url: str) -> None:
    assert without_password(url) == "rtsp://host:554/live"


def test_a_port_where_nobody_listens_is_one_sentence_without_the_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(AmpnetError, match="does not answer as a camera") as raised:
        open_source(f"rtsp://me:secret@127.0.0.1:{port}/live")
    assert "secret" not in str(raised.value) and raised.value.__cause__ is None


@pytest.mark.slow
def test_a_server_that_never_answers_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(AmpnetError, match="silent for 5 seconds"):
            open_source(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/live")


def serve(port: int, *login: str) -> subprocess.Popen[bytes]:
    python = shutil.which("python3", path="/usr/bin") or sys.executable  # GStreamer's bindings come with the system's
    script = Path(__file__).parents[1] / "support" / "rtsp_server.py"
    server = subprocess.Popen([python, str(script), str(port), *login], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert server.stdout is not None
    if server.stdout.readline() != b"ready\n":
        server.kill()
        server.wait()
        pytest.skip("no RTSP server: Debian's gir1.2-gst-rtsp-server-1.0, python3-gi and GStreamer's x264enc")
    return server


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def test_a_network_camera_is_found_again_after_its_server_restarts() -> None:
    port = free_port()
    server = serve(port)
    try:
        with open_source(f"rtsp://127.0.0.1:{port}/live") as source:
            assert source.live and source.size == (320, 240)
            frames = iter(source)
            before = next(frames)
            assert before.image.shape == (240, 320, 3)
            server.kill()
            server.wait()
            server = serve(port)
            restarted = time.monotonic()
            patience = threading.Timer(60, source.close)  # ends the frames
            patience.start()
            after = next((each for each in frames if each.captured > restarted), None)
            patience.cancel()
            assert after is not None and after.index > before.index
    finally:
        server.kill()
        server.wait()


def test_a_wrong_path_or_password_is_one_sentence_without_the_password() -> None:
    port = free_port()
    server = serve(port, "me:secret")
    try:
        for url, status in ((f"me:secret@127.0.0.1:{port}/none", "404"), (f"me:wrong-secret@127.0.0.1:{port}/live", "401")):
            with pytest.raises(AmpnetError, match=status) as raised:
                open_source(f"rtsp://{url}")
            assert "secret" not in str(raised.value)
        with open_source(f"rtsp://me:secret@127.0.0.1:{port}/live") as source:
            assert next(iter(source)).image.shape == (240, 320, 3)
    finally:
        server.kill()
        server.wait()
