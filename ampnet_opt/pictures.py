"""Picture files as arrays of pixels. numpy and Pillow only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ampnet_opt.errors import MisuseError
from ampnet_opt.files import PathLike, require_file

SMALLEST_SIDE = 16  # pixels; a smaller picture holds no face that could be read
# Suffixes, in lower case.
PICTURES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".jp2"}
# Pictures that are not read here: who lists a folder says so instead of passing over them.
OTHER_PICTURES = {".heic", ".heif", ".svg", ".eps", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".jxl"}
SIXTEEN_BIT = {"I;16", "I;16B", "I;16L", "I;16N", "I"}


def read_image(path: PathLike) -> np.ndarray:
    """A picture as uint8 [height, width, 3] RGB, turned upright by its EXIF orientation.

    Grey, palette, 16-bit and float (0 to 255) pictures are converted, transparency is laid over black. Raises MisuseError
    for a file that is missing, empty, damaged, of another range, CMYK or smaller than 16 pixels a side.
    """
    file = require_file(path, "image")
    try:
        if file.stat().st_size == 0:
            raise MisuseError(f"image {file} is empty")
        with Image.open(file) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened) or opened
    except MisuseError:
        raise
    except UnidentifiedImageError as error:
        raise MisuseError(f"image {file} cannot be read: it is no picture") from error
    except Exception as error:  # decoders meet damage with every kind of exception
        raise MisuseError(f"image {file} cannot be read: {str(error).rstrip('.') or type(error).__name__}") from error
    if picture.mode in {"CMYK", "YCCK", "LAB"}:
        raise MisuseError(f"image {file} is {picture.mode}, whose colours depend on a profile; convert it to RGB first")
    if min(picture.size) < SMALLEST_SIDE:
        raise MisuseError(
            f"image {file} is {picture.width} x {picture.height} pixels; at least {SMALLEST_SIDE} a side are needed"
        )
    if picture.mode == "F" or picture.mode in SIXTEEN_BIT:
        return np.asarray(_to_eight_bit(file, picture).convert("RGB"))
    if picture.mode in {"LA", "RGBA", "PA", "La", "RGBa"} or "transparency" in picture.info:
        coloured = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", coloured.size, (0, 0, 0, 255)), coloured)
    return np.asarray(picture.convert("RGB"))


def _to_eight_bit(file: Path, picture: Image.Image) -> Image.Image:
    """Grey of 8 bits from grey of 16 bits or float; what lies outside the range would need a guess and is refused."""
    top = 255.0 if picture.mode == "F" else 65535.0
    values = np.asarray(picture, np.float64)
    if not ((values >= 0) & (values <= top)).all():
        raise MisuseError(f"image {file} has values outside 0 to {top:.0f}; convert it to 8 bits first")
    if picture.mode == "F" and 0 < values.max() <= 1:
        raise MisuseError(f"image {file} has float values of 0 to 1, not 0 to 255; convert it to 8 bits first")
    return Image.fromarray((values * (255 / top)).round().astype(np.uint8))
