"""What `prepare --force` deletes: the pictures that an earlier run recorded, as it wrote them, and nothing else."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from test_prepare import begun, contents, drawn

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.files import sha256
from ampnet_opt.preparing.prepare import prepare

OURS = ["images/a_0.jpg", "images/a_1.jpg", "images/a_2.jpg"]


def again(out: Path, count: int = 1) -> set[str]:
    """What the folder holds when other pictures were prepared into it with --force."""
    prepare(drawn(count), out, crop=False, workers=1, force=True)
    return set(contents(out)) - {"faces.csv", "skipped.csv"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return prepare(drawn(3), tmp_path / "out", crop=False, workers=1).table.parent


def edit(out: Path, names: list[str], digest: str = "") -> None:
    """Add rows to the table, as by hand."""
    with open(out / "faces.csv", newline="") as stream:
        head, *rows = csv.reader(stream)
    for name in names:
        row = dict(zip(head, rows[0]), file=name)
        row["image_sha256"] = digest or row["image_sha256"]
        rows.append(list(row.values()))
    with open(out / "faces.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([head, *rows])


def test_the_users_own_files_survive_a_finished_preparation(out: Path) -> None:
    mine = {"images/mine.jpg": b"mine", "images/deep/a_0.jpg": b"deep", "images/.hidden.jpg": b"hidden", "notes.txt": b"n"}
    for name, content in mine.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(content)
    assert again(out) == {"images/a_0.jpg", *mine}
    assert {name: (out / name).read_bytes() for name in mine} == mine


def test_the_users_own_files_survive_an_unfinished_preparation(tmp_path: Path) -> None:
    out = begun(tmp_path / "out", drawn(5), after=3)
    assert set(OURS) <= set(contents(out))
    (out / "images" / "mine.jpg").write_bytes(b"mine")
    assert again(out) == {"images/a_0.jpg", "images/mine.jpg"}
    assert (out / "images" / "mine.jpg").read_bytes() == b"mine"


def test_a_run_goes_on_beside_the_users_files(tmp_path: Path) -> None:
    out = begun(tmp_path / "out", drawn(5), after=3)
    (out / "images" / "mine.jpg").write_bytes(b"mine")
    assert prepare(drawn(5), out, crop=False, workers=1).faces == 5
    assert (out / "images" / "mine.jpg").read_bytes() == b"mine"


def test_a_picture_that_the_user_replaced_is_kept(out: Path) -> None:
    (out / "images" / "a_2.jpg").write_bytes(b"retouched")
    assert again(out) == {"images/a_0.jpg", "images/a_2.jpg"}
    assert (out / "images" / "a_2.jpg").read_bytes() == b"retouched"


@pytest.mark.parametrize("name", ["a_1.jpg", "A_1.JPG", "a_1+2.jpg"])
def test_a_file_whose_name_is_needed_is_never_overwritten(out: Path, name: str) -> None:
    prepare(drawn(1), out, crop=False, workers=1, force=True)
    (out / "images" / name).write_bytes(b"mine")
    before = contents(out)
    with pytest.raises(MisuseError, match=rf"names that it needs: {name.replace('+', '.')}; move them away"):
        prepare(drawn(2), out, crop=False, workers=1, force=True)
    assert contents(out) == before
    unfinished = begun(out.parent / "unfinished", drawn(4), after=1)
    (unfinished / "images" / name).write_bytes(b"mine")
    with pytest.raises(MisuseError, match="move them away"):
        prepare(drawn(4), unfinished, crop=False, workers=1)
    assert (unfinished / "images" / name).read_bytes() == b"mine"


def test_a_table_edited_by_hand_deletes_nothing_outside_its_images(out: Path) -> None:
    outside = [out.parent / "x.jpg", out / "y.jpg", out / "images" / "deep" / "z.jpg"]
    content = (out / "images" / "a_0.jpg").read_bytes()
    for file in outside:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)  # the recorded hash, too
    edit(out, ["../../x.jpg", "../y.jpg", "deep/z.jpg", str(outside[0]), "", ".", "..", "deep", "a\0b", "x" * 400])
    again(out)
    assert all(file.read_bytes() == content for file in outside)


def test_a_row_added_by_hand_deletes_nothing(out: Path) -> None:
    (out / "images" / "mine.jpg").write_bytes(b"mine")
    edit(out, ["mine.jpg"])
    assert "images/mine.jpg" in again(out)


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_links_are_not_followed(out: Path) -> None:
    far = out.parent / "far.jpg"
    (out / "images" / "a_2.jpg").rename(far)
    (out / "images" / "a_2.jpg").symlink_to(far)
    (out / "images" / "a_1.jpg").unlink()
    (out / "images" / "a_1.jpg").symlink_to("nowhere.jpg")
    again(out)
    assert far.is_file() and (out / "images" / "a_2.jpg").is_symlink() and (out / "images" / "a_1.jpg").is_symlink()


def test_a_table_that_is_not_of_prepare_is_kept(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a_0.jpg").write_bytes(b"mine")
    (tmp_path / "faces.csv").write_text(f"file,label,image_sha256\na_0.jpg,fear,{sha256(tmp_path / 'images' / 'a_0.jpg')}\n")
    before = contents(tmp_path)
    with pytest.raises(MisuseError, match=r"faces.csv was not written by prepare, so --force keeps it"):
        prepare(drawn(2), tmp_path, crop=False, force=True)
    assert contents(tmp_path) == before


def test_every_picture_in_the_folder_is_recorded_whenever_the_run_stops(tmp_path: Path) -> None:
    for after in (1, 4):
        out = begun(tmp_path / f"{after}", drawn(9), after=after)
        images = {file.name for file in (out / "images").glob("*.jpg")}
        assert images == {f"a_{number}.jpg" for number in range(after)}
        assert again(out) == {"images/a_0.jpg"}


def test_killed_between_the_record_and_the_picture(tmp_path: Path) -> None:
    out = begun(tmp_path / "out", drawn(5), after=3)
    os.replace(out / "images" / "a_2.jpg", out / "images" / ".partial" / "a_2.jpg")
    result = prepare(drawn(5), out, crop=False, workers=1)
    assert sorted(file.name for file in (out / "images").iterdir()) == [f"a_{number}.jpg" for number in range(5)]
    with open(result.table, newline="") as stream:
        for row in csv.DictReader(stream):
            assert row["image_sha256"] == sha256(out / "images" / row["file"])
            assert np.isfinite(float(row["nose_x"]))
