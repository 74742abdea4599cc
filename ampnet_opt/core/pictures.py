"""Pictures as pixels: RGB, upright, of bounded size. numpy and Pillow only."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import AbstractSet, Any, Iterator, NamedTuple, Tuple

import numpy as np
from PIL import Image

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.files import PathLike
from ampnet_opt.core.installing import install_command
from ampnet_opt.core.picture_files import (
    FORMATS,
    HEADER,
    LARGEST,
    Budget,
    Format,
    InMemory,
    readable,
    recognised,
    regular_file,
    undecoded,
    webp_size,
)
from ampnet_opt.core.text import one_line, printable

SMALLEST_SIDE = 16  # pixels; a smaller picture holds no face that could be read
WHOLE = 90_000_000  # pixels; a picture of more is scaled down by 2, 4 or 8 as it is read
# Suffixes in lower case: of the pictures that are read, and of those that are not, which readers list as left out.
PICTURES = {suffix for format in FORMATS if readable(format) for suffix in format.suffixes}
OTHER_PICTURES = {suffix for format in FORMATS for suffix in format.suffixes} - PICTURES | {
    *(".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf"),  # raw
    *(".pef", ".raf", ".raw", ".rw2", ".sr2", ".srf", ".srw", ".x3f"),  # raw as well
    *(".ai", ".emf", ".eps", ".pdf", ".ps", ".svg", ".svgz", ".wmf"),  # drawings and pages
    *(".avifs", ".bpg", ".dds", ".exr", ".fits", ".flif", ".hdr", ".heics", ".ico", ".jls", ".jxl", ".jxr", ".pbm", ".pcx"),
    *(".pgm", ".pnm", ".ppm", ".psb", ".psd", ".qoi", ".tga", ".xcf", ".xpm"),
}
HEIF = {suffix for format in FORMATS if format.name == "HEIF" for suffix in format.suffixes}
UNCERTAIN = {"CMYK", "YCCK", "LAB"}  # modes whose colours depend on a profile
SIXTEEN_BIT = {"I;16", "I;16B", "I;16L", "I;16N", "I"}
DARK = 8192  # of 65,536: 16-bit values that stay below it are taken for 12-bit ones that were not scaled up
STRIP = 1 << 22  # pixels that are converted at a time
ORIENTATION, WIDTH, HEIGHT, MAX_SAMPLE_VALUE = 0x0112, 256, 257, 281  # tags of EXIF and TIFF
TURNS = dict(  # by EXIF orientation; 1 is upright
    enumerate(
        (
            Image.Transpose.FLIP_LEFT_RIGHT,
            Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
        ),
        2,
    )
)

_budget = Budget(LARGEST)


class Photo(NamedTuple):
    """image: RGB, upright; scaled down when the file holds more than `WHOLE` pixels. size: (width, height) in the file,
    upright: what landmarks are in pixels of."""

    image: Image.Image
    size: Tuple[int, int]

    @property
    def scale(self) -> float:
        """Pixels in the file per pixel of `image`."""
        return self.size[0] / self.image.width


def is_picture(file: Path, suffixes: AbstractSet[str] = PICTURES) -> bool:
    """Whether the name is that of a picture, by suffix, and not hidden (".name")."""
    return file.suffix.lower() in suffixes and not file.name.startswith(".")


def remedy(suffix: str) -> str:
    """What to do with a picture of a suffix of `OTHER_PICTURES`, of which lower and upper case are one."""
    return _heif_remedy() if suffix.lower() in HEIF else "convert it to JPEG or PNG"


def read_image(path: PathLike) -> np.ndarray:
    """The pixels of `opened_photo`, uint8 [height, width, 3] RGB."""
    with opened_photo(path) as photo:
        return np.asarray(photo.image)


@contextlib.contextmanager
def opened_photo(path: PathLike) -> Iterator[Photo]:
    """A picture file, decoded for the time of the block: its pixels count towards the `LARGEST` of all threads, then go.

    Upright by its EXIF orientation; of several frames, the first. More than `WHOLE` pixels are scaled down by 2, 4 or 8:
    JPEG and JPEG 2000 while they are decoded, others afterwards. Grey, palette, 16-bit and float (0 to 255) pictures are
    converted, transparency is laid over black. Raises MisuseError for what is missing, no regular file, of no format that is
    read here, damaged, of another range, CMYK, smaller than 16 pixels a side or larger than `LARGEST`; AmpnetError when
    memory does not suffice.
    """
    with regular_file(path) as stream, contextlib.ExitStack() as held:
        with _refused(path):
            photo = _decoded(printable(path), stream, held)
        yield photo


@contextlib.contextmanager
def decoded_photo(content: bytes, name: str = "sent") -> Iterator[Photo]:
    """`opened_photo` of an encoded picture in memory.

    Args:
        content: the bytes of its file.
        name: of the picture, for messages.
    """
    if not content:
        raise MisuseError(f"image {printable(name)} is empty")
    with InMemory(content) as stream, contextlib.ExitStack() as held:
        with _refused(name):
            photo = _decoded(printable(name), stream, held)
        yield photo


def image_header(path: PathLike) -> Tuple[Tuple[int, int], int]:
    """(width, height) of a picture, upright, and the EXIF orientation that was applied for that, from its header alone.

    Raises MisuseError as `opened_photo` does.
    """
    with regular_file(path) as stream, _refused(path):
        header = stream.read(HEADER)
        format = _require_format(printable(path), header)
        if format.name == "WEBP":
            _require_size(printable(path), webp_size(header))
        with undecoded(stream, format) as opened:
            _require_size(printable(path), opened.size)
            if format.name == "PNG" and "exif" not in opened.info:  # Pillow would decode it to look for more
                return opened.size, 1
            with _budget.taken(opened.width * opened.height):
                return _upright_size(opened), _orientation(opened)


@contextlib.contextmanager
def _refused(path: PathLike) -> Iterator[None]:
    """What readers raise, as one sentence: they meet damage with every kind of exception."""
    name = printable(path)
    try:
        yield
    except AmpnetError:
        raise
    except MemoryError as error:
        raise AmpnetError(f"image {name} cannot be read: there is not enough memory for it") from error
    except (SyntaxError, IndexError, TypeError, struct.error) as error:  # Pillow's ways to say that a header is none
        raise MisuseError(f"image {name} cannot be read: its header is damaged") from error
    except Exception as error:
        reason = one_line(error, 120).rstrip(".") or type(error).__name__
        raise MisuseError(f"image {name} cannot be read: {reason}") from error


def _require_format(name: str, header: bytes) -> Format:
    format = recognised(header)
    if format is None:
        known = ", ".join(format.name for format in FORMATS if readable(format))
        raise MisuseError(f"image {name} cannot be read: it is no picture ({known})")
    if not readable(format):
        remedy = _heif_remedy() if format.name == "HEIF" else "convert it to JPEG, or install Pillow's wheel from PyPI"
        raise MisuseError(f"image {name} is {format.name}, which is not read here: {remedy}")
    return format


def _require_size(name: str, size: Tuple[int, int]) -> None:
    if size[0] * size[1] > LARGEST:
        raise MisuseError(
            f"image {name} has {size[0]} x {size[1]} pixels; at most {LARGEST // 10**6} megapixels are read: "
            "scale it down first"
        )


def _decoded(name: str, stream: Any, held: contextlib.ExitStack) -> Photo:
    """The picture; held: what has to be given back when its pixels are no longer used."""
    header = stream.read(HEADER)
    format = _require_format(name, header)
    if format.name == "WEBP":
        _require_size(name, webp_size(header))
        held.enter_context(_budget.taken(int(np.prod(webp_size(header)))))
    opened = undecoded(stream, format)
    held.callback(opened.close)  # frees its pixels; that it is in a cycle of references would keep them for a while
    if opened.mode in UNCERTAIN:
        raise MisuseError(f"image {name} is {opened.mode}, whose colours depend on a profile; convert it to RGB first")
    if min(opened.size) < SMALLEST_SIDE:
        raise MisuseError(
            f"image {name} is {opened.width} x {opened.height} pixels; at least {SMALLEST_SIDE} a side are needed"
        )
    _require_size(name, opened.size)
    pixels, factor, raw = opened.width * opened.height, _factor(opened.size), _raw_mode(opened)
    if format.name == "JPEG" and "progressive" not in opened.info:  # which is held whole, scaled down or not
        pixels //= factor**2
    if format.name != "WEBP":
        held.enter_context(_budget.taken(pixels))
    size = _upright_size(opened)
    if factor > 1 and format.name == "JPEG":
        opened.draft(None, (opened.width // factor, opened.height // factor))
    elif factor > 1 and format.name == "JPEG2000":
        opened.reduce = factor.bit_length() - 1  # type: ignore[method-assign, assignment]
    opened.load()
    turn = TURNS.get(_orientation(opened))  # of TIFF there is none any more: newer versions of Pillow turn it themselves
    picture = _eight_bit(name, opened, raw)
    if picture.width * picture.height > WHOLE:
        picture = picture.reduce(factor)
    return Photo(picture if turn is None else picture.transpose(turn), size)


def _factor(size: Tuple[int, int]) -> int:
    """1, 2, 4 or 8: by how much a picture of that size is scaled down."""
    return next((factor for factor in (1, 2, 4) if size[0] * size[1] <= WHOLE * factor**2), 8)


def _orientation(opened: Image.Image) -> int:
    return opened.getexif().get(ORIENTATION, 1)


def _upright_size(opened: Any) -> Tuple[int, int]:
    tags = getattr(opened, "tag_v2", {})  # of TIFF; whether `size` is upright there depends on the version of Pillow
    size = (tags.get(WIDTH, opened.width), tags.get(HEIGHT, opened.height)) if tags else opened.size
    return size[::-1] if _orientation(opened) in (5, 6, 7, 8) else size


def _raw_mode(opened: Any) -> str:
    """How Pillow names the values as they lie in the file, "RGB;16B" say; "" where it does not."""
    arguments = opened.tile[0][3] if opened.tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _eight_bit(name: str, opened: Any, raw: str) -> Image.Image:
    """RGB of 8 bits, over black, from a picture that is loaded."""
    picture: Image.Image = opened
    if picture.mode == "F" or picture.mode in SIXTEEN_BIT:
        top = 255 if picture.mode == "F" else 4095 if raw == "I;12" else _white(opened)
        return _scaled(name, picture, top).convert("RGB")
    if ";16" in raw:  # of colours, Pillow keeps the upper 8 bits
        highest = max(high for _, high in np.reshape(picture.getextrema(), (-1, 2))[:3])
        _require_bright(name, int(highest) << 8)
    if picture.mode in {"LA", "RGBA", "PA", "La", "RGBa"} or "transparency" in picture.info:
        coloured = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", coloured.size, (0, 0, 0, 255)), coloured).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _white(opened: Any) -> int:
    """The largest value of a picture of 16 bits: what a TIFF says, where that is of 9 to 15 bits, or else 65535."""
    said = np.max(getattr(opened, "tag_v2", {}).get(MAX_SAMPLE_VALUE, 65535))
    return int(said) if said in [2**bits - 1 for bits in range(9, 16)] else 65535


def _scaled(name: str, picture: Image.Image, top: int) -> Image.Image:
    """Grey of 8 bits from grey of 16 bits or float, where `top` is white.

    What lies outside the range would need a guess and is refused; so are values that a smaller range explains better.
    """
    rows = max(1, STRIP // picture.width)
    strips, highest = [], 0.0
    for start in range(0, picture.height, rows):
        values = np.asarray(picture.crop((0, start, picture.width, min(start + rows, picture.height))), np.float64)
        if not ((values >= 0) & (values <= top)).all():
            raise MisuseError(f"image {name} has values outside 0 to {top}; convert it to 8 bits first")
        highest = max(highest, float(values.max()))
        strips.append((values * (255 / top)).round().astype(np.uint8))
    if picture.mode == "F" and 0 < highest <= 1:
        raise MisuseError(f"image {name} has float values of 0 to 1, not 0 to 255; convert it to 8 bits first")
    if top == 65535:
        _require_bright(name, int(highest))
    return Image.fromarray(np.concatenate(strips))


def _require_bright(name: str, highest: int) -> None:
    """MisuseError for 16-bit values that are so low that they must be 10-bit or 12-bit ones: read as 16, they are black.

    PNG's chunk sBIT is no help: by PNG's specification, values span all 16 bits whatever it says.
    """
    if 0 < highest < DARK:
        raise MisuseError(
            f"image {name} has 16 bits a value, but none above {highest} of 65535, as of 10-bit or 12-bit data; "
            "scale it to the whole range, or to 8 bits, first"
        )


def _heif_remedy() -> str:
    return f"{install_command('heif')}, or convert it to JPEG first"
