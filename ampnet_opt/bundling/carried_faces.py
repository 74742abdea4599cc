"""Labelled faces that a bundle carries, with the float network's logits, so that a board can choose by them.

A zip of `faces.csv`, `images/` and `logits.npy`. Python 3.8.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Iterator, List, Sequence, Tuple

import numpy as np
from PIL import Image

from ampnet_opt.core.npy import read_header, read_numbers
from ampnet_opt.core.row_matching import IMAGES
from ampnet_opt.core.tables import NAME as TABLE
from ampnet_opt.faces.face import COLUMNS, Face, load_face, read_faces
from ampnet_opt.faces.repeats import first_of_each

NAME = "faces.zip"
LOGITS = "logits.npy"
QUALITY = 85  # of the JPEG of a drawn face: 10 kB
LARGEST = 1 << 30  # bytes unpacked
MOST = 100_000  # members
PICTURE = re.compile(IMAGES + r"/[0-9]{5}(\.[a-z]{3,4})?")


def shrunk(faces: Sequence[Face], folder: Path) -> List[Face]:
    """The faces as the network sees them, 224 x 224, as JPEGs in an empty folder."""
    found = []
    for number, face in enumerate(faces):
        image, landmarks = load_face(face)
        file = folder / f"{number:05}.jpg"
        Image.fromarray(image).save(file, quality=QUALITY)
        found.append(replace(face, file=file, landmarks=landmarks, size=None))
    return found


def write_carried(path: Path, faces: Sequence[Face], logits: np.ndarray) -> None:
    """Write the member of a bundle. logits: float32 [N, classes] of these faces, which are all labelled."""
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(["file", "label", *COLUMNS])
    with zipfile.ZipFile(path, "w") as archive:
        for number, face in enumerate(faces):
            suffix = face.file.suffix.lower()
            name = f"{number:05}{suffix}" if PICTURE.fullmatch(f"{IMAGES}/00000{suffix}") else f"{number:05}"
            archive.write(face.file, f"{IMAGES}/{name}")
            rows.writerow([name, face.label, *(repr(float(value)) for value in face.landmarks.ravel())])
        archive.writestr(TABLE, table.getvalue())
        numbers = io.BytesIO()
        np.save(numbers, logits.astype(np.float32))
        archive.writestr(LOGITS, numbers.getvalue())


@contextmanager
def open_carried(data: bytes, classes: int) -> Iterator[Tuple[List[Face], np.ndarray]]:
    """The faces, whose pictures lie in a folder for as long as the block lasts, and their logits float32 [N, classes].

    Raises ValueError when `data` is nothing that `write_carried` writes, and as `read_faces`.
    """
    with TemporaryDirectory(prefix="ampnet-opt-") as folder:
        place = Path(folder)
        (place / IMAGES).mkdir()
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = archive.infolist()
                names = [member.filename for member in members]
                known = all(name in (TABLE, LOGITS) or PICTURE.fullmatch(name) for name in names)
                if not known or len({*names}) < len(names) or len(names) > MOST or not {TABLE, LOGITS} <= {*names}:
                    raise ValueError("its faces are not those of a bundle")
                if sum(member.file_size for member in members) > LARGEST:
                    raise ValueError("its faces are too large")
                for member in members:
                    archive.extract(member, place)
                size = (place / LOGITS).stat().st_size
                with open(place / LOGITS, "rb") as stream:
                    header = read_header(stream)
                    if header.dtype != np.float32:
                        raise ValueError("its logits are no float32")
                    logits = read_numbers(stream, header, size)
        except ValueError:
            raise
        except Exception as error:  # damage meets zipfile with every kind of exception, some without a word
            raise ValueError(str(error) or "its faces are damaged") from error
        faces = read_faces(place / TABLE, "all", repeats=True)
        if logits.shape != (len(faces), classes) or not np.isfinite(logits).all():
            raise ValueError("its faces and logits do not fit together")
        once = sorted(set(first_of_each(faces)))  # bundles of 0.1 may carry a face more than once
        yield [faces[row] for row in once], logits[once]
