"""The page of --view, served on loopback."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from PIL import Image
from published import CLASSES, frame, tracked

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.installing import install_command
from ampnet_opt.pipeline.view import View, parse_address
from ampnet_opt.pipeline.view import app as application
from ampnet_opt.pipeline.view.address import Address, may_ask_for
from ampnet_opt.pipeline.view.feed import LARGEST, encode

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")


@pytest.fixture
def view() -> Iterator[View]:
    with View(port=0, classes=CLASSES, about={"Engine": "cpu-int8"}) as served:
        yield served


def port(view: View) -> int:
    found = re.search(r":(\d+)/", view.address)
    assert found
    return int(found[1])


def ask(view: View, path: str = "/", method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    """The answer; `text_of` reads one that ends."""
    connection = http.client.HTTPConnection("127.0.0.1", port(view), timeout=20)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    return connection.getresponse()


def text_of(answer: http.client.HTTPResponse) -> str:
    return answer.read().decode()


def close(view: View) -> None:
    """Close it, and see its thread end, which `close` itself awaits no longer than a pipeline may."""
    (thread,) = (each for each in threading.enumerate() if each.name == "view")
    view.close()
    thread.join(30)
    assert not thread.is_alive()


def event(answer: http.client.HTTPResponse) -> tuple[str, dict[str, Any]]:
    name = answer.readline().decode().removeprefix("event: ").strip()
    data = json.loads(answer.readline().decode().removeprefix("data: "))
    assert answer.readline() == b"\n"
    return name, data


def picture(answer: http.client.HTTPResponse) -> Image.Image:
    """The next picture of the stream."""
    while not (line := answer.readline()).lower().startswith(b"content-length:"):
        assert line, "the stream has ended"
    answer.readline()
    return Image.open(io.BytesIO(answer.read(int(line.split(b":")[1]))))


@pytest.mark.parametrize(
    ("text", "host", "number"),
    [
        ("8000", "127.0.0.1", 8000),
        ("0.0.0.0:80", "0.0.0.0", 80),
        ("[::1]:8000", "::1", 8000),
        ("localhost:8000", "localhost", 8000),
        ("jetson.local:65535", "jetson.local", 65535),
        ("0", "127.0.0.1", 0),
    ],
)
def test_an_address_is_a_port_with_or_without_a_host(text: str, host: str, number: int) -> None:
    assert parse_address(text) == Address(host, number)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (":8000", "8000 is this machine alone, 0.0.0.0:8000 all its networks"),
        ("localhost", "names no port"),
        ("", "names no port"),
        ("localhost:", "names no port"),
        ("8000x", "names no port"),
        ("-1", "names no port"),
        ("٨٠٠٠", "names no port"),
        ("65536", "up to 65535"),
        ("9" * 5000, "up to 65535"),
        ("::1:8000", r"needs brackets, \[::1\]:8000"),
        ("[nonsense]:8000", "no IPv6 address"),
        ("[127.0.0.1]:8000", "no IPv6 address"),
        ("300.1.1.1:8000", "no valid host"),
        ("a b:8000", "no valid host"),
        ("http://localhost:8000", "needs brackets|no valid host"),
        ("\x1b[31m:8000", "no valid host"),
    ],
)
def test_an_address_that_is_none_is_refused_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(MisuseError, match=words) as caught:
        parse_address(text)
    assert len(str(caught.value)) <= 300 and str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["localhost", "localhost:9000", "LOCALHOST", "127.0.0.1:8000", "[::1]:8000", "127.0.0.2"])
def test_loopback_names_may_be_asked_for(name: str) -> None:
    assert may_ask_for(name, Address("127.0.0.1", 8000))


@pytest.mark.parametrize("name", ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.0.4"])
def test_other_names_may_not(name: str) -> None:
    assert not may_ask_for(name, Address("127.0.0.1", 8000))


def test_an_open_page_takes_addresses_and_the_names_of_this_machine() -> None:
    everywhere = Address("0.0.0.0", 8000)
    own = socket.gethostname().split(".")[0]
    assert all(
        may_ask_for(name, everywhere) for name in ("192.168.0.4:8000", "[fe80::1]:8000", f"{own}.local:8000", "localhost")
    )
    assert not may_ask_for("evil.example", everywhere)


def test_the_page_is_served_whole_and_links_to_nothing_outside(view: View) -> None:
    page = text_of(ask(view))
    assert "An expression is not an emotion" in page and "Tell people that they are being filmed" in page
    for path in ("/style.css", "/script.js"):
        assert path[1:] in page
        answer = ask(view, path)
        page += text_of(answer)
        assert answer.status == 200
    assert not re.search(r"(https?:)?//[a-z0-9]", page.replace("// ", ""))


def test_every_answer_forbids_what_the_page_does_not_need(view: View) -> None:
    for path, status in (("/", 200), ("/script.js", 200), ("/nothing", 404), ("/picture.jpg", 404)):
        answer = ask(view, path)
        assert answer.status == status
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "server" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_the_page_is_only_read(view: View, method: str) -> None:
    answer = ask(view, "/", method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")


def test_a_name_that_was_pointed_here_is_refused(view: View) -> None:
    answer = ask(view, "/numbers", Host=f"evil.example:{port(view)}")
    assert answer.status == 421
    assert "host name" in text_of(answer)


def test_another_site_cannot_use_the_streams_but_may_link_to_the_page(view: View) -> None:
    assert ask(view, "/pictures", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors").status == 403
    assert ask(view, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status == 200


def test_numbers_come_with_what_a_page_needs_to_start(view: View) -> None:
    for index in range(30):
        view.publish(frame(index, tracked(4, [0.1, 0.7, 0.2])), np.zeros((120, 160, 3), np.uint8), dropped=2)
    answer = ask(view, "/numbers")
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    name, start = event(answer)
    assert (name, start["classes"], start["about"]) == ("start", list(CLASSES), [["Engine", "cpu-int8"]])
    assert start["past"][0]["track"] == 4 and len(start["past"][0]["times"]) == 15
    name, told = event(answer)
    assert (name, told["frames"], told["dropped"], told["ended"]) == ("numbers", 30, 2, None)
    assert told["faces"] == [{"track": 4, "label": 1, "row": [0.1, 0.7, 0.2]}]
    view.publish(frame(30), np.zeros((120, 160, 3), np.uint8))
    assert event(answer)[1]["faces"] == []
    view.end("The camera was unplugged.")
    assert event(answer)[1]["ended"] == "The camera was unplugged."


def test_pictures_are_the_newest_and_as_they_were_published(view: View) -> None:
    for grey in (10, 60, 200):
        view.publish(frame(0), np.full((120, 160, 3), grey, np.uint8))
    answer = ask(view, "/pictures")
    assert answer.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
    shown = picture(answer)
    assert shown.size == (160, 120)
    assert abs(int(np.asarray(shown).mean()) - 200) <= 2
    view.publish(frame(1), np.full((120, 160, 3), 90, np.uint8))
    assert abs(int(np.asarray(picture(answer)).mean()) - 90) <= 2
    still = Image.open(io.BytesIO(ask(view, "/picture.jpg").read()))
    assert abs(int(np.asarray(still).mean()) - 90) <= 2


def test_a_large_picture_is_halved_until_it_fits() -> None:
    assert max(Image.open(io.BytesIO(encode(np.zeros((4320, 7680, 3), np.uint8)))).size) <= LARGEST
    assert Image.open(io.BytesIO(encode(np.zeros((720, 1280, 3), np.uint8)))).size == (1280, 720)


def test_pixels_that_are_not_square_are_shown_as_they_are_meant(view: View) -> None:
    view.publish(frame(0), np.zeros((120, 160, 3), np.uint8), pixel_aspect=Fraction(3, 2))
    assert Image.open(io.BytesIO(ask(view, "/picture.jpg").read())).size == (240, 120)
    numbers = ask(view, "/numbers")
    event(numbers)
    assert event(numbers)[1]["size"] == [240, 120]
    view.publish(frame(1), np.zeros((120, 160, 3), np.uint8), pixel_aspect=Fraction(1, 2))
    assert Image.open(io.BytesIO(ask(view, "/picture.jpg").read())).size == (160, 240)


def test_nothing_is_encoded_while_nobody_watches(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []

    def counted(image: np.ndarray, pixel_aspect: Fraction | None) -> bytes:
        encoded.append(image)
        return encode(image, pixel_aspect)

    monkeypatch.setattr("ampnet_opt.pipeline.view.feed.encode", counted)
    for index in range(50):
        view.publish(frame(index), np.zeros((120, 160, 3), np.uint8))
    text_of(ask(view))  # the server's thread has had its turn
    assert not encoded
    picture(ask(view, "/pictures"))
    assert len(encoded) == 1


def test_a_browser_that_stops_reading_holds_up_neither_others_nor_the_end(view: View) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    with socket.create_connection(("127.0.0.1", port(view))) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.sendall(b"GET /pictures HTTP/1.1\r\nHost: localhost\r\n\r\n")
        stuck.recv(1)
        other = ask(view, "/pictures")
        for index in range(60):
            view.publish(frame(index), noise)
            assert picture(other).size == (640, 480)
        close(view)


def test_browsers_that_leave_give_their_places_back(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "MOST_STREAMS", 3)
    open_streams = [ask(view, "/numbers") for _ in range(3)]
    for answer in open_streams:
        event(answer)
    refused = ask(view, "/numbers")
    assert refused.status == 503 and "Too many browsers" in text_of(refused)
    assert ask(view).status == 200
    for answer in open_streams:
        answer.close()
    until = time.monotonic() + 30
    while (again := ask(view, "/numbers")).status == 503:
        assert time.monotonic() < until, "places are not given back"
        text_of(again)
        time.sleep(0.05)
    assert event(again)[0] == "start"


def test_a_browser_that_does_not_read_for_long_is_sent_away(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "PATIENCE", 0.2)
    monkeypatch.setattr(application, "MOST_STREAMS", 1)
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    with socket.create_connection(("127.0.0.1", port(view))) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.sendall(b"GET /pictures HTTP/1.1\r\nHost: localhost\r\n\r\n")
        stuck.recv(1)
        until, index = time.monotonic() + 60, 0
        while ask(view, "/numbers").status == 503:
            assert time.monotonic() < until, "it keeps its place"
            view.publish(frame(index := index + 1), noise)
            time.sleep(0.02)


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        number = other.getsockname()[1]
        with pytest.raises(AmpnetError, match=f"port {number} is in use"):
            View(port=number, classes=CLASSES).start()


@pytest.mark.parametrize(
    ("host", "words"), [("192.0.2.7", "does not have that address"), ("no-such-host.invalid", "is not known")]
)
def test_a_host_of_another_machine_is_one_sentence(host: str, words: str) -> None:
    with pytest.raises(AmpnetError, match=words):
        View(host=host, port=0, classes=CLASSES).start()


def test_close_ends_every_stream_says_so_and_frees_the_port() -> None:
    view = View(port=0, classes=CLASSES)
    view.start()
    number = port(view)
    numbers, pictures = ask(view, "/numbers"), ask(view, "/pictures")
    event(numbers)
    view.publish(frame(0), np.zeros((120, 160, 3), np.uint8))
    picture(pictures)
    close(view)
    assert b"The run has ended." in numbers.read()
    pictures.read()
    view.publish(frame(1), np.zeros((120, 160, 3), np.uint8))  # nobody is there to see it
    view.close()
    with View(port=number, classes=CLASSES) as again:
        assert ask(again).status == 200


def test_signals_stay_the_programs() -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with View(port=0, classes=CLASSES):
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.fixture
def guarded() -> Iterator[View]:
    with View(port=0, token="opensesame", classes=CLASSES) as served:
        yield served


def test_without_the_token_there_is_a_page_that_says_what_to_do(guarded: View) -> None:
    for path in (
        "/",
        "/numbers",
        "/pictures",
        "/picture.jpg",
        "/script.js",
        "/?token=",
        "/?token=opensesam%C3%A9",
        "/?token=x",
    ):
        answer = ask(guarded, path)
        words = text_of(answer)
        assert answer.status == 401 and "the terminal printed" in words
        assert "opensesame" not in words and "set-cookie" not in answer.headers
    assert ask(guarded, "/", Cookie=f"ampnet-opt-{port(guarded)}=wrong").status == 401


def test_the_token_becomes_a_cookie_that_no_script_and_no_other_site_gets(guarded: View) -> None:
    assert guarded.address.endswith("/?token=opensesame")
    answer = ask(guarded, "/?token=opensesame")
    cookie = answer.headers["Set-Cookie"]
    assert answer.status == 200 and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    kept = cookie.split(";")[0]
    assert event(ask(guarded, "/numbers", Cookie=f"other=1; {kept}"))[0] == "start"


def test_a_named_host_asks_for_a_token_of_its_own() -> None:
    first, second = (View(host="0.0.0.0", port=0, classes=CLASSES).address for _ in range(2))
    tokens = [address.split("?token=")[1] for address in (first, second)]
    assert tokens[0] != tokens[1] and min(map(len, tokens)) >= 32
    assert "0.0.0.0" not in first
    assert "token" not in View(host="localhost", port=0, classes=CLASSES).address


def test_packages_that_are_missing_are_named() -> None:
    code = """
import sys
sys.modules["uvicorn"] = None
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.pipeline.view import View
try:
    View(port=0, classes=["a"]).start()
except AmpnetError as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert install_command("view") in told


def test_an_ipv6_address_is_served() -> None:
    view = View(host="::1", port=0, classes=CLASSES)
    with contextlib.closing(view):
        try:
            view.start()
        except AmpnetError as error:
            pytest.skip(f"no IPv6 here: {error}")
        assert view.address.startswith("http://[::1]:")
        connection = http.client.HTTPConnection("::1", port(view), timeout=20)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
