"""The CSI camera of a Jetson, through a GStreamer child: pip's OpenCV has no GStreamer, and the sensor no V4L2 pictures."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from typing import IO, Callable, Iterator, List, Optional, Tuple

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.text import one_line
from ampnet_opt.pipeline.sources.source import LiveSource

LAUNCH = "gst-launch-1.0"
ELEMENT = "nvarguscamerasrc"
NAME = re.compile(r"csi:(\d{1,2})")
SIZE, RATE = (1280, 720), 30
CHANNELS = 4  # nvvidconv gives no packed RGB of three
ENDING = 2.0  # seconds that the child gets to give its camera back


class GstreamerCamera(LiveSource[bytes]):
    """RGBA frames that a `gst-launch-1.0` child writes to a pipe."""

    patience = 15.0

    def __init__(self, name: str, words: Callable[[int], List[str]], size: Tuple[int, int], rate: float) -> None:
        """
        Args:
            name: for messages.
            words: the command of the child, by the descriptor that it writes frames to. Not its standard output: the
                camera's driver prints there.
            size: (width, height) of the frames.
            rate: of the frames, a second.

        Raises:
            AmpnetError: GStreamer is not installed.
        """
        super().__init__(name)
        if os.name == "nt" or shutil.which(LAUNCH) is None:
            raise AmpnetError(f"{name} needs {LAUNCH} of GStreamer, which JetPack brings; it is not installed here")
        self.size, self.rate = size, rate
        self._messages: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (the child writes to it)
        reading, writing = os.pipe()
        self._frames = os.fdopen(reading, "rb")
        try:
            self._child = subprocess.Popen(
                words(writing),
                stdin=subprocess.DEVNULL,
                stdout=self._messages,
                stderr=self._messages,
                pass_fds=[writing],
                start_new_session=True,
            )
        finally:
            os.close(writing)  # the child's alone: its end is the end of the frames

    def read(self) -> Iterator[bytes]:
        assert self.size is not None
        whole = self.size[0] * self.size[1] * CHANNELS
        while not self.closing.is_set():
            data = self._frames.read(whole)
            if len(data) < whole:
                break
            yield data
        if not self.closing.is_set():
            self._end()
            self._messages.seek(0)
            raise AmpnetError(f"camera {self.name} gives no pictures: {_reason(self._messages.read(1 << 16))}")

    def image(self, raw: bytes) -> np.ndarray:
        assert self.size is not None
        width, height = self.size
        return np.ascontiguousarray(np.frombuffer(raw, np.uint8).reshape(height, width, CHANNELS)[..., :3])

    def interrupt(self) -> None:
        self._child.terminate()

    def release(self) -> None:
        self._end()
        self._frames.close()
        self._messages.close()

    def _end(self) -> None:
        self._child.terminate()
        try:
            self._child.wait(ENDING)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def csi_camera(text: str) -> GstreamerCamera:
    """The camera that `csi:0` names. Raises AmpnetError when GStreamer is not installed."""
    sensor = sensor_of(text)
    assert sensor is not None
    return GstreamerCamera(text, lambda descriptor: command(sensor, descriptor), SIZE, float(RATE))


def command(sensor: int, descriptor: int) -> List[str]:
    """The words that write a sensor's frames as RGBA, one after the other, to a descriptor."""
    width, height = SIZE
    stages = [
        f"{ELEMENT} sensor-id={sensor}",
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={RATE}/1",
        "nvvidconv",
        f"video/x-raw,format=RGBA,width={width},height={height}",
        f"fdsink fd={descriptor} sync=false",
    ]
    return [LAUNCH, "-q", *" ! ".join(stages).split(" ")]


def sensor_of(text: str) -> Optional[int]:
    """The number of the sensor that a text names, None if it names none."""
    matched = NAME.fullmatch(text)
    return None if matched is None else int(matched[1])


def _reason(messages: bytes) -> str:
    """Why a child ended, of what it printed."""
    lines = messages.decode("utf-8", "replace").splitlines()
    if any(f'no element "{ELEMENT}"' in line for line in lines):
        return f"this GStreamer has no {ELEMENT}, which JetPack's nvidia-l4t-gstreamer brings"
    bad = [line for line in lines if "ERROR" in line.upper() or "no element" in line or "No cameras" in line]
    return one_line(bad[0] if bad else "its GStreamer child ended", 160)
