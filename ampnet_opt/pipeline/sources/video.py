"""Videos from files, pipes and standard input, by PyAV: every frame, in order, at the time it is shown."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any, Iterator, Optional

import numpy as np

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.text import count, printable
from ampnet_opt.pipeline.frames import Frame
from ampnet_opt.pipeline.sources.source import Source, listed_error, require_size, upright
from ampnet_opt.pipeline.video_writer import load_av, refusals

log = logging.getLogger(__name__)

STDIN = "-"
# Containers of video. Others that FFmpeg knows are playlists, which name further files and addresses, or pictures.
CONTAINERS = (
    "asf,avi,dv,flv,gif,h264,hevc,ivf,m4v,matroska,webm,mjpeg,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,mpegvideo,mxf,nut,ogg,obu,"
    "rawvideo,rm,yuv4mpegpipe,wtv"
)
RATE = 25.0  # of a video whose frames have no times and that names no rate


class Video(Source):
    """A video. Rotation in its metadata is obeyed, sound left out; damaged packets are skipped and counted in a warning."""

    def __init__(self, path: str) -> None:
        """
        Args:
            path: of the file, or "-" for standard input.

        Raises:
            MisuseError: it is no video, or one without pictures.
            AmpnetError: PyAV is not installed.
        """
        super().__init__("standard input" if path == STDIN else printable(path))
        self._av = load_av()
        self._refusals = refusals(self._av)
        self._closed, self._running = False, False
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file,pipe"}
        try:
            # A path that begins like "http:" is still a file's.
            place: Any = sys.stdin.buffer if path == STDIN else os.path.abspath(path)
            # FFmpeg takes a stream of JPEGs without a name for a single picture.
            form = "mjpeg" if _begins_as_jpeg(path) else None
            self._container = self._av.open(place, "r", format=form, options=options)
        except self._refusals as error:
            raise MisuseError(f"{self.name} is no video that can be read: {listed_error(error)}") from error
        if not self._container.streams.video:
            self._container.close()
            raise MisuseError(f"{self.name} has no pictures, only sound or other data")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        width, height = self._stream.codec_context.width, self._stream.codec_context.height
        require_size(self.name, width, height)
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.rate = float(rate) if rate else None
        self.count = self._stream.frames or None

    def __iter__(self) -> Iterator[Frame]:
        first: Optional[float] = None
        last, damaged, index = 0.0, 0, 0
        self._running = True
        try:
            for frame in self._frames():
                if frame is None:
                    damaged += 1
                    continue
                require_size(self.name, frame.width, frame.height)
                shown = frame.time
                if shown is None:
                    shown = (first or 0.0) + index / (self.rate or RATE)
                first = shown if first is None else first
                last = max(last, shown - first)
                yield Frame(to_image(frame), index, last)
                index += 1
        finally:
            self._running = False
            self._container.close()
        if damaged:
            log.warning(f"{self.name}: {count(damaged, 'damaged packet')} skipped")
        if index == 0:
            raise MisuseError(f"{self.name} has no frame that can be decoded")

    def _frames(self) -> Iterator[Any]:
        """Decoded frames, and None for a packet that is damaged."""
        packets = self._container.demux(self._stream)
        while not self._closed:
            try:
                packet = next(packets, None)
            except self._refusals as error:  # the rest is missing or damaged
                log.warning(f"{self.name} ends early: {listed_error(error)}")
                return
            if packet is None:
                return
            try:
                yield from packet.decode()
            except self._refusals:
                yield None

    def close(self) -> None:
        """Ends the frames; who iterates frees the file, as no other thread may."""
        self._closed = True
        if not self._running:
            self._container.close()


def to_image(frame: Any) -> np.ndarray:
    """uint8 [height, width, 3], RGB, upright, of a frame of PyAV's."""
    image: np.ndarray = frame.to_ndarray(format="rgb24")
    return upright(image, getattr(frame, "rotation", 0))


def _begins_as_jpeg(path: str) -> bool:
    if path == STDIN:
        return sys.stdin.buffer.peek(len(JPEG))[: len(JPEG)] == JPEG  # type: ignore[attr-defined]
    return Path(path).is_file() and is_stream_of_jpegs(Path(path))


def is_stream_of_jpegs(path: Path) -> bool:
    """Whether a file is Motion JPEG without a container, which begins as a picture does: its suffix tells."""
    with open(path, "rb") as stream:
        return path.suffix.lower() in STREAMS_OF_JPEGS and stream.read(len(JPEG)) == JPEG


def is_video_name(path: Path) -> bool:
    """Whether the suffix is one of the usual ones of videos."""
    return path.suffix.lower() in VIDEOS


JPEG = b"\xff\xd8\xff"
STREAMS_OF_JPEGS = {".mjpeg", ".mjpg"}
VIDEOS = {".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"} | {
    *(".mts", ".ogv", ".ts", ".webm", ".wmv", ".y4m"),
}
