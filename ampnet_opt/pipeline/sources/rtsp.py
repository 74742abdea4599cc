"""Network cameras: RTSP over TCP, by PyAV."""

from __future__ import annotations

import logging
import time
from typing import Any, Iterator
from urllib.parse import urlsplit

import numpy as np

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.text import printable
from ampnet_opt.pipeline.sources.source import LiveSource, listed_error, require_size
from ampnet_opt.pipeline.sources.video import to_image
from ampnet_opt.pipeline.video_writer import load_av, refusals

log = logging.getLogger(__name__)

SCHEMES = ("rtsp://", "rtsps://")
ANSWER, SILENCE = 5.0, 5.0  # seconds: for the connection, and between packets
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds before another try, doubled each time


class RtspCamera(LiveSource[Any]):
    """A network camera. The first connection must succeed; one that is lost later is sought again until `close`."""

    def __init__(self, url: str) -> None:
        """Raises MisuseError for an address without a host, AmpnetError without PyAV or when the camera does not answer."""
        super().__init__(without_password(url))
        if not _host(url):
            raise MisuseError(f"{self.name} names no host; write rtsp://HOST/PATH")
        self._url, self._av = url, load_av()
        self._refusals = refusals(self._av)
        self._container: Any = self._connect()
        stream = self._container.streams.video[0]
        self.size = (stream.codec_context.width, stream.codec_context.height)
        self.rate = float(stream.average_rate) if stream.average_rate else None

    def _connect(self) -> Any:
        options = {"rtsp_transport": "tcp", "fflags": "nobuffer", "flags": "low_delay"}
        start = time.monotonic()
        try:
            container = self._av.open(self._url, "r", options=options, timeout=(ANSWER, SILENCE))
        except self._refusals as error:
            silent = time.monotonic() - start >= ANSWER
            reason = f"silent for {ANSWER:.0f} seconds" if silent else listed_error(error)
            # FFmpeg's own text holds the URL, password and all: no cause is kept that a traceback would show.
            raise AmpnetError(f"{self.name} does not answer as a camera: {reason}") from None
        if not container.streams.video:
            container.close()
            raise AmpnetError(f"{self.name} sends no pictures")
        return container

    def read(self) -> Iterator[Any]:
        pause = FIRST_PAUSE
        while not self.closing.is_set():
            if self._container is None:
                try:
                    self._container = self._connect()
                    log.warning(f"{self.name} is back")
                except AmpnetError:
                    self.closing.wait(pause)
                    pause = min(LONGEST_PAUSE, 2 * pause)
                    continue
            reason = "the stream ended"
            try:
                for frame in self._container.decode(self._container.streams.video[0]):
                    pause = FIRST_PAUSE
                    yield frame
                    if self.closing.is_set():
                        break
            except self._refusals as error:
                reason = listed_error(error)
            finally:
                self._container.close()
                self._container = None
            if not self.closing.is_set():
                log.warning(f"{self.name} is lost ({reason}); trying again")
                self.closing.wait(pause)
                pause = min(LONGEST_PAUSE, 2 * pause)

    def image(self, raw: Any) -> np.ndarray:
        require_size(self.name, raw.width, raw.height)
        return to_image(raw)

    def close(self) -> None:
        super().close()
        if self._container is not None and not self._thread.is_alive():
            self._container.close()
            self._container = None


def without_password(url: str) -> str:
    """The URL for messages: without the user's name and password, and without what a query may hold."""
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return printable(f"{scheme}://{place.rpartition('@')[2]}{slash}{path.partition('?')[0]}")


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
