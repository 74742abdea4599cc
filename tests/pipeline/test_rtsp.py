"""Network cameras, against GStreamer's RTSP server on loopback; what does not answer is one sentence, without a password."""

from __future__ import annotations

import logging
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import SUPPORT

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.pipeline.sources import open_source, rtsp

pytest.importorskip("av", reason="PyAV is not installed")

PASSWORD = "se-cret"
Serve = Callable[..., subprocess.Popen]  # type: ignore[type-arg]
NEEDS = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
assert all(map(Gst.ElementFactory.find, ("videotestsrc", "x264enc", "rtph264pay", "alawenc", "rtppcmapay")))
"""


@lru_cache
def _python() -> str:
    """A Python that has GStreamer's RTSP server: this one, or the system's."""
    for python in (sys.executable, shutil.which("python3", path="/usr/bin")):
        if python and subprocess.run([python, "-c", NEEDS], capture_output=True, check=False).returncode == 0:
            return python
    return ""


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def serve(port: int) -> Iterator[Serve]:
    """Starts the server, with a user and password if they are given."""
    if not _python():
        pytest.skip("GStreamer's RTSP server for Python is not installed (python3-gi, gir1.2-gst-rtsp-server-1.0, x264enc)")
    children = []

    def start(*words: str) -> subprocess.Popen:  # type: ignore[type-arg]
        child = subprocess.Popen(
            [_python(), str(SUPPORT / "rtsp_server.py"), str(port), *words], stdout=subprocess.PIPE, text=True
        )
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


def refusal(url: str) -> str:
    with pytest.raises(AmpnetError) as raised:
        open_source(url)
    message = str(raised.value)
    assert len(message) <= 300 and "\n" not in message
    assert PASSWORD not in message and raised.value.__cause__ is None
    return message


def test_a_camera_that_restarts_is_found_again(
    serve: Serve, port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rtsp, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(rtsp, "LONGEST_PAUSE", 0.4)
    server = serve()
    with caplog.at_level(logging.WARNING), open_source(f"rtsp://127.0.0.1:{port}/live") as camera:
        assert (camera.live, camera.size) == (True, (320, 240))
        frames = iter(camera)
        seen = [next(frames) for _ in range(5)]
        server.kill()
        server.wait()
        serve()
        while "is back" not in caplog.text:
            seen.append(next(frames))
        seen += [next(frames) for _ in range(5)]
    assert {frame.image.shape for frame in seen} == {(240, 320, 3)}
    assert [frame.index for frame in seen] == sorted({frame.index for frame in seen})
    assert "is lost" in caplog.text
    assert list(frames) == []


def test_a_password_opens_and_is_never_shown(serve: Serve, port: int) -> None:
    serve("ann", PASSWORD)
    with open_source(f"rtsp://ann:{PASSWORD}@127.0.0.1:{port}/live") as camera:
        assert camera.name == f"rtsp://127.0.0.1:{port}/live"
        assert next(iter(camera)).image.any()
    assert "401" in refusal(f"rtsp://ann:{PASSWORD}x@127.0.0.1:{port}/live")
    assert "401" in refusal(f"rtsp://127.0.0.1:{port}/live")


def test_a_wrong_path_says_so(serve: Serve, port: int) -> None:
    serve()
    assert "404" in refusal(f"rtsp://ann:{PASSWORD}@127.0.0.1:{port}/nope")


def test_a_port_where_nobody_listens_says_so(port: int) -> None:
    assert "refused" in refusal(f"rtsp://ann:{PASSWORD}@127.0.0.1:{port}/live").lower()


def test_a_port_that_never_answers_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtsp, "ANSWER", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert "nothing came" in refusal(f"rtsp://ann:{PASSWORD}@127.0.0.1:{silent.getsockname()[1]}/live")


def test_a_port_where_something_else_answers_says_so() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def answer() -> None:
            connection, _ = other.accept()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        assert "does not answer as a camera" in refusal(f"rtsp://ann:{PASSWORD}@127.0.0.1:{other.getsockname()[1]}/live")


@pytest.mark.parametrize("url", ["rtsp://", "rtsp:///live", "rtsp://[::1/live"])
def test_an_address_without_a_host_is_refused(url: str) -> None:
    with pytest.raises(MisuseError, match="names no host"):
        open_source(url)


@given(user=st.text("abc?/:@=", max_size=6), host=st.sampled_from(["camera", "10.0.0.1:554", "[::1]:554"]))
def test_no_form_of_an_address_shows_its_password(user: str, host: str) -> None:
    assert PASSWORD not in rtsp.without_password(f"rtsp://{user}:{PASSWORD}@{host}/live?password={PASSWORD}")
    assert PASSWORD not in rtsp.without_password(f"rtsp://{host}/user={user}_password={PASSWORD}_channel=1.sdp")


def test_an_address_without_a_password_is_shown_whole() -> None:
    assert rtsp.without_password("rtsp://10.0.0.1:554/a/b") == "rtsp://10.0.0.1:554/a/b"
