"""Videos from files, FIFOs and standard input, by PyAV: every frame, in order, at the time it is shown."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any, Iterator, Optional

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.text import count, printable
from ampnet_opt.pipeline.frames import Frame
from ampnet_opt.pipeline.sources.decoding import decoded, reason, to_image, video_stream
from ampnet_opt.pipeline.sources.pipe import Pipe, fifo, standard_input
from ampnet_opt.pipeline.sources.source import Source, require_size
from ampnet_opt.pipeline.video_writer import load_av

log = logging.getLogger(__name__)

STDIN = "-"
# Containers of video. Others that FFmpeg knows are playlists, which name further files and addresses, or pictures.
CONTAINERS = (
    "asf,avi,dv,flv,gif,h264,hevc,ivf,m4v,matroska,webm,mjpeg,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,mpegvideo,mxf,nut,ogg,obu,"
    "rawvideo,rm,yuv4mpegpipe,wtv"
)
RATE = 25.0  # of a video whose frames have no times and that names no rate
SLOWEST, FASTEST = 0.01, 1000.0  # rates that are believed
VIDEOS = {".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"} | {
    *(".mts", ".ogv", ".ts", ".webm", ".wmv", ".y4m"),
}


class Video(Source):
    """A video. Rotation in its metadata is obeyed, sound left out; damaged packets are skipped and counted in a warning."""

    def __init__(self, path: str) -> None:
        """
        Args:
            path: of the file or FIFO, or "-" for standard input.

        Raises:
            MisuseError: it is no video, or one without pictures.
            AmpnetError: PyAV is not installed.
        """
        super().__init__("standard input" if path == STDIN else printable(path))
        self._av = load_av()
        self._pipe: Optional[Pipe] = None
        self._lock = threading.Lock()
        self._begun = self._closed = False
        if path == STDIN:
            self._pipe = standard_input()
        elif Path(path).is_fifo():
            self._pipe = fifo(path)
        elif os.path.isfile(path) and os.path.getsize(path) == 0:
            raise MisuseError(f"video {self.name} is empty")
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file,pipe"}
        try:
            # A path that begins like "http:" is still a file's.
            self._container = self._av.open(self._pipe or os.path.abspath(path), "r", options=options)
        except (self._av.FFmpegError, OSError) as error:
            raise MisuseError(f"{self.name} is no video that can be read: {reason(error, self._av)}") from error
        self._stream = video_stream(self._container)
        if self._stream is None:
            self._free()
            raise MisuseError(f"{self.name} has no pictures, only sound or other data")
        self._stream.thread_type = "AUTO"
        try:
            require_size(self.name, self._stream.codec_context.width, self._stream.codec_context.height)
        except MisuseError:
            self._free()
            raise
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.rate = float(rate) if rate and SLOWEST <= rate <= FASTEST else None
        self.count = self._stream.frames or None

    def __iter__(self) -> Iterator[Frame]:
        with self._lock:
            if self._closed:
                return
            self._begun = True
        clock, damaged, index = _Clock(self.rate or RATE), 0, 0
        try:
            for frame in self._frames():
                if self._closed:
                    return
                if frame is None:
                    damaged += 1
                    continue
                require_size(self.name, frame.width, frame.height)
                yield Frame(to_image(frame), index, clock.time(frame.time), captured=time.monotonic())
                index += 1
        finally:
            self._free()
        if self._closed:
            return
        if index == 0:
            raise MisuseError(f"{self.name} has no frame that can be decoded")
        if damaged:
            log.warning("%s: %s skipped", self.name, count(damaged, "damaged packet"))

    def _frames(self) -> Iterator[Any]:
        """Decoded frames, and None for a packet that is damaged; an end that is missing is a warning."""
        try:
            yield from decoded(self._container, self._stream, self._av)
        except (self._av.FFmpegError, OSError) as error:
            log.warning("%s ends early: %s", self.name, reason(error, self._av))

    def close(self) -> None:
        """Ends the frames; who iterates frees the file, as no other thread may."""
        with self._lock:
            again, self._closed = self._closed, True
        if self._pipe is not None:
            self._pipe.closing.set()
        if not self._begun and not again:
            self._free()

    def _free(self) -> None:
        self._container.close()
        if self._pipe is not None:
            self._pipe.close()


class _Clock:
    """Times of frames from 0, never falling.

    Where a file's clock starts again, as in videos that were put one behind the other, this one goes on.
    """

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self._start: Optional[float] = None
        self._last = 0.0

    def time(self, shown: Optional[float]) -> float:
        """The next frame's, in seconds. shown: what the file says; without it, a frame follows the last at the rate."""
        if self._start is None:
            self._start = shown or 0.0
            return self._last
        now = self._last + self._step if shown is None else shown - self._start
        if now < self._last - 2 * self._step:  # more than frames that are out of order
            now = self._last + self._step
            self._start = (shown or 0.0) - now
        self._last = max(self._last, now)
        return self._last


def is_video_name(path: Path) -> bool:
    """Whether the suffix is one of the usual ones of videos."""
    return path.suffix.lower() in VIDEOS
