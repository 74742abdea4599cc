"""Picture files opened with care: regular files of named formats, within bounds of reading and of memory. Pillow only.

Pillow's own `Image.open` tries every format it knows, some of which start other programs (EPS runs Ghostscript), blocks on
a FIFO, and warns about large pictures from 89 megapixels on and refuses them from 179 on. Here a format is told by its first
bytes, and its reader alone is loaded.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import stat
import threading
import warnings
from importlib.util import find_spec
from typing import Iterator, NamedTuple, Tuple

from PIL import Image, ImageFile

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.files import PathLike
from ampnet_opt.core.text import printable

LARGEST = 2**28  # pixels of one picture, and of all that are in memory at once: 16,384 x 16,384
OFTEN = 4  # times its size that a file is read at most; a damaged TIFF can name the same bytes 65,535 times
HEADER = 64  # bytes that tell the format
HEIF_READERS = ("pi_heif", "pillow_heif")

# Pillow's remarks on damaged metadata name a line of its source and help nobody. Appended: the user's own filters win.
warnings.filterwarnings("ignore", module=r"PIL\.", append=True)
logging.getLogger("PIL").addHandler(logging.NullHandler())

# Pillow's pixels lie in blocks of 16 MB, which glibc keeps for the thread that freed them: a large picture each.
# Blocks of more than 32 MB (its largest M_MMAP_THRESHOLD) go back to the system.
if "PILLOW_BLOCK_SIZE" not in os.environ:
    Image.core.set_block_size(1 << 26)


class Format(NamedTuple):
    """A format of Pillow: its name there, the module that reads it, the compiled part that this needs, and its suffixes."""

    name: str
    module: str
    needs: str
    suffixes: Tuple[str, ...]


FORMATS = (
    Format("JPEG", "PIL.JpegImagePlugin", "", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")),
    Format("PNG", "PIL.PngImagePlugin", "", (".png", ".apng")),
    Format("GIF", "PIL.GifImagePlugin", "", (".gif",)),
    Format("BMP", "PIL.BmpImagePlugin", "", (".bmp", ".dib")),
    Format("TIFF", "PIL.TiffImagePlugin", "", (".tif", ".tiff")),
    Format("WEBP", "PIL.WebPImagePlugin", "PIL._webp", (".webp",)),
    Format("JPEG2000", "PIL.Jpeg2KImagePlugin", "", (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc")),
    Format("AVIF", "PIL.AvifImagePlugin", "PIL._avif", (".avif",)),
    Format("HEIF", "", "", (".heic", ".heif", ".hif")),
)


def readable(format: Format) -> bool:
    """Whether what is installed reads the format. Nothing is imported for it."""
    if format.name == "HEIF":
        return any(find_spec(name) is not None for name in HEIF_READERS)
    if format.name == "JPEG2000":
        return hasattr(Image.core, "jpeg2k_decoder")
    return not format.needs or find_spec(format.needs) is not None


def recognised(header: bytes) -> Format | None:
    """The format that the first bytes of a file are of, or None. Sources: each format's specification."""
    name = ""
    if header[4:8] == b"ftyp":  # ISO base media: brands say what is inside
        brands = header[8 : max(8, int.from_bytes(header[:4], "big"))]
        if b"avif" in brands or b"avis" in brands:
            name = "AVIF"
        elif any(brand in brands for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")):
            name = "HEIF"
    elif header.startswith(b"RIFF"):
        name = "WEBP" if header[8:12] == b"WEBP" else ""
    else:
        name = next((name for start, name in _STARTS if header.startswith(start)), "")
    return next((format for format in FORMATS if format.name == name), None)


_STARTS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    *((start, "TIFF") for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((start, "JPEG2000") for start in (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")),
)


class _Limited:
    """Of a stream: it is read `OFTEN` times over at most."""

    _left: int

    def read(self, size: int | None = -1) -> bytes:
        data: bytes = super().read(size)  # type: ignore[misc]
        self._left -= len(data)
        if self._left < 0:
            raise OSError("its parts name the same bytes again and again")
        return data


class InMemory(_Limited, io.BytesIO):
    """The bytes of a file that came from elsewhere."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._left = OFTEN * len(content) + (1 << 20)


class _Metered(_Limited, io.BufferedReader):
    """A file. Its descriptor is hidden: libtiff maps it, and dies when it shrinks."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(io.FileIO(descriptor, "rb"))
        self._left = OFTEN * os.fstat(descriptor).st_size + (1 << 20)

    def fileno(self) -> int:
        raise io.UnsupportedOperation("not for decoders")

    def close(self) -> None:
        """Nothing: decoders may call it, but the file is still needed."""

    def finish(self) -> None:
        super().close()


@contextlib.contextmanager
def regular_file(path: PathLike) -> Iterator[_Metered]:
    """The file, open for reading. Raises MisuseError when it is missing, empty, no regular file, or changed meanwhile.

    A FIFO, socket or device is never waited for.
    """
    name = printable(path)
    try:
        _require_regular(name, os.stat(path).st_mode)  # before it is opened, which alone does things to some devices
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise MisuseError(f"image {name} does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise MisuseError(f"image {name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    stream, before = _Metered(descriptor), os.fstat(descriptor)
    try:
        _require_regular(name, before.st_mode)
        if before.st_size == 0:
            raise MisuseError(f"image {name} is empty")
        yield stream
        after = os.fstat(descriptor)
    finally:
        stream.finish()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise MisuseError(f"image {name} was changed while it was read; run the command again")


def _require_regular(name: str, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise MisuseError(f"image {name} is a directory")
    if not stat.S_ISREG(mode):
        kind = "a FIFO" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise MisuseError(f"image {name} is {kind}, not a file")


def undecoded(stream: io.BufferedReader | InMemory, format: Format) -> ImageFile.ImageFile:
    """The picture with its size and mode, before its pixels are decoded. Raises whatever its reader raises."""
    if format.name == "HEIF":
        reader = next(name for name in HEIF_READERS if find_spec(name) is not None)
        importlib.import_module(reader).register_heif_opener()
    else:
        importlib.import_module(format.module)
    stream.seek(0)
    factory, _ = Image.OPEN[format.name]
    return factory(stream, "")


def webp_size(header: bytes) -> tuple[int, int]:
    """(width, height) that the first 30 bytes of a WebP file state: its reader takes memory for them when it opens it.

    Source: RFC 9649, sections 2.5 to 2.7. (0, 0) where they state none.
    """
    kind, data = header[12:16], header[20:30]
    if kind == b"VP8X":
        return int.from_bytes(data[4:7], "little") + 1, int.from_bytes(data[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF
    return 0, 0


class Budget:
    """So many pixels in memory at once, for all threads together: who would exceed it waits for others to finish."""

    def __init__(self, total: int) -> None:
        self.total = self.free = total
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Hold that many (all there are, if they are more) during the block."""
        pixels = min(pixels, self.total)
        with self._changed:
            self._changed.wait_for(lambda: self.free >= pixels)
            self.free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self.free += pixels
                self._changed.notify_all()
