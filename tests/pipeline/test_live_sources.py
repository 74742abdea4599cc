"""A live source gives its newest frame, counts those it dropped, passes on what ended it, and ends when it is told to."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from queue import SimpleQueue
from typing import Union

import numpy as np
import pytest

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.pipeline.sources import camera, csi, open_source
from ampnet_opt.pipeline.sources.available import available_sources
from ampnet_opt.pipeline.sources.source import LiveSource, believed_rate


class Queued(LiveSource[int]):
    """A device whose frames a test puts into `queue`: a number makes a frame of it, None ends it, an error fails it."""

    def __init__(self) -> None:
        super().__init__("queue")
        self.queue: SimpleQueue[Union[int, Exception, None]] = SimpleQueue()
        self.read_last, self.released = -1, 0

    def read(self) -> Iterator[int]:
        while True:
            item = self.queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                return
            yield item
            self.read_last = item

    def image(self, raw: int) -> np.ndarray:
        return np.full((2, 3, 3), raw, np.uint8)

    def interrupt(self) -> None:
        self.queue.put(None)

    def release(self) -> None:
        self.released += 1

    def give(self, *numbers: int) -> None:
        """Put frames, and wait until they were read."""
        for each in numbers:
            self.queue.put(each)
        while self.read_last != numbers[-1]:
            time.sleep(0.001)


@pytest.mark.parametrize("stated", [None, 0, 0.0, -1.0, float("nan"), float("inf"), 1e-4, 90_000, Fraction(90_000, 1)])
def test_a_rate_that_no_device_has_is_not_believed(stated: Union[float, Fraction, None]) -> None:
    assert believed_rate(stated) is None


def test_the_rates_of_devices_and_time_lapses_are_believed() -> None:
    assert [believed_rate(stated) for stated in (Fraction(30_000, 1001), 30, Fraction(1, 60))] == [30_000 / 1001, 30, 1 / 60]


def test_the_newest_frame_is_given_and_older_ones_are_counted() -> None:
    with Queued() as source:
        frames = iter(source)
        source.queue.put(0)
        assert next(frames).index == 0
        source.give(1, 2, 3)
        frame = next(frames)
        assert (frame.index, int(frame.image[0, 0, 0]), source.dropped) == (3, 3, 2)
        source.give(4)
        assert (next(frames).index, source.dropped) == (4, 2)
        assert frame.time > 0 and frame.captured <= time.monotonic()
    assert source.released == 1


def test_an_error_comes_after_the_frame_before_it() -> None:
    with Queued() as source:
        frames = iter(source)
        source.queue.put(7)
        source.queue.put(AmpnetError("unplugged"))
        assert next(frames).image[0, 0, 0] == 7
        with pytest.raises(AmpnetError, match="unplugged"):
            next(frames)
    assert source.released == 1


def test_a_device_that_ends_ends_the_frames() -> None:
    with Queued() as source:
        source.queue.put(7)
        source.queue.put(None)
        assert [frame.index for frame in source] == [0]


def test_closing_from_another_thread_ends_who_waits() -> None:
    source, ended = Queued(), threading.Event()

    def work() -> None:
        assert list(source) == []
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    source.close()
    source.close()
    thread.join(10)
    assert ended.is_set() and source.released == 1


def test_closing_a_source_that_nobody_read_gives_its_device_back() -> None:
    source = Queued()
    source.close()
    source.close()
    assert source.released == 1
    assert list(source) == []


def test_a_device_that_gives_nothing_is_one_sentence() -> None:
    with Queued() as source:
        source.patience = 0.1
        with pytest.raises(AmpnetError, match="no picture"):
            next(iter(source))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not list their cameras")
@pytest.mark.parametrize("name", ["camera:7654", "/dev/video7654"])
def test_a_camera_that_is_not_there_is_one_sentence(name: str) -> None:
    with pytest.raises(MisuseError, match="there is no camera"):
        open_source(name)


@pytest.mark.parametrize("name", ["camera:", "camera:x", "csi:", "csi:abc", "http://ann:pw@host/a.mp4", "camera:99999"])
def test_a_name_that_means_no_source_says_what_there_is(name: str) -> None:
    with pytest.raises(MisuseError, match="names no source") as raised:
        open_source(name)
    assert "pw" not in str(raised.value)


@pytest.mark.parametrize("name, number", [("camera:0", 0), ("/dev/video12", 12), ("video0", None), ("/dev/video0x", None)])
def test_cameras_are_named_by_number_or_device(name: str, number: object) -> None:
    assert camera.device(name) == number


needs_gstreamer = pytest.mark.skipif(shutil.which(csi.LAUNCH) is None, reason=f"{csi.LAUNCH} is not installed")


def red(descriptor: int) -> list[str]:
    """A child that writes red frames of 32 x 16, and prints on its standard output as the camera's driver does."""
    frames = "video/x-raw,format=RGBA,width=32,height=16,framerate=30/1"
    return [csi.LAUNCH, *f"videotestsrc is-live=true pattern=red ! {frames} ! fdsink fd={descriptor}".split()]


@needs_gstreamer
def test_frames_of_a_gstreamer_child_are_read_beside_what_it_prints() -> None:
    with csi.GstreamerCamera("csi:0", red, (32, 16), 30.0) as source:
        frames = iter(source)
        images = [next(frames).image for _ in range(3)]
    assert all((image == (255, 0, 0)).all() and image.shape == (16, 32, 3) for image in images)
    assert source._child.poll() is not None


@needs_gstreamer
def test_a_gstreamer_child_that_fails_says_why() -> None:
    def missing(descriptor: int) -> list[str]:
        return [csi.LAUNCH, "-q", "filesrc", "location=missing.raw", "!", "fdsink", f"fd={descriptor}"]

    with csi.GstreamerCamera("csi:0", missing, (32, 16), 30.0) as source:
        with pytest.raises(AmpnetError, match=r"gives no pictures: .*ERROR"):
            next(iter(source))


@needs_gstreamer
def test_a_jetsons_camera_elsewhere_is_one_sentence() -> None:
    if available_sources()["csi"]["problem"] is None:
        pytest.skip("this is a Jetson")
    with open_source("csi:0") as source, pytest.raises(AmpnetError, match="nvarguscamerasrc, which JetPack"):
        next(iter(source))


def test_without_gstreamer_a_csi_camera_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(AmpnetError, match="needs gst-launch"):
        open_source("csi:0")
    assert "not installed" in available_sources()["csi"]["problem"]


@pytest.mark.skipif(os.name == "nt", reason="descriptors are passed on by POSIX alone")
def test_closing_ends_a_child_that_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csi.shutil, "which", lambda name: name)
    source = csi.GstreamerCamera("csi:0", lambda descriptor: ["sleep", "60"], (32, 16), 30.0)
    thread = threading.Thread(target=lambda: list(source))
    thread.start()
    source.close()
    thread.join(10)
    assert not thread.is_alive() and source._child.poll() is not None


def test_the_command_for_a_sensor_is_gstreamers() -> None:
    assert " ".join(csi.command(1, 9)) == (
        "gst-launch-1.0 -q nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1 ! "
        "nvvidconv ! video/x-raw,format=RGBA,width=1280,height=720 ! fdsink fd=9 sync=false"
    )


def test_what_works_here_is_told_for_each_kind_of_source() -> None:
    found = available_sources()
    assert set(found) == {"videos", "cameras", "csi"}
    for kind in ("videos", "cameras"):
        assert (found[kind]["problem"] is None) == (found[kind]["version"] is not None)
    assert found["cameras"]["found"] == camera.cameras()
