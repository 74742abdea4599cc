"""The CSI camera of a Jetson, through a GStreamer child: pip's OpenCV has no GStreamer, and the sensor no V4L2 pictures."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from typing import IO, Iterator, List, Optional

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.text import one_line
from ampnet_opt.pipeline.sources.source import LiveSource

LAUNCH, ELEMENT = "gst-launch-1.0", "nvarguscamerasrc"
NAME = re.compile(r"csi:(\d{1,2})")
SIZE, RATE = (1280, 720), 30
REASON = re.compile("error|no element", re.IGNORECASE)  # a line of GStreamer's that says what is wrong
CHANNELS = 4  # nvvidconv gives no packed RGB of three


class CsiCamera(LiveSource[bytes]):
    """A camera on a Jetson's CSI connector: `csi:0`."""

    def __init__(self, text: str) -> None:
        """Raises AmpnetError when GStreamer is not installed."""
        super().__init__(text)
        sensor = sensor_of(text)
        assert sensor is not None
        if shutil.which(LAUNCH) is None:
            raise AmpnetError(f"{text} needs {LAUNCH} of GStreamer, which JetPack brings; it is not installed here")
        self.size, self.rate = SIZE, float(RATE)
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (the child writes to it)
        self._child = subprocess.Popen(
            command(sensor), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._said, start_new_session=True
        )

    def read(self) -> Iterator[bytes]:
        assert self._child.stdout is not None
        whole = SIZE[0] * SIZE[1] * CHANNELS
        try:
            while not self.closing.is_set():
                data = self._child.stdout.read(whole)
                if len(data) < whole:
                    break
                yield data
        finally:
            self._end()
        if not self.closing.is_set():
            self._said.seek(0)
            reasons = [
                line for line in self._said.read(1 << 16).decode("utf-8", "replace").splitlines() if REASON.search(line)
            ]
            raise AmpnetError(
                f"camera {self.name} gives no pictures: {one_line(reasons[0] if reasons else 'it ended', 160)}"
            )

    def image(self, raw: bytes) -> np.ndarray:
        return np.ascontiguousarray(np.frombuffer(raw, np.uint8).reshape(SIZE[1], SIZE[0], CHANNELS)[..., :3])

    def close(self) -> None:
        self.closing.set()
        self._end()
        super().close()

    def _end(self) -> None:
        self._child.terminate()
        try:
            self._child.wait(2)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def command(sensor: int) -> List[str]:
    """The words that print a sensor's frames as RGBA, one after the other, on standard output."""
    width, height = SIZE
    stages = [
        f"{ELEMENT} sensor-id={sensor}",
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={RATE}/1",
        "nvvidconv",
        f"video/x-raw,format=RGBA,width={width},height={height}",
        "fdsink fd=1 sync=false",
    ]
    return [LAUNCH, "-q", *" ! ".join(stages).split(" ")]


def sensor_of(text: str) -> Optional[int]:
    """The number of the sensor that a text names, None if it names none."""
    matched = NAME.fullmatch(text)
    return None if matched is None else int(matched[1])
