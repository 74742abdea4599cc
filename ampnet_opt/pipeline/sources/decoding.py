"""What files and network cameras have in common: PyAV's packets to upright pictures."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Iterable, Iterator, Optional, Tuple

import numpy as np

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.picture_files import LARGEST
from ampnet_opt.core.text import one_line

WIDEST_PIXEL = 4  # times its height, or the other way round; films and tapes have up to 3


def video_stream(container: Any, name: str) -> Any:
    """The stream to show, ready to decode.

    Raises MisuseError that names the source when it has none but sound, data or a cover picture, AmpnetError when this
    FFmpeg lacks the codec.
    """
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        raise MisuseError(f"{name} has no pictures, only sound or other data")
    if streams[0].codec_context is None:
        raise AmpnetError(f"{name} has pictures of a codec that this FFmpeg lacks; convert it, for example to H.264")
    streams[0].codec_context.options = {"max_pixels": str(LARGEST)}  # a larger frame fails before memory is taken for it
    return streams[0]


def pixel_aspect(stream: Any, *, turned: bool) -> Optional[Fraction]:
    """Width of a pixel by its height as a stream states it; None where that is nothing, 1, or nothing that is believed.

    turned: by a quarter, as its frames are shown; what was the width is then the height.
    """
    stated = stream.sample_aspect_ratio
    if not stated or stated == 1 or not 1 / WIDEST_PIXEL <= stated <= WIDEST_PIXEL:
        return None
    return 1 / Fraction(stated) if turned else Fraction(stated)


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


class Upright:
    """Frames of PyAV's, of one stream, as images that are upright and unmirrored as their display matrices say.

    A matrix is read where it may have changed alone: each frame that was asked for one is in a cycle of references with it,
    and keeps its picture in memory until Python collects garbage. Hundreds of them would wait for that.

    Attributes:
        turned: whether the last one was turned by a quarter.
    """

    def __init__(self, av: Any) -> None:
        # One for all frames: each frame's own `to_ndarray(format=...)` would start FFmpeg's threads for scaling anew, which
        # takes longer than the frame.
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._known: Optional[Tuple[Any, ...]] = None
        self._matrix: Optional[Tuple[int, ...]] = None
        self.turned = False

    def image(self, frame: Any) -> np.ndarray:
        """uint8 [height, width, 3], RGB.

        The matrix maps a pixel (x, y) to (a x + c y, b x + d y), stored as a, b, u, c, d, v, ... (ISO/IEC 14496-12, 6.2.2).
        """
        image: np.ndarray = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        # PyAV 12 does not tell the rotation: there the frames that can be sought to are asked.
        known = frame.width, frame.height, getattr(frame, "rotation", frame.pts if frame.key_frame else None)
        if known != self._known and (known[2] is not None or self._known is None):
            matrix = frame.side_data.get("DISPLAYMATRIX")
            self._known = known
            self._matrix = None if matrix is None else tuple(map(int, np.frombuffer(bytes(matrix), np.int32)[:5]))
        self.turned = False
        if self._matrix is None:
            return image
        a, b, _, c, d = self._matrix
        self.turned = abs(b) > abs(a)
        if self.turned:
            image, a, d = image.swapaxes(0, 1), c, b
        return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def reason(error: Any, av: Any) -> str:
    """What FFmpeg says went wrong, in a few words, without the address, which may hold a password."""
    if isinstance(error, av.error.ExitError):
        return "no answer in time"
    return one_line(getattr(error, "strerror", None) or type(error).__name__, 120)
