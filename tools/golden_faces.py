"""Draws the golden faces that come with the package: one of each expression, as a data set of this tool.

    python tools/golden_faces.py ampnet_opt/shipped/golden

Every build compares its engine with the float network on them. They are files, so that a build draws nothing.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from PIL import Image

from ampnet_opt.core.files import new_directory
from ampnet_opt.core.row_matching import IMAGES
from ampnet_opt.core.tables import NAME
from ampnet_opt.faces.face import COLUMNS
from ampnet_opt.synthetic import face
from ampnet_opt.synthetic.dataset import DEFAULT_CLASSES

SEED = 0

if __name__ == "__main__":
    with new_directory(Path(sys.argv[1])) as folder:
        (folder / IMAGES).mkdir()
        with open(folder / NAME, "w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream)
            rows.writerow(["file", "label", *COLUMNS])
            for label in DEFAULT_CLASSES:
                image, landmarks = face(SEED, label)
                Image.fromarray(image).save(folder / IMAGES / f"{label}.jpg", quality=95, subsampling=0)
                rows.writerow([f"{label}.jpg", label, *(f"{value:.3f}" for value in landmarks.ravel())])
