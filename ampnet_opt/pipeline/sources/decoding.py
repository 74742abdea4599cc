"""What files and network cameras have in common: PyAV's packets to upright pictures."""

from __future__ import annotations

from typing import Any, Iterable, Iterator, Optional

import numpy as np

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.picture_files import LARGEST
from ampnet_opt.core.text import one_line


def video_stream(container: Any, name: str) -> Any:
    """The stream to show, ready to decode.

    Raises MisuseError that names the source when it has none but sound, data or a cover picture, AmpnetError when this
    FFmpeg lacks the codec.
    """
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        raise MisuseError(f"{name} has no pictures, only sound or other data")
    if streams[0].codec_context is None:
        raise AmpnetError(f"{name} has pictures of a codec that this FFmpeg lacks; convert it to H.264, say")
    streams[0].codec_context.options = {"max_pixels": str(LARGEST)}  # a larger frame fails before memory is taken for it
    return streams[0]


def _is_cover(stream: Any) -> bool:
    disposition = getattr(stream, "disposition", None)  # PyAV 12 has none
    return "attached_pic" in str(getattr(disposition, "name", None) or disposition)


def decoded(packets: Iterable[Any], av: Any) -> Iterator[Optional[Any]]:
    """Frames in the order they are shown, None for a damaged packet. Raises `av.FFmpegError` where the packets break off."""
    for packet in packets:
        try:
            frames = packet.decode()
        except av.FFmpegError:
            yield None
            continue
        yield from frames


def to_image(frame: Any) -> np.ndarray:
    """uint8 [height, width, 3], RGB, of a frame of PyAV's, upright and unmirrored as its display matrix says.

    The matrix maps a pixel (x, y) to (a x + c y, b x + d y), stored as a, b, u, c, d, v, ... (ISO/IEC 14496-12, 6.2.2).
    """
    image: np.ndarray = frame.to_ndarray(format="rgb24")
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def reason(error: Any, av: Any) -> str:
    """What FFmpeg says went wrong, in a few words, without the address, which may hold a password."""
    if isinstance(error, av.error.ExitError):
        return "no answer in time"
    return one_line(getattr(error, "strerror", None) or type(error).__name__, 120)
