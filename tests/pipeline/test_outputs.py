"""Drawings: each picture has one of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from faces_of_a_frame import CLASSES, result
from PIL import Image

from ampnet_opt.pipeline.outputs import Outputs
from ampnet_opt.pipeline.sources.pictures import Pictures


@pytest.mark.parametrize(
    "names",
    [
        ["one/a.png", "two/a.png"],
        ["one/a+2.png", "one/a.png", "two/a.png"],  # the third's number is in the first's name
        ["one/a+3.png", "one/a+4.png", "one/a.png", "two/A.PNG", "two/a.webp", "three/a.png"],
        ["one/a.png", "two/a.png", "two/a+1.png", "two/a+1+2.png"],
        ["one/a.bmp", "one/a.jpg", "one/a.tif", "one/a+2.jpg"],  # formats that are drawn as JPEG
    ],
)
def test_pictures_of_one_name_have_a_drawing_each(tmp_path: Path, names: list[str]) -> None:
    files = [tmp_path / name for name in names]
    with Outputs(Pictures(files), CLASSES, drawn=tmp_path / "out") as outputs:
        for index, file in enumerate(files):
            outputs.write(result(np.full((48, 64, 3), 20 * index, np.uint8), name=str(file), index=index))
    drawn = [round(float(np.asarray(Image.open(file)).mean()) / 20) for file in (tmp_path / "out").iterdir()]
    assert sorted(drawn) == list(range(len(names)))
    assert (tmp_path / "out" / Path(names[0]).name).with_suffix(".jpg" if "bmp" in names[0] else ".png").exists()
