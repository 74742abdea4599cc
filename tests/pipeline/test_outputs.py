"""Drawings: each picture has one of its own, and a video the shape of its source."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from faces_of_a_frame import CLASSES, result
from PIL import Image

from ampnet_opt.pipeline.outputs import Outputs
from ampnet_opt.pipeline.sources import open_source
from ampnet_opt.pipeline.sources.pictures import Pictures
from ampnet_opt.pipeline.video_writer import CODECS


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


@pytest.mark.parametrize("suffix", sorted(CODECS))
@pytest.mark.parametrize(
    "matrix, aspect, shape",
    [
        ((1, 0, 0, 1), Fraction(2), (128, 48)),
        ((0, 1, -1, 0), Fraction(2), (48, 128)),  # turned by a quarter
        ((1, 0, 0, 1), Fraction(3, 4), (64, 64)),
        ((1, 0, 0, 1), None, (64, 48)),
        ((1, 0, 0, 1), Fraction(1, 200), (64, 48)),  # of a damaged header: not believed
    ],
)
def test_pixels_that_are_not_square_stay_so(
    tmp_path: Path, suffix: str, matrix: tuple[int, int, int, int], aspect: Fraction | None, shape: tuple[int, int]
) -> None:
    """shape: width and height, or multiples of them, as players show the drawing."""
    av = pytest.importorskip("av")
    from video_file import set_matrix, write_video

    write_video(tmp_path / "clip.mp4", [0.0, 0.04, 0.08], pixel_aspect=aspect)
    set_matrix(tmp_path / "clip.mp4", matrix)
    drawn = tmp_path / f"drawn{suffix}"
    with open_source(str(tmp_path / "clip.mp4")) as source, Outputs(source, CLASSES, drawn=drawn) as outputs:
        for frame in source:
            outputs.write(result(frame.image, time=frame.time, index=frame.index))
    with av.open(str(drawn)) as video:
        stream = video.streams.video[0]
        assert sum(1 for _ in video.decode(stream)) == 3
        assert Fraction(stream.width, stream.height) * (stream.sample_aspect_ratio or 1) == Fraction(*shape)
