"""Videos for tests, written with PyAV: flat frames whose grey value tells which one it is."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Union

import numpy as np

STEP = 17  # grey values between frames
DIFFERENT = 15  # frames until a grey value comes again
CLOCK = 1000  # ticks a second


def write_video(
    place: Union[Path, io.BytesIO],
    times: Sequence[float],
    *,
    size: tuple[int, int] = (64, 48),
    codec: str = "mpeg4",
    pixels: str = "yuv420p",
    container: str = "",
    sound: bool = False,
    rate: Union[int, Fraction] = 25,
    pixel_aspect: Union[Fraction, None] = None,
) -> None:
    """A frame at each of the times (in seconds): `picture(index)`, grey but for a red corner at the top left.

    rate: frames a second, as the file states them; above all how long it shows the last one. pixel_aspect: width of a pixel
    by its height.
    """
    import av

    with av.open(str(place) if isinstance(place, Path) else place, "w", format=container or None) as out:
        stream: Any = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        stream.codec_context.time_base = Fraction(1, CLOCK if codec not in ("mpeg2video", "mjpeg") else 25)
        audio: Any = out.add_stream("mp2", rate=48000) if sound else None
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(index, size), format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(time / frame.time_base)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if audio is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152 * 2), np.int16), format="s16", layout="stereo")
            silence.sample_rate = 48000
            out.mux(audio.encode(silence))
            out.mux(audio.encode(None))


def picture(index: int, size: tuple[int, int]) -> np.ndarray:
    """The frame, uint8 [height, width, 3], RGB."""
    image = np.full((size[1], size[0], 3), index % DIFFERENT * STEP, np.uint8)
    image[: size[1] // 3, : size[0] // 3] = (250, 20, 20)
    return image


def number(image: np.ndarray) -> int:
    """Which frame an upright one is, by its grey centre; modulo `DIFFERENT`."""
    return round(float(image[image.shape[0] // 2, image.shape[1] // 2].mean()) / STEP)


def set_matrix(video: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a, b, c, d (-1, 0 or 1) into the track header of an MP4 (ISO/IEC 14496-12, 8.3.2)."""
    data = bytearray(video.read_bytes())
    start = data.index(b"tkhd") + 44  # after the name, version, flags, times, track, duration, layer, group and volume
    a, b, c, d = (value << 16 for value in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    video.write_bytes(data)
