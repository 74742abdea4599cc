"""Every picture file of a data set is read, or listed with a reason: nothing is left out in silence."""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from console_script import fails, succeeds
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_prepare import FACES, YUNET, needs_yunet

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.installing import install_command
from ampnet_opt.core.pictures import OTHER_PICTURES, PICTURES
from ampnet_opt.datasets.labelled_picture import Dataset, Picture, Skipped
from ampnet_opt.datasets.listing import JOURNAL, SKIPPED, all_pictures
from ampnet_opt.datasets.registry import read_dataset
from ampnet_opt.pipeline.classify import find_faces
from ampnet_opt.preparing.prepare import prepare

LOOSE, DEEPER, ASIDE = (
    "no label: in no class folder",
    "deeper than in a class folder",
    "in a folder beside train, val and test",
)


def picture(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (200, 100, 50)).save(file, "PNG")


def class_folders(path: Path, *splits: str) -> Path:
    for split in splits or ("",):
        picture(path / split / "happy" / "1.png", path / split / "sad" / "2.png")
    return path


def left_out(dataset: Dataset) -> dict[str, str]:
    return {one.name: one.reason for one in dataset.skipped}


def test_the_suffixes_of_pictures_are_read_or_named() -> None:
    assert not PICTURES & OTHER_PICTURES
    assert {".avif", ".gif", ".jp2", ".jfif", ".jpe", ".heic", ".heif", ".svg", ".cr2"} <= PICTURES | OTHER_PICTURES
    assert {".svg", ".cr2"} <= OTHER_PICTURES  # the tests below need some


@pytest.mark.parametrize("suffix", sorted(PICTURES))
def test_every_suffix_that_is_read_is_read_in_class_folders(suffix: str, tmp_path: Path) -> None:
    picture(class_folders(tmp_path) / "happy" / f"x{suffix.upper()}")
    assert f"happy/x{suffix.upper()}" in [item.name for item in read_dataset(tmp_path).pictures]


@pytest.mark.parametrize("suffix", sorted(OTHER_PICTURES))
def test_every_other_suffix_is_listed(suffix: str, tmp_path: Path) -> None:
    picture(class_folders(tmp_path) / "happy" / f"x{suffix}")
    assert left_out(read_dataset(tmp_path)) == {f"happy/x{suffix}": f"{suffix} is not read"}


def test_a_folder_without_a_picture_that_is_read_says_what_each_needs(tmp_path: Path) -> None:
    unread = sorted({".heic", ".hif", ".svg"} & OTHER_PICTURES)  # the former with the extra alone
    picture(*(tmp_path / "photos" / f"x{suffix.upper()}" for suffix in unread))
    heif = f"x.HEIC, x.HIF ({install_command('heif')}, or convert it to JPEG first); " if ".heic" in unread else ""
    with pytest.raises(MisuseError) as refused:
        find_faces([tmp_path / "photos"], tmp_path / "landmarks.csv")
    assert str(refused.value).endswith(
        f"photos holds no pictures in a format that is read, only {heif}x.SVG (convert it to JPEG or PNG)"
    )
    with pytest.raises(MisuseError, match=r"has no pictures that could be used \(.*\); .*convert it to JPEG"):
        read_dataset(tmp_path / "photos")
    for suffix in unread:
        with pytest.raises(MisuseError, match=r"is not read here, .*convert it") as refused:
            read_dataset(tmp_path / "photos" / f"x{suffix.upper()}")
        assert ("[heif]" in str(refused.value)) == (suffix != ".svg")


@pytest.mark.parametrize("splits", [(), ("train", "test"), ("Training", "PublicTest", "PrivateTest")])
def test_stray_pictures_do_not_make_photos_of_class_folders(splits: tuple[str, ...], tmp_path: Path) -> None:
    picture(class_folders(tmp_path, *splits) / "stray.png")
    dataset = read_dataset(tmp_path)
    assert dataset.format == "folders" and dataset.classes == ("happiness", "sadness")
    assert len(dataset.pictures) == 2 * max(1, len(splits))
    assert left_out(dataset) == {"stray.png": LOOSE}


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("Training", "train"),
        ("PublicTest", "val"),
        ("PrivateTest", "test"),
        ("VALID", "val"),
        ("testing", "test"),
        ("FER2013Train", "train"),
        ("FER2013Valid", "val"),
        ("FER2013Test", "test"),
        ("train_set", "train"),
    ],
)
def test_names_of_splits(folder: str, split: str, tmp_path: Path) -> None:
    assert {item.split for item in read_dataset(class_folders(tmp_path, folder)).pictures} == {split}


def test_each_place_where_a_picture_is_not_read_has_its_reason(tmp_path: Path) -> None:
    class_folders(tmp_path, "train")
    expected = {
        "train/3.png": LOOSE,
        "test/4.png": LOOSE,
        "cover.png": LOOSE,
        "train/happy/cropped/5.png": DEEPER,
        "other/happy/6.png": ASIDE,
        "train/happy/.7.png": "hidden",
        "__MACOSX/train/happy/._1.png": "hidden",
        "train/happy/8.CR2": ".cr2 is not read",
        "9.svg": ".svg is not read",
    }
    picture(*(tmp_path / name for name in expected))
    (tmp_path / "train" / "happy" / "notes.txt").write_text("no picture")
    dataset = read_dataset(tmp_path)
    assert [item.name for item in dataset.pictures] == ["train/happy/1.png", "train/sad/2.png"]
    assert left_out(dataset) == expected
    assert {one.detail for one in dataset.skipped if "not read" in one.reason} == {"convert it to JPEG or PNG"}


def test_class_folders_beside_a_split_without_labels_are_read(tmp_path: Path) -> None:
    picture(class_folders(tmp_path) / "test" / "1.png")
    dataset = read_dataset(tmp_path)
    assert [item.name for item in dataset.pictures] == ["happy/1.png", "sad/2.png"]
    assert left_out(dataset) == {"test/1.png": LOOSE}


def test_splits_without_class_folders_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "1.png", tmp_path / "test" / "2.png")
    with pytest.raises(MisuseError, match="needs class folders, named after expressions, right in it or in train, val and"):
        read_dataset(tmp_path)


def test_what_lies_deeper_than_photos_is_listed(tmp_path: Path) -> None:
    picture(tmp_path / "1.png", tmp_path / "album" / "2.png", tmp_path / "album" / "test" / "3.png", tmp_path / ".4.png")
    dataset = read_dataset(tmp_path)
    assert (dataset.format, [item.name for item in dataset.pictures]) == ("photos", ["1.png"])
    deeper = "in a folder of the folder"
    assert left_out(dataset) == {".4.png": "hidden", "album/2.png": deeper, "album/test/3.png": deeper}


def test_pictures_of_one_kind_that_is_not_read_are_no_unknown_format(tmp_path: Path) -> None:
    picture(tmp_path / "a.CR2", tmp_path / "b.cr2")
    with pytest.raises(MisuseError, match=r"no pictures that could be used \(.cr2 is not read: 2\); convert it to JPEG"):
        read_dataset(tmp_path)
    with pytest.raises(MisuseError, match=r"a.CR2: .cr2 is not read here, convert it to JPEG or PNG"):
        read_dataset(tmp_path / "a.CR2")


def test_pictures_that_a_list_does_not_name_are_listed(tmp_path: Path) -> None:
    aligned, original = tmp_path / "Image" / "aligned", tmp_path / "Image" / "original"
    picture(aligned / "train_00001_aligned.jpg", aligned / "train_00002_aligned.jpg", original / "train_00001.jpg")
    (tmp_path / "EmoLabel").mkdir()
    (tmp_path / "EmoLabel" / "list_patition_label.txt").write_text("train_00001.jpg 5\n")
    reason = "not among the aligned pictures of list_patition_label.txt"
    assert left_out(read_dataset(tmp_path)) == {
        "Image/aligned/train_00002_aligned.jpg": reason,
        "Image/original/train_00001.jpg": reason,
    }


NAMES = ["happy", "sad", "train", "test", "data", ".cache"]


@given(st.sets(st.lists(st.sampled_from(NAMES), max_size=3).map(tuple), min_size=1, max_size=6), st.data())
def test_every_picture_is_read_or_listed_whatever_the_layout(
    tmp_path_factory: pytest.TempPathFactory, places: set[tuple[str, ...]], data: st.DataObject
) -> None:
    top = tmp_path_factory.mktemp("set")
    suffixes = st.sampled_from([".png", ".JPG", ".svg"])
    made = sorted("/".join((*place, f"x{data.draw(suffixes)}")) for place in places)
    for name in made:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
    try:
        dataset = read_dataset(top)
    except MisuseError as error:
        assert len(str(error).replace(str(top), "")) < 300
    else:
        found = [item.name for item in dataset.pictures] + [one.name for one in dataset.skipped]
        assert sorted(found) == made
        assert all(one.reason for one in dataset.skipped)
    finally:
        shutil.rmtree(top)


def test_links_are_followed_and_rings_of_them_end(tmp_path: Path) -> None:
    path = class_folders(tmp_path / "real")
    picture(path / "happy" / "deeper" / "3.png")
    (tmp_path / "set").mkdir()
    for name in ("happy", "sad"):
        (tmp_path / "set" / name).symlink_to(path / name)
    (path / "sad" / "ring").symlink_to(path)
    dataset = read_dataset(tmp_path / "set")
    assert [item.name for item in dataset.pictures] == ["happy/1.png", "sad/2.png"]
    assert left_out(dataset) == {"happy/deeper/3.png": DEEPER}


def test_what_prepare_wrote_is_no_part_of_the_data_set_that_it_lies_in(tmp_path: Path) -> None:
    class_folders(tmp_path)
    for number, mark in enumerate((JOURNAL, SKIPPED)):
        picture(tmp_path / f"out{number}" / "images" / "1.png")
        (tmp_path / f"out{number}" / mark).touch()
    (tmp_path / "sad" / "skipped.csv").touch()  # of the user's, who has no images/ there
    dataset = read_dataset(tmp_path)
    assert [item.name for item in dataset.pictures] == ["happy/1.png", "sad/2.png"] and not dataset.skipped
    (tmp_path / JOURNAL).touch()  # unfinished, right in the data set
    picture(tmp_path / "images" / "1.png")
    assert read_dataset(tmp_path) == dataset


def test_prepare_lists_what_the_reader_left_out_and_counts_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    points = np.array([[14, 16], [26, 16], [20, 24], [15, 31], [25, 31]], np.float32)
    given_ones = [Picture(f"{i}.png", "anger", "val", pixels=pixels, landmarks=points) for i in range(2)]
    unread = [Skipped(f"test/{i}.png", LOOSE) for i in range(3)] + [Skipped("a.svg", ".svg is not read", "convert it")]
    result = prepare(given_ones, tmp_path / "out", crop=False, workers=1, skipped=unread)
    assert result.skipped == {LOOSE: 3, ".svg is not read": 1}
    with open(tmp_path / "out" / "skipped.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["file"], row["reason"], row["detail"]) for row in rows] == [one[:3] for one in unread]


@pytest.mark.slow
@needs_yunet
def test_the_command_counts_by_reason_and_a_stray_picture_changes_nothing(tmp_path: Path) -> None:
    faces = sorted(FACES.glob("*.jpg"))[:2]
    for name, face in zip(("Training/happy", "Training/sad"), faces, strict=True):
        (tmp_path / "set" / name).mkdir(parents=True)
        shutil.copy(face, tmp_path / "set" / name / face.name)
    picture(*(tmp_path / "set" / "PrivateTest" / f"{i}.png" for i in range(3)), tmp_path / "set" / "stray.png")
    (tmp_path / "set" / "Training" / "sad" / "a.SVG").touch()
    prepare_set = ("prepare", tmp_path / "set", "--detector", YUNET, "--workers", 1)
    result = succeeds(*prepare_set, "-o", tmp_path / "set" / "out")  # in the data set itself
    assert "faces.csv: 2 faces" in result.stdout
    assert f"skipped: 4, {LOOSE}" in result.stderr and "skipped: 1, .svg is not read" in result.stderr
    with open(tmp_path / "set" / "out" / "skipped.csv", newline="", encoding="utf-8") as stream:
        assert Counter(row["reason"] for row in csv.DictReader(stream)) == {LOOSE: 4, ".svg is not read": 1}
    assert "faces.csv: 2 faces" in succeeds(*prepare_set, "-o", tmp_path / "set" / "out", "--force").stdout
    os.rename(tmp_path / "set" / "Training" / "happy", tmp_path / "set" / "Training" / "3")
    os.rename(tmp_path / "set" / "Training" / "sad", tmp_path / "set" / "Training" / "4")
    fails(2, "a number alone names no class", *prepare_set, "-o", tmp_path / "b")
    named = succeeds(*prepare_set, "-o", tmp_path / "b", "--format", "fer2013")
    assert "note: The class folders in" in named.stderr and "3 = happiness, 4 = sadness" in named.stderr
    with open(tmp_path / "b" / "faces.csv", newline="", encoding="utf-8") as stream:
        assert [row["label"] for row in csv.DictReader(stream)] == ["happiness", "sadness"]
    fails(2, "leave out --classes", *prepare_set, "-o", tmp_path / "c", "--format", "fer2013", "--classes", "rafdb")
    assert not (tmp_path / "c").exists()


def test_only_pictures_are_looked_for(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.PNG", tmp_path / "2.jpg")
    (tmp_path / "png").touch()
    (tmp_path / "x.txt").touch()
    assert [file.name for file in all_pictures(tmp_path)] == ["2.jpg", "1.PNG"]
