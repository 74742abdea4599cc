"""Videos from files, FIFOs and standard input, by PyAV: every frame, in order, at the time it is shown."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any, Iterator, Optional

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.pyav import load_av
from ampnet_opt.core.text import count, printable
from ampnet_opt.pipeline.frames import Frame
from ampnet_opt.pipeline.sources.decoding import Upright, decoded, pixel_aspect, reason, video_stream
from ampnet_opt.pipeline.sources.pipe import Pipe, fifo, standard_input
from ampnet_opt.pipeline.sources.source import Source, believed_rate, require_size

log = logging.getLogger(__name__)

STDIN = "-"
JPEG = b"\xff\xd8\xff"  # first bytes
# Containers of video. Others that FFmpeg knows are playlists, which name further files and addresses, or pictures.
CONTAINERS = (
    "asf,avi,dv,flv,gif,h264,hevc,ivf,m4v,matroska,webm,mjpeg,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,mpegvideo,mxf,nut,ogg,obu,"
    "rawvideo,rm,yuv4mpegpipe,wtv"
)
RATE = 25.0  # of a video whose frames have no times and that names no rate
FRAME_A_PACKET = ("mp4", "matroska", "avi")  # containers in which each packet is a frame; elsewhere it may be half of one
MISSING = 0.02  # share of the frames; some codecs have packets that show nothing new
MICROSECONDS = 1e6  # a second: FFmpeg's unit
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
            AmpnetError: PyAV is not installed, or lacks the codec.
        """
        super().__init__("standard input" if path == STDIN else printable(path))
        self._av = load_av()
        self._pipe: Optional[Pipe] = None
        self._lock = threading.Lock()
        self._begun = self._closed = False
        self._expected = 0  # frames, by the packets that came and are to be shown
        if path == STDIN:
            self._pipe = standard_input()
        elif Path(path).is_fifo():
            self._pipe = fifo(path)
        elif os.path.isfile(path) and os.path.getsize(path) == 0:
            raise MisuseError(f"video {self.name} is empty")
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file,pipe"}
        try:
            # A path that begins like "http:" is still a file's.
            place, form = self._pipe or os.path.abspath(path), self._format(path)
            self._container = self._av.open(place, "r", format=form, options=options, metadata_errors="replace")
        except (self._av.FFmpegError, OSError, ValueError, LookupError) as error:
            raise MisuseError(f"{self.name} is not a video that can be read: {reason(error, self._av)}") from error
        try:
            self._stream = video_stream(self._container, self.name)
            require_size(self.name, self._stream.codec_context.width, self._stream.codec_context.height)
        except AmpnetError:
            self._free()
            raise
        self._stream.thread_type = "AUTO"
        self.rate = believed_rate(self._stream.average_rate or self._stream.guessed_rate)
        self.count = self._stream.frames or None
        self._end = _stated_end(self._container, self._stream)
        self._shown_for = 0.0  # seconds, of the last packet, as the file says

    def _format(self, path: str) -> Optional[str]:
        """Motion JPEG without a container begins as a picture, for which FFmpeg takes it; None leaves it to FFmpeg."""
        if self._pipe is not None:
            first = self._pipe.peek(len(JPEG))
        else:
            with open(path, "rb") as file:
                first = file.read(len(JPEG))
        return "mjpeg" if first == JPEG else None

    def __iter__(self) -> Iterator[Frame]:
        with self._lock:
            if self._closed:
                return
            self._begun = True
        clock, upright, damaged, index = _Clock(self.rate or RATE), Upright(self._av), 0, 0
        try:
            for frame in self._frames():
                if self._closed:
                    return
                if frame is None:
                    damaged += 1
                    continue
                require_size(self.name, frame.width, frame.height)
                try:
                    image = upright.image(frame)
                except self._av.FFmpegError:  # of a damaged header: a form of pixels that cannot be converted
                    damaged += 1
                    continue
                if index == 0:
                    self.pixel_aspect = pixel_aspect(self._stream, turned=upright.turned)
                yield Frame(image, index, clock.time(frame.time), captured=time.monotonic())
                index += 1
        finally:
            self._free()
        if self._closed:
            return
        if index == 0:
            raise MisuseError(f"{self.name} has no frame that can be decoded")
        self._warn_of_end(clock)
        self._warn(index, damaged)

    def _frames(self) -> Iterator[Any]:
        """Decoded frames, and None for a packet that is damaged; an end that is missing is a warning."""
        try:
            yield from decoded(self._packets(), self._av)
        except (self._av.FFmpegError, OSError, LookupError) as error:
            log.warning("%s ends early: %s", self.name, reason(error, self._av))

    def _packets(self) -> Iterator[Any]:
        for packet in self._container.demux(self._stream):
            # What lies before the start of a cut is marked as not to be shown.
            self._expected += bool(packet.size and not packet.is_discard)
            if packet.size:
                self._shown_for = float((packet.duration or 0) * packet.time_base) if packet.time_base else 0.0
            yield packet

    def _warn_of_end(self, clock: _Clock) -> None:
        """Say that the end is missing."""
        length = self._end - clock.begun
        # In a time-lapse, the last frame is shown for seconds; rates that are not believed are no measure.
        read = clock.last + max(self._shown_for, 1 / self.rate if self.rate else 0.0)
        if read + max(1.0, 0.05 * length) < length:
            log.warning("%s breaks off after %.1f of %.1f seconds: it is cut off or damaged", self.name, read, length)

    def _warn(self, read: int, damaged: int) -> None:
        """Say what is missing amid it: packets that are damaged, or frames."""
        counted = any(name in self._container.format.name for name in FRAME_A_PACKET)
        missing = self._expected - read if counted else 0
        if missing > max(1, MISSING * self._expected):
            packets = f"{count(damaged, 'damaged packet')} skipped; " if damaged else ""
            log.warning("%s: %s%d of %d frames were read: it is damaged", self.name, packets, read, self._expected)
        elif damaged:
            log.warning("%s: %s skipped", self.name, count(damaged, "damaged packet"))

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


def _stated_end(container: Any, stream: Any) -> float:
    """When the pictures end, in seconds on the file's own clock, as an index states it.

    0 where FFmpeg only estimates it, or sound may be longer.
    """
    if stream.duration and "mp4" in container.format.name:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    if container.duration and "matroska" in container.format.name and len(container.streams) == 1:
        return float(container.duration) / MICROSECONDS  # despite its name an end: it counts from 0, wherever the first is
    return 0.0


class _Clock:
    """Times of frames from 0, never falling; `last` is the last one given, `begun` the file's own time of the first.

    Where a file's clock starts again, as in videos that were put one behind the other, this one goes on.
    """

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self._start: Optional[float] = None
        self.last = self.begun = 0.0

    def time(self, shown: Optional[float]) -> float:
        """The next frame's, in seconds. shown: what the file says; without it, a frame follows the last at the rate."""
        if self._start is None:
            self._start = self.begun = shown or 0.0
            return self.last
        now = self.last + self._step if shown is None else shown - self._start
        if now < self.last - 2 * self._step:  # more than frames that are out of order
            now = self.last + self._step
            self._start = (shown or 0.0) - now
        self.last = max(self.last, now)
        return self.last


def is_video_name(path: Path) -> bool:
    """Whether the suffix is one of the usual ones of videos."""
    return path.suffix.lower() in VIDEOS
