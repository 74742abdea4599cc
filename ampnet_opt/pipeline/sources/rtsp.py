"""Network cameras: RTSP over TCP, by PyAV."""

from __future__ import annotations

import errno
import logging
import re
import time
from typing import Any, Iterator
from urllib.parse import urlsplit

import numpy as np

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.pyav import load_av
from ampnet_opt.core.text import printable
from ampnet_opt.pipeline.sources.decoding import Upright, decoded, pixel_aspect, reason, video_stream
from ampnet_opt.pipeline.sources.source import LiveSource, believed_rate, require_size

log = logging.getLogger(__name__)

SCHEMES = ("rtsp://", "rtsps://")
ANSWER, SILENCE = 10.0, 5.0  # seconds: for the connection, and between packets
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds before another try, doubled each time
DAMAGED = 300  # packets in a row that cannot be decoded: it is not the line
OPTIONS = {"rtsp_transport": "tcp", "allowed_media_types": "video", "fflags": "nobuffer", "flags": "low_delay"}


class RtspCamera(LiveSource[Any]):
    """A network camera. The first connection must succeed; one that is lost later is sought again until `close`."""

    def __init__(self, url: str) -> None:
        """Raises MisuseError for an address without a host, AmpnetError without PyAV or when the camera does not answer."""
        super().__init__(without_password(url))
        if not _host(url):
            raise MisuseError(f"{self.name} names no host; write rtsp://HOST/PATH")
        self._url, self._av = url, load_av()
        self._upright = Upright(self._av)
        self._container: Any = self._connect()
        stream = video_stream(self._container, self.name)
        self.size = (stream.codec_context.width, stream.codec_context.height)
        self.pixel_aspect = pixel_aspect(stream, turned=False)
        self.rate = believed_rate(stream.average_rate)

    def _connect(self) -> Any:
        begun = time.monotonic()
        try:
            container = self._av.open(self._url, "r", options=OPTIONS, timeout=(ANSWER, SILENCE))
        except self._av.FFmpegError as error:
            why = reason(error, self._av)
            if time.monotonic() - begun > ANSWER:  # FFmpeg calls silence invalid data
                why = f"nothing came within {ANSWER:.0f} seconds"
            elif isinstance(error, OSError) and error.errno == errno.EIO:  # all it says of a name that nobody knows
                why = "its host cannot be reached"
            # FFmpeg's error names the URL: it is not for a traceback.
            raise AmpnetError(f"{self.name} does not answer as a camera: {why}") from None
        try:
            video_stream(container, self.name)
        except AmpnetError:
            container.close()
            raise
        return container

    def read(self) -> Iterator[Any]:
        pause = FIRST_PAUSE
        while not self.closing.is_set():
            if self._container is None:
                try:
                    self._container = self._connect()
                except AmpnetError:
                    self.closing.wait(pause)
                    pause = min(LONGEST_PAUSE, 2 * pause)
                    continue
                log.warning("%s is back", self.name)
            lost = "the stream ended"
            try:
                for frame in self._frames():
                    pause = FIRST_PAUSE
                    yield frame
                    if self.closing.is_set():
                        return
            except self._av.FFmpegError as error:
                lost = reason(error, self._av)
            self.release()
            if not self.closing.is_set():
                log.warning("%s is lost (%s); trying again", self.name, lost)
                self.closing.wait(pause)
                pause = min(LONGEST_PAUSE, 2 * pause)

    def _frames(self) -> Iterator[Any]:
        damaged = 0
        stream = video_stream(self._container, self.name)
        for frame in decoded(self._container.demux(stream), self._av):
            damaged = damaged + 1 if frame is None else 0
            if frame is not None:
                yield frame
            elif damaged == DAMAGED:
                raise AmpnetError(f"{self.name} sends pictures that FFmpeg cannot decode")

    def image(self, raw: Any) -> np.ndarray:
        require_size(self.name, raw.width, raw.height)
        return self._upright.image(raw)

    def release(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None


def without_password(url: str) -> str:
    """The URL for messages: without the user's name and password, wherever cameras want them.

    Before the last "@", even of an address that is not well formed; in a query; and in a part of the path as
    "user=admin_password=...".
    """
    scheme, _, rest = url.partition("://")
    path = re.sub(r"[^/]*=.*", "...", rest.rpartition("@")[2].partition("?")[0])
    return printable(f"{scheme}://{path}")


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
