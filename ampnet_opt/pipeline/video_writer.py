"""A video written frame by frame with PyAV, at the times that the frames have. What was written plays, however it ends."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import numpy as np
from PIL import Image

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.files import PathLike
from ampnet_opt.core.pyav import load_av, refusals
from ampnet_opt.core.text import listed, one_line, printable
from ampnet_opt.pipeline.frames import with_square_pixels

CLOCK = 90_000  # ticks a second: every usual frame rate has whole ticks, as in MPEG
USUAL = 30  # frames a second of a source that names no rate
# The codecs of each container, the first that this FFmpeg has is taken.
CODECS = {
    ".mp4": ("libx264", "h264_v4l2m2m", "mpeg4"),
    ".mov": ("libx264", "mpeg4"),
    ".mkv": ("libx264", "mpeg4"),
    ".avi": ("libx264", "mpeg4"),
    ".webm": ("libvpx", "libvpx-vp9"),
}
SETTINGS = {
    "libx264": {"preset": "superfast", "crf": "23"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "4M"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "32", "b": "0"},
    "mpeg4": {"qscale": "4"},
}
# Frames that are coded after a later one shift all times by two frames where only the order of decoding is kept (AVI), or
# the times of decoding start at 0 without an edit list (MP4 in fragments). Without them, files are about a tenth larger.
IN_ORDER = {".mp4", ".mov", ".avi"}
HYBRID = (61, 7, 100)  # libavformat whose MP4 is cut into fragments only until it is finished


def require_video_name(path: PathLike) -> str:
    """The suffix of a video that can be written. Raises MisuseError for any other."""
    suffix = Path(path).suffix.lower()
    if suffix not in CODECS:
        raise MisuseError(f"{printable(path)} is not a video that can be written; its name must end in {listed(CODECS, 9)}")
    return suffix


class VideoWriter:
    """Writes frames of one size. A frame of another size is scaled to fit, with black borders.

    MP4 and MOV are written in fragments of a second, so that what is on disk plays even after a kill; Matroska, WebM and AVI
    play without their index. AVI alone counts frames instead of keeping times: each is shown at the nearest multiple of
    1 / rate that is free.
    """

    def __init__(
        self,
        path: PathLike,
        size: Tuple[int, int],
        rate: Optional[float] = None,
        *,
        pixel_aspect: Optional[Fraction] = None,
    ) -> None:
        """
        Args:
            path: of the video; its suffix says the container. What is there is replaced.
            size: (width, height) of the first frame; an odd number grows by one, as the codecs need.
            rate: frames a second, for the codec's planning and players' information; times decide.
            pixel_aspect: width of a pixel by its height, by which players stretch the frames, and in WebM, which cannot say
                so here, the writer does; by default 1.

        Raises:
            MisuseError: the suffix is not known.
            AmpnetError: PyAV or a codec is missing, or the file cannot be made.
        """
        suffix = require_video_name(path)
        self.path, self._av = Path(path), load_av()
        self._refusals = refusals(self._av)
        self._stretch = pixel_aspect if suffix == ".webm" else None
        width, height = with_square_pixels(size, self._stretch)
        self._size = width + width % 2, height + height % 2
        codec = next((name for name in CODECS[suffix] if name in self._av.codecs_available), None)
        if codec is None:
            raise AmpnetError(f"this FFmpeg has no codec for {suffix} ({listed(CODECS[suffix])}); take another suffix")
        stated = Fraction(rate or USUAL).limit_denominator(1001)
        # AVI's header names a tick as the length of a frame; with another one, players believe in thousands of frames.
        self._tick = 1 / stated if suffix == ".avi" else Fraction(1, CLOCK)
        self._last = -1
        self._container: Any = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = self._av.open(str(self.path), "w", options=self._options(suffix))
            self._stream = self._container.add_stream(codec, rate=stated)
            self._stream.width, self._stream.height = self._size
            self._stream.pix_fmt = "yuv420p"
            if pixel_aspect is not None and self._stretch is None:
                self._stream.codec_context.sample_aspect_ratio = pixel_aspect
            in_order = {"bf": "0"} if codec == "libx264" and suffix in IN_ORDER else {}
            self._stream.options = {**SETTINGS.get(codec, {}), **in_order}
            self._stream.codec_context.time_base = self._stream.time_base = self._tick
            self._stream.codec_context.gop_size = max(1, round(stated))
        except self._refusals as error:
            raise self._refusal(error, "cannot write") from error

    def _options(self, suffix: str) -> Dict[str, str]:
        if suffix not in (".mp4", ".mov"):
            return {}
        hybrid = self._av.library_versions.get("libavformat", (0,)) >= HYBRID
        fragments = "hybrid_fragmented" if hybrid else "empty_moov+default_base_moof"
        return {"movflags": f"{fragments}+frag_keyframe"}

    def write(self, image: np.ndarray, time: float) -> None:
        """Add a frame.

        Args:
            image: uint8 [height, width, 3], RGB.
            time: in seconds, later than the last frame's; one that is not comes right after it.

        Raises:
            AmpnetError: the file takes no more; what was written stays.
        """
        frame = self._av.VideoFrame.from_ndarray(self._fitted(image), format="rgb24")
        frame.pts = self._last = max(self._last + 1, round(time / self._tick))
        frame.time_base = self._tick
        self._mux(frame)

    def close(self) -> None:
        """Finish the video. A second call does nothing. Raises AmpnetError when its end cannot be written."""
        if self._container is None:
            return
        try:
            if self._last >= 0:
                self._mux(None)
        finally:
            container, self._container = self._container, None
            try:
                container.close()
            except self._refusals as error:
                raise self._refusal(error, "cannot finish") from error

    def _mux(self, frame: Any) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except self._refusals as error:
            raise self._refusal(error, "cannot write on in") from error

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        if self._stretch is not None:
            stretched = with_square_pixels((image.shape[1], image.shape[0]), self._stretch)
            image = np.asarray(Image.fromarray(image).resize(stretched, Image.Resampling.BILINEAR))
        width, height = self._size
        if image.shape[0] > height or image.shape[1] > width or (image.shape[0] + 1 < height and image.shape[1] + 1 < width):
            factor = min(width / image.shape[1], height / image.shape[0])
            size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
            image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        down, across = height - image.shape[0], width - image.shape[1]
        if down or across:
            mode: Any = "edge" if max(down, across) == 1 else "constant"  # one more pixel for an odd side is no border
            rim = ((down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0))
            image = np.pad(image, rim, mode=mode)
        return np.ascontiguousarray(image)

    def _refusal(self, error: BaseException, what: str) -> AmpnetError:
        reason = getattr(error, "strerror", None) or one_line(error, 120)
        return AmpnetError(f"{what} {printable(self.path)}: {reason}; what was written stays")
