"""Whether pictures can be what a network is used on: different ones, enough of them, and not blank."""

from __future__ import annotations

from collections.abc import Sequence

from ampnet_opt.core.files import sha256
from ampnet_opt.core.text import count
from ampnet_opt.faces.face import Face, load_face, spread

FEW = 32  # different pictures; with fewer, ranges that some faces need are missed
LOOKED_AT = 64  # pictures whose pixels are read: a millisecond each
BLANK = 4.0  # standard deviation of the pixels, in levels of 255; of pictures of faces it is 30 to 80, of dark ones 10


def doubts(faces: Sequence[Face]) -> list[str]:
    """A sentence for each reason why ranges measured on `faces` will not do for others; [] for good ones."""
    found = []
    different = len({sha256(face.file) for face in faces})
    if different < min(FEW, len(faces)) or 2 * different < len(faces):
        found.append(f"of the {len(faces)} calibration faces only {different} are different pictures")
    if different < FEW:
        found.append(f"INT8 is calibrated on {count(different, 'picture')}: take {FEW} or more, as varied as those to come")
    looked_at = spread(faces, LOOKED_AT)
    blank = [face for face in looked_at if load_face(face)[0].std() < BLANK]
    if blank:
        share = f"{len(blank)} of {count(len(looked_at), 'calibration picture')}"
        found.append(f"{share} {'is' if len(blank) == 1 else 'are'} blank, {blank[0].file.name} for one")
    return found
