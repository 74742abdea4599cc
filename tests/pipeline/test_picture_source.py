"""Pictures and folders of them: each a frame, in order; one that cannot be read stops no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.pipeline.sources import open_source


def save(path: Path, grey: int, size: tuple[int, int] = (40, 30)) -> str:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", size, (grey, grey, grey)).save(path, "PNG")
    return str(path)


def refusal(*texts: object) -> str:
    with pytest.raises(MisuseError) as raised:
        open_source(*map(str, texts))
    return str(raised.value)


def test_pictures_come_in_the_order_given_and_those_of_a_folder_by_name(tmp_path: Path) -> None:
    last = save(tmp_path / "last.png", 9)
    inside = [save(tmp_path / "folder" / name, grey) for name, grey in (("a.png", 1), ("b.PNG", 2))]
    (tmp_path / "folder" / "notes.txt").write_text("no picture")
    with open_source(str(tmp_path / "folder"), last) as source:
        assert (source.count, source.live, source.still) == (3, False, True)
        frames = list(source)
    assert [frame.name for frame in frames] == [*inside, last]
    assert [int(frame.image.max()) for frame in frames] == [1, 2, 9]
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert frames[0].image.shape == (30, 40, 3) and frames[0].image.dtype == np.uint8


def test_a_picture_that_cannot_be_read_stops_no_other(tmp_path: Path) -> None:
    good = [save(tmp_path / f"{number}.png", number) for number in (1, 2)]
    bad = {"empty.jpg": b"", "none.jpg": b"hello" * 50, "cut.png": (tmp_path / "1.png").read_bytes()[:50], "notes.txt": b"a"}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    with open_source(good[0], *(str(tmp_path / name) for name in bad), good[1]) as source:
        frames = list(source)
    assert [frame.name for frame in frames] == good
    assert [frame.index for frame in frames] == [0, 5]
    assert len(source.failures) == len(bad)
    assert all(name in str(failure) for name, failure in zip(bad, source.failures))


def test_a_picture_is_told_by_its_bytes(tmp_path: Path) -> None:
    with open_source(save(tmp_path / "clip.mp4", 3)) as source:
        assert source.still and len(list(source)) == 1


def test_closing_ends_the_pictures(tmp_path: Path) -> None:
    source = open_source(*(save(tmp_path / f"{number}.png", number) for number in range(3)))
    taken = 0
    for _ in source:
        taken += 1
        source.close()
    assert taken == 1


def test_what_is_missing_or_holds_no_pictures_says_so(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none.jpg")
    (tmp_path / "folder").mkdir()
    assert "holds no pictures" in refusal(tmp_path / "folder")
    (tmp_path / "folder" / "clip.mp4").write_bytes(b"\0")
    assert "clip.mp4" in refusal(tmp_path / "folder")
    (tmp_path / "folder" / "a.cr2").write_bytes(b"\0")
    assert "convert it" in refusal(tmp_path / "folder")
