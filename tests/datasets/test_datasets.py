"""Tiny data sets in exactly the layouts in which they are published, and each again with one thing wrong."""

from __future__ import annotations

import io
import os
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from picture_file import picture

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.datasets.affectnet import five_points
from ampnet_opt.datasets.ferplus import majority
from ampnet_opt.datasets.labelled_picture import Dataset, Skipped
from ampnet_opt.datasets.npy import load_npy
from ampnet_opt.datasets.registry import FORMATS, read_dataset
from ampnet_opt.faces.face import COLUMNS

POINTS = np.array([[65, 80], [156, 73], [113, 130], [93, 157], [134, 152]], np.float32)
FACES_CSV = ",".join(["file", "label", "split", *COLUMNS])


def write(file: Path, *lines: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))


def rows(dataset: Dataset) -> list[tuple[str, str, str]]:
    return [(picture.name, picture.label, picture.split) for picture in dataset.pictures]


def rafdb(path: Path, images: str = "Image/aligned", lists: str = "EmoLabel") -> Path:
    write(path / lists / "list_patition_label.txt", "train_00001.jpg 5", "train_00002.jpg 1", "test_0001.jpg 7")
    for name in ("train_00001", "train_00002", "test_0001"):
        picture(path / images / f"{name}_aligned.jpg")
    return path


def npy_of_rows(file: Path, names: list[str]) -> None:
    """As numpy.save of the authors' list of [name, array] writes it with the numpy of their time."""
    table = np.empty((len(names), 2), object)
    for i, name in enumerate(names):
        table[i, 0], table[i, 1] = name, POINTS + i
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, table, allow_pickle=True)


def authors(path: Path) -> Path:
    write(path / "index" / "data_label.txt", "train_00001.jpg 5", "train_00002.jpg 1", "test_0001.jpg 7")
    npy_of_rows(path / "index" / "land_marks.npy", ["train_00001_aligned.jpg", "test_0001.jpg"])
    picture(path / "dataset" / "train_00001_aligned.jpg", 224)
    picture(path / "dataset" / "test_0001_aligned.jpg", 112)
    return path


def fer2013(path: Path, count: int = 4) -> Path:
    usages = ["Training", "Training", "PublicTest", "PrivateTest", "Training", "Training"]
    lines = [f"{i},{' '.join([str(i)] * 2303 + ['255'])},{usages[i]}" for i in range(count)]
    write(path / "fer2013.csv", "emotion,pixels,Usage", *lines)
    return path


VOTES = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"


def ferplus(path: Path) -> Path:
    fer2013(path, 6)
    write(
        path / "fer2013new.csv",
        VOTES,
        "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0",  # 4 of the 9 that are left: no majority
        "Training,,0,0,0,0,0,0,0,0,0,10",
        "PublicTest,fer0000001.png,1,0,0,0,1,1,1,5,1,0",  # 5 of 5
        "PrivateTest,fer0000002.png,0,5,5,0,0,0,0,0,0,0",
        "Training,fer0000003.png,0,0,0,0,0,0,2,0,8,0",
        "Training,fer0000004.png,0,0,6,0,0,0,3,1,0,0",
    )
    return path


def affectnet(path: Path, labels: tuple[int, ...] = (0, 7, 3)) -> Path:
    for i, label in enumerate(labels):
        part = path / ("val_set" if i == 2 else "train_set")
        picture(part / "images" / f"{i}.jpg")
        (part / "annotations").mkdir(exist_ok=True)
        np.save(part / "annotations" / f"{i}_exp.npy", np.array(str(label)) if i else np.array(label))
        if i == 0:
            np.save(part / "annotations" / f"{i}_lnd.npy", np.arange(136, dtype=np.float64))
    return path


def folders(path: Path) -> Path:
    for place in ("train/happy/1.jpg", "train/Angry/2.jpg", "validation/happy/3.jpg", "test/fear/4.PNG"):
        picture(path / place)
    return path


def csv_table(path: Path) -> Path:
    for i in range(2):
        picture(path / "images" / f"{i}.png")
    points = ",".join(["10"] * 10)
    write(path / "faces.csv", FACES_CSV, f"0.png,sadness,train,{points}", f"1.png,anger,validation,{points}")
    return path


def photos(path: Path) -> Path:
    for name in ("b.jpg", "a.png", "deeper/c.jpg", "._b.jpg"):
        picture(path / name)
    write(path / "notes.txt", "no picture")
    return path


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "authors": authors,
    "rafdb": rafdb,
    "ferplus": ferplus,
    "fer2013": fer2013,
    "csv": csv_table,
    "affectnet": affectnet,
    "folders": folders,
    "photos": photos,
}


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_detected_and_readable_by_its_name(format: str, tmp_path: Path) -> None:
    path = BUILDERS[format](tmp_path)
    dataset = read_dataset(path)
    assert dataset.format == format
    assert [p.name for p in dataset.pictures] == [p.name for p in read_dataset(path, format).pictures]
    assert {p.label for p in dataset.pictures} - {""} <= set(dataset.classes)
    for item in dataset.pictures:
        image = item.image()
        assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
        assert item.split in ("", "train", "val", "test") and "\\" not in item.name


@pytest.mark.parametrize(
    ("images", "lists"),
    [("Image/aligned", "EmoLabel"), ("basic/Image/aligned", "basic/EmoLabel"), (".", "."), ("basic", "basic")],
)
def test_rafdb(images: str, lists: str, tmp_path: Path) -> None:
    dataset = read_dataset(rafdb(tmp_path, images, lists))
    assert dataset.classes == PRESETS["rafdb"]
    assert rows(dataset) == [
        ("train_00001.jpg", "sadness", "train"),
        ("train_00002.jpg", "surprise", "train"),
        ("test_0001.jpg", "neutral", "test"),
    ]
    assert dataset.pictures[2].file == tmp_path / images / "test_0001_aligned.jpg"


@pytest.mark.parametrize("inside", ["", "DATASET"])
def test_rafdb_in_numbered_folders_with_its_tables(inside: str, tmp_path: Path) -> None:
    names = {"train": ("train_00001_aligned.jpg", 5), "test": ("test_0001_aligned.jpg", 7)}
    for split, (name, number) in names.items():
        picture(tmp_path / inside / split / str(number) / name)
        write(tmp_path / f"{split}_labels.csv", "image,label", f"{name},{number}")
    picture(tmp_path / inside / "train" / "2" / "train_00009_aligned.jpg")
    dataset = read_dataset(tmp_path)
    top = f"{inside}/" if inside else ""
    assert (dataset.format, dataset.classes) == ("rafdb", PRESETS["rafdb"])
    assert rows(dataset) == [
        (f"{top}train/5/train_00001_aligned.jpg", "sadness", "train"),
        (f"{top}test/7/test_0001_aligned.jpg", "neutral", "test"),
    ]
    assert dataset.skipped == (
        Skipped(f"{top}train/2/train_00009_aligned.jpg", "no row in train_labels.csv or test_labels.csv"),
    )
    write(tmp_path / "train_labels.csv", "image,label", "train_00001_aligned.jpg,4")  # which is not the folder it lies in
    with pytest.raises(MisuseError, match=r"1 of them cannot be found, first train/4/train_00001_aligned.jpg"):
        read_dataset(tmp_path)
    for table in tmp_path.glob("*.csv"):  # tables of another data set tell nothing
        write(table, "image,label", "1.jpg,4")
    with pytest.raises(MisuseError, match="number alone names no class" if not inside else "not named after expressions"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("inside", ["", "index"])
def test_authors_index(inside: str, tmp_path: Path) -> None:
    dataset = read_dataset(authors(tmp_path) / inside, "authors")
    assert rows(dataset) == [("train_00001.jpg", "sadness", "train"), ("test_0001.jpg", "neutral", "test")]
    first, last = dataset.pictures
    assert first.landmarks is not None and last.landmarks is not None
    assert first.landmarks.dtype == np.float32
    np.testing.assert_array_equal(first.landmarks, POINTS)
    np.testing.assert_allclose(last.landmarks, (POINTS + 1) / 2)  # its picture is not 224 but 112 pixels wide
    assert dataset.skipped == (Skipped("train_00002.jpg", "neither a file nor landmarks"),)


def test_authors_landmarks_in_other_shapes(tmp_path: Path) -> None:
    authors(tmp_path)
    picture(tmp_path / "dataset" / "train_00002.jpg", 224)
    table = tmp_path / "index" / "land_marks.npy"
    numbers = np.arange(30, dtype=np.int32).reshape(3, 10)
    names = ("train_00001.jpg", "train_00002_aligned.jpg", "test_0001.jpg")
    by_name = {name: row.reshape(5, 2).tolist() for name, row in zip(names, numbers, strict=True)}
    as_scalars = {name: [np.float32(x) for x in row] for name, row in zip(names, numbers, strict=True)}
    for content in (numbers, numbers.reshape(3, 5, 2), by_name, as_scalars):
        np.save(table, np.array(content))
        pictures = read_dataset(tmp_path).pictures
        for item, row, scale in zip(pictures, numbers, (1, 1, 0.5), strict=True):
            assert item.landmarks is not None
            np.testing.assert_allclose(item.landmarks, row.reshape(5, 2) * scale)
    np.save(table, np.array({names[0]: POINTS}))
    dataset = read_dataset(tmp_path)
    assert [item.landmarks is None for item in dataset.pictures] == [False, True, True]
    assert dataset.notes == ("land_marks.npy has no landmarks for 2 of 3 pictures.",)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_pickled_arrays_of_every_protocol_are_read(protocol: int, order: Literal["C", "F"], tmp_path: Path) -> None:
    inner = [
        np.asarray(POINTS, order=order),
        POINTS.astype(">f8"),
        np.array(["a", "bc"]),
        np.float64(2.5),
        [1, (2,)],
        {"k": 3},
    ]
    table = np.empty((3, 2), object, order)
    for place, item in zip(np.ndindex(3, 2), inner, strict=True):
        table[place] = item
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(table))
    pickle.dump(table, stream, protocol)
    (tmp_path / "x.npy").write_bytes(np.lib.format.magic(1, 0) + stream.getvalue().removeprefix(np.lib.format.magic(1, 0)))
    found = load_npy(tmp_path / "x.npy", "table")
    assert found.shape == (3, 2)
    np.testing.assert_array_equal(np.asarray(found[0, 0]), POINTS)
    np.testing.assert_array_equal(np.asarray(found[0, 1]), POINTS)
    assert np.asarray(found[1, 0]).tolist() == ["a", "bc"] and found[1, 1] == 2.5
    assert found[2].tolist() == [[1, (2,)], {"k": 3}]


class Reduced:
    """Is pickled as a call: what is called, with which arguments, and the state that the result is given."""

    def __init__(self, called: object, arguments: tuple[object, ...], *state: object) -> None:
        self.parts = called, arguments, *state

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ((os.system, "touch {}"), r"(posix|nt)\.system"),
        ((open, "{}", "w"), r"_?io\.open"),  # named otherwise since Python 3.12
        ((eval, "open('{}', 'w')"), r"builtins\.eval"),
        ((getattr, "{}", "upper"), r"builtins\.getattr"),
        ((np.fromfile, "{}"), r"numpy.*fromfile"),
    ],
    ids=lambda value: None if isinstance(value, str) else value[0].__name__,
)
def test_npy_that_asks_for_code_is_refused_and_nothing_runs(call: tuple[object, ...], name: str, tmp_path: Path) -> None:
    authors(tmp_path)
    proof = tmp_path / "proof"
    arguments = [str(argument).format(proof) for argument in call[1:]]
    table = np.empty((1, 2), object)
    table[0, 0], table[0, 1] = "train_00001.jpg", Reduced(call[0], tuple(arguments))
    np.save(tmp_path / "index" / "land_marks.npy", table)
    with pytest.raises(MisuseError, match=rf"land_marks\.npy is refused: its pickle asks for {name}"):
        read_dataset(tmp_path)
    assert not proof.exists()


def pickled(content: bytes) -> bytes:
    """An array of one object whose pickle is `content`."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    return stream.getvalue() + content


def array_pickle(code: str, data: object) -> bytes:
    """The pickle of an array [1] of `code` whose dtype claims to hold no objects, which numpy's own reader believes."""
    dtype = Reduced(np.dtype, (code, False, True), (3, "|", None, None, None, -1, -1, 0))
    rebuild = np.empty(0).__reduce__()[0]
    return pickle.dumps(Reduced(rebuild, (np.ndarray, (0,), b"b"), (1, (1,), dtype, False, data)), 3)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no array",
        pickled(b""),
        pickled(pickle.dumps([1])),
        pickled(pickle.dumps(np.empty(2, object))),
        pickled(array_pickle("O8", struct.pack("<Q", 0xDEADBEEF))),  # bytes that would be taken for an address
        pickled(array_pickle("f8", b"short")),
        pickled(array_pickle("V8", b"12345678")),
        pickled(array_pickle("f8,O", b"1" * 16)),
        pickled(
            b"\x80\x03cnumpy\ndtype\nX\x02\x00\x00\x00f8}X\x04\x00\x00\x00kindK\x01s\x86b."
        ),  # state for the class itself
        pickled(b"(" * 100000),
    ],
    ids=range(11),
)
def test_damaged_npy(content: bytes, tmp_path: Path) -> None:
    (authors(tmp_path) / "index" / "land_marks.npy").write_bytes(content)
    with pytest.raises(
        MisuseError, match=r"landmarks file .*land_marks\.npy (cannot be read|does not hold pairs)"
    ) as caught:
        read_dataset(tmp_path)
    assert "\n" not in str(caught.value)


def test_fer2013(tmp_path: Path) -> None:
    dataset = read_dataset(fer2013(tmp_path))
    assert dataset.classes == PRESETS["fer2013"]
    assert rows(dataset) == [
        ("fer2013-00000", "anger", "train"),
        ("fer2013-00001", "disgust", "train"),
        ("fer2013-00002", "fear", "val"),
        ("fer2013-00003", "happiness", "test"),
    ]
    image = dataset.pictures[3].image()
    assert image.shape == (48, 48, 3) and set(image[:-1].flat) == {3} and image[-1, -1].tolist() == [255] * 3


def test_ferplus_counts_votes_as_its_authors_do(tmp_path: Path) -> None:
    dataset = read_dataset(ferplus(tmp_path))
    assert (dataset.format, dataset.classes) == ("ferplus", PRESETS["ferplus"])
    assert rows(dataset) == [("fer2013-00002", "contempt", "val"), ("fer2013-00005", "surprise", "train")]
    assert dataset.pictures[1].image()[0, 0].tolist() == [5] * 3  # the pixels of the same row, whatever its name says
    assert dataset.skipped == (
        Skipped("fer2013-00000", "no majority"),
        Skipped("fer2013-00001", "no name in FER+"),
        Skipped("fer2013-00003", "no majority"),
        Skipped("fer2013-00004", "unknown by majority"),
    )
    assert [p.label for p in read_dataset(tmp_path, "fer2013").pictures] == list(PRESETS["fer2013"][:6])
    assert read_dataset(tmp_path / "fer2013.csv").format == "fer2013"
    assert read_dataset(tmp_path / "fer2013new.csv").format == "ferplus"


def ferplus_folders(path: Path) -> Path:
    """As generate_training_data.py of FER+ writes them."""
    for folder, name in (("FER2013Train", "fer0000000"), ("FER2013Train", "fer0000002"), ("FER2013Test", "fer0035801")):
        picture(path / folder / f"{name}.png", 48)
    write(
        path / "FER2013Train" / "label.csv",
        'fer0000000.png,"(0, 0, 48, 48)",4,0,0,1,3,2,0,0,0,0',
        'fer0000002.png,"(0, 0, 48, 48)",1,0,0,0,1,1,1,5,1,0',
    )
    write(path / "FER2013Test" / "label.csv", 'fer0035801.png,"(0, 0, 48, 48)",0,8,0,0,0,0,0,0,2,0')
    return path


@pytest.mark.parametrize("inside", ["", "data"])  # as made, and in a clone of the authors' repository
def test_ferplus_in_folders(inside: str, tmp_path: Path) -> None:
    ferplus_folders(tmp_path / inside)
    picture(tmp_path / inside / "FER2013Train" / "stray.png")
    dataset = read_dataset(tmp_path)
    top = f"{inside}/" if inside else ""
    assert (dataset.format, dataset.classes) == ("ferplus", PRESETS["ferplus"])
    assert rows(dataset) == [
        (f"{top}FER2013Train/fer0000002.png", "contempt", "train"),
        (f"{top}FER2013Test/fer0035801.png", "happiness", "test"),
    ]
    assert dataset.skipped == (
        Skipped(f"{top}FER2013Train/fer0000000.png", "no majority", file=tmp_path / top / "FER2013Train" / "fer0000000.png"),
        Skipped(f"{top}FER2013Train/stray.png", "no row in label.csv"),
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('gone.png,"(0, 0, 48, 48)",0,8,0,0,0,0,0,0,2,0', "names 1 picture, but 1 of them cannot be found, first gone.png"),
        ("fer0035801.png,0,8,0,0,0,0,0,0,2,0", "line 1: a file, a box and 10 votes are needed, found 11 values"),
        ('fer0035801.png,"(0, 0, 48, 48)",x,8,0,0,0,0,0,0,2,0', "line 1: votes for neutral is 'x'"),
        ('../fer0035801.png,"(0, 0, 48, 48)",0,8,0,0,0,0,0,0,2,0', "is not the name of a picture beside the list"),
    ],
)
def test_a_bad_line_of_ferplus_in_folders(line: str, message: str, tmp_path: Path) -> None:
    write(ferplus_folders(tmp_path) / "FER2013Test" / "label.csv", line)
    with pytest.raises(MisuseError, match=message):
        read_dataset(tmp_path)


@pytest.mark.parametrize("head", ["emotion, Usage, pixels", "emotion ,Usage,pixels ", "Usage,pixels,emotion"])
def test_fer2013_as_the_contest_publishes_it(head: str, tmp_path: Path) -> None:
    values = {"emotion": "3", "Usage": "PrivateTest", "pixels": " ".join(["9"] * 2304)}
    write(tmp_path / "icml_face_data.csv", head, ",".join(values[name.strip()] for name in head.split(",")))
    for path in (tmp_path, tmp_path / "icml_face_data.csv"):
        dataset = read_dataset(path)
        assert dataset.format == "fer2013" and rows(dataset) == [("fer2013-00000", "happiness", "test")]
    (tmp_path / "icml_face_data.csv").rename(tmp_path / "other.csv")
    if head.startswith("emotion,"):
        with pytest.raises(MisuseError, match=r"has FER-2013's columns.*--format fer2013"):
            read_dataset(tmp_path / "other.csv")
    assert rows(read_dataset(tmp_path / "other.csv", "fer2013")) == rows(dataset)


@pytest.mark.parametrize(
    ("votes", "winner"),
    [
        ({"anger": 10}, "anger"),
        ({"anger": 2, "fear": 1, "neutral": 1, "sadness": 1}, "anger"),  # single votes are outliers
        ({"anger": 5, "fear": 5}, ""),
        ({"anger": 4, "fear": 2, "neutral": 2}, ""),  # just half
        ({"anger": 3, "fear": 2, "NF": 7}, "NF"),
        ({"anger": 1, "fear": 1}, ""),
        ({}, ""),
    ],
)
def test_majority(votes: dict[str, int], winner: str) -> None:
    assert majority(votes) == winner


def test_affectnet_as_published(tmp_path: Path) -> None:
    dataset = read_dataset(affectnet(tmp_path))
    assert dataset.classes == PRESETS["affectnet8"]
    assert rows(dataset) == [
        ("train_set/images/0.jpg", "neutral", "train"),
        ("train_set/images/1.jpg", "contempt", "train"),
        ("val_set/images/2.jpg", "surprise", "val"),
    ]
    points = dataset.pictures[0].landmarks
    assert points is not None and points.dtype == np.float32
    # point i of the file is (2i, 2i + 1)
    assert points.tolist() == [[77, 78], [89, 90], [60, 61], [96, 97], [108, 109]]
    assert dataset.pictures[1].landmarks is None
    picture(tmp_path / "train_set" / "images" / "9.jpg")
    assert read_dataset(tmp_path).skipped == (Skipped("train_set/images/9.jpg", "no annotation N_exp.npy"),)


def test_affectnet_of_seven_classes(tmp_path: Path) -> None:
    assert read_dataset(affectnet(tmp_path, (0, 6, 3))).classes == PRESETS["affectnet7"]


def test_five_points_are_those_of_the_face() -> None:
    points = np.zeros((68, 2))
    points[36:42] = [[2, 5], [3, 4], [4, 4], [5, 5], [4, 6], [3, 6]]  # around an eye at (3.5, 5)
    points[42:48] = points[36:42] + np.array([10, 1])
    points[30], points[48], points[54] = (8, 10), (5, 14), (12, 15)
    assert five_points(points).tolist() == [[3.5, 5], [13.5, 6], [8, 10], [5, 14], [12, 15]]


def test_class_folders(tmp_path: Path) -> None:
    folders(tmp_path)
    (tmp_path / "train" / "sad").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "train" / ".cache").mkdir()
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("anger", "fear", "happiness")
    assert rows(dataset) == [
        ("test/fear/4.PNG", "fear", "test"),
        ("train/Angry/2.jpg", "anger", "train"),
        ("train/happy/1.jpg", "happiness", "train"),
        ("validation/happy/3.jpg", "happiness", "val"),
    ]
    assert dataset.notes == (
        "1 folder beside train, val and test left out: models.",
        "1 class folder without pictures: train/sad.",
    )


def test_class_folders_without_splits(tmp_path: Path) -> None:
    picture(tmp_path / "fearful" / "1.jpg")
    picture(tmp_path / "Neutral" / "1.jpg")
    dataset = read_dataset(tmp_path)
    assert rows(dataset) == [("Neutral/1.jpg", "neutral", ""), ("fearful/1.jpg", "fear", "")]


def test_our_table(tmp_path: Path) -> None:
    for path in (csv_table(tmp_path), tmp_path / "faces.csv"):
        dataset = read_dataset(path)
        assert rows(dataset) == [("0.png", "sadness", "train"), ("1.png", "anger", "val")]
        assert dataset.classes == ("anger", "sadness")
        assert all(p.landmarks is not None and p.landmarks.tolist() == [[10, 10]] * 5 for p in dataset.pictures)
    write(tmp_path / "plain.csv", ",".join(["file", *COLUMNS]), "1.png," + ",".join(["3"] * 10))
    dataset = read_dataset(tmp_path / "plain.csv")
    assert rows(dataset) == [("1.png", "", "")] and dataset.classes == ()


def test_photos(tmp_path: Path) -> None:
    assert rows(read_dataset(photos(tmp_path))) == [("a.png", "", ""), ("b.jpg", "", "")]
    dataset = read_dataset(tmp_path / "b.jpg")
    assert (dataset.format, dataset.classes, rows(dataset)) == ("photos", (), [("b.jpg", "", "")])


def test_format_by_name_takes_the_other_reader(tmp_path: Path) -> None:
    authors(rafdb(tmp_path))
    assert read_dataset(tmp_path).format == "authors"
    assert read_dataset(tmp_path, "rafdb").format == "rafdb"
    assert rows(read_dataset(photos(tmp_path), "photos"))[0][0] == "a.png"


def replace_line(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        text = (path / name).read_text()
        assert old in text
        (path / name).write_text(text.replace(old, new, 1))

    return change


def remove(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).unlink()


def save(name: str, content: object) -> Callable[[Path], None]:
    return lambda path: np.save(path / name, np.asarray(content))


def emptied(path: Path) -> None:
    for file in [*path.rglob("*.jpg"), *path.rglob("*.PNG")]:
        file.unlink()


RAF = "EmoLabel/list_patition_label.txt"
ONE_EXP, ONE_LND = "train_set/annotations/0_exp.npy", "train_set/annotations/0_lnd.npy"
LANDMARKS = "index/land_marks.npy"
BAD = [
    ("rafdb", remove(RAF), "holds no list of RAF-DB: there is no EmoLabel/list_patition_label.txt or list_pat"),
    ("rafdb", replace_line(RAF, ".jpg 1", ".jpg 8"), f"{RAF}, line 2: the label is '8', allowed is 1 to 7"),
    ("rafdb", replace_line(RAF, ".jpg 1", ".jpg x"), "line 2: the label is 'x', allowed is 1 to 7"),
    (
        "rafdb",
        replace_line(RAF, ".jpg 1", ".jpg"),
        "line 2: a picture's name and a label are needed, found 'train_00002.jpg'",
    ),
    ("rafdb", replace_line(RAF, "test_", "other_"), "line 3: other_0001.jpg begins neither with train_ nor with test_"),
    ("rafdb", replace_line(RAF, "train_00002", "train_00001"), "names train_00001.jpg 2 times"),
    (
        "rafdb",
        remove("Image/aligned/train_00002_aligned.jpg"),
        "names 3 pictures, but 1 of them cannot be found, first train_00002.jpg",
    ),
    ("rafdb", emptied, "names 3 pictures, but 3 of them cannot be found, first train_00001.jpg"),
    ("rafdb", lambda path: (path / RAF).write_bytes(b""), "list_patition_label.txt is empty"),
    ("rafdb", lambda path: (path / RAF).write_bytes(b"\xff\xfe"), "list_patition_label.txt is not readable text"),
    ("authors", remove("index/data_label.txt"), "holds no list of AMP-Net's authors"),
    ("authors", remove(LANDMARKS), "index holds no landmarks of AMP-Net's authors: there is no land_marks.npy"),
    (
        "authors",
        remove("dataset/train_00001_aligned.jpg"),
        "names 3 pictures, but 1 of them cannot be found, first train_00001.jpg",
    ),
    ("authors", emptied, "names 3 pictures, but 3 of them"),
    ("authors", save(LANDMARKS, np.zeros((2, 5, 2))), r"shape \[2, 5, 2\]; data_label.txt has 3 lines"),
    ("authors", save(LANDMARKS, np.zeros((3, 68, 2))), r"shape \[3, 68, 2\]"),
    ("authors", save(LANDMARKS, np.full((3, 10), np.nan)), "train_00001.jpg does not have five finite points"),
    ("authors", save(LANDMARKS, {"train_00001.jpg": [1, 2]}), "train_00001.jpg does not have five finite points"),
    ("authors", save(LANDMARKS, {"train_00001.jpg": "points"}), "train_00001.jpg does not have five finite points"),
    ("authors", save(LANDMARKS, {1: POINTS}), "cannot be read as a .npy file: one of its keys is no text"),
    ("fer2013", remove("fer2013.csv"), "holds no FER-2013: there is no fer2013.csv"),
    ("fer2013", replace_line("fer2013.csv", "pixels", "pixel"), "fer2013.csv has no column pixels"),
    ("fer2013", replace_line("fer2013.csv", "\n2,", "\n7,"), "line 4: emotion is '7', allowed is 0 to 6"),
    ("fer2013", replace_line("fer2013.csv", "PublicTest", "Public"), "line 4: Usage is 'Public', allowed are Training, Pub"),
    ("fer2013", replace_line("fer2013.csv", " 1 ", " "), "line 3: there are 2303 pixels, 48 x 48 = 2304 are needed"),
    ("fer2013", replace_line("fer2013.csv", " 1 ", " 256 "), "line 3: pixels are not all whole numbers of 0 to 255"),
    ("fer2013", replace_line("fer2013.csv", " 1 ", " -1 "), "line 3: pixels are not all whole numbers of 0 to 255"),
    ("fer2013", replace_line("fer2013.csv", " 1 ", " 1.5 "), "line 3: pixels are not all whole numbers of 0 to 255"),
    ("fer2013", replace_line("fer2013.csv", " 255,", " 255 x,"), "line 2: pixels are not all whole numbers of 0 to 255"),
    ("fer2013", replace_line("fer2013.csv", ",PublicTest", ""), "line 4: the row has not as many values"),
    ("fer2013", lambda path: write(path / "fer2013.csv", "emotion,pixels,Usage"), "fer2013.csv has no rows"),
    ("fer2013", lambda path: (path / "fer2013.csv").write_bytes(b"\xff\xfe"), "is not a readable CSV file"),
    ("ferplus", remove("fer2013new.csv"), "holds no FER\\+: there is no fer2013new.csv"),
    ("ferplus", remove("fer2013.csv"), "holds no pictures for fer2013new.csv, .* there is no fer2013.csv"),
    ("ferplus", replace_line("fer2013new.csv", "contempt,", ""), "fer2013new.csv has no column contempt"),
    ("ferplus", replace_line("fer2013new.csv", ",4,0,0,1", ",4,x,0,1"), "line 2: votes for happiness is 'x', allowed is 0"),
    (
        "ferplus",
        replace_line("fer2013new.csv", "Training,,", "PublicTest,,"),
        "line 3: Usage is PublicTest, but train in the",
    ),
    ("ferplus", replace_line("fer2013new.csv", "Training,,0,0,0,0,0,0,0,0,0,10\n", ""), "has 5 rows, but .* has 6"),
    ("affectnet", save(ONE_EXP, 8), "0_exp.npy: the label is '8', allowed is 0 to 7"),
    ("affectnet", save(ONE_EXP, "joy"), "0_exp.npy: the label is 'joy', allowed is 0 to 7"),
    ("affectnet", save(ONE_EXP, [1, 2]), r"0_exp.npy has the shape \[2\]; one label is needed"),
    ("affectnet", save(ONE_LND, np.zeros(10)), r"0_lnd.npy has the shape \[10\]; 68 points are needed"),
    ("affectnet", save(ONE_LND, np.full(136, np.inf)), "0_lnd.npy has points that are not finite"),
    ("affectnet", save(ONE_LND, np.full(136, "x")), "0_lnd.npy has points that are not finite"),
    (
        "affectnet",
        lambda path: (path / ONE_LND).write_bytes(b"\x93NUMPY"),
        "annotation .*0_lnd.npy cannot be read as a .npy",
    ),
    (
        "affectnet",
        remove("train_set/images/1.jpg"),
        "annotations names 2 pictures, but 1 of them cannot be found, first 1.jpg",
    ),
    ("folders", emptied, "the class folders in .* hold no pictures, all 4 are empty"),
    ("csv", remove("faces.csv"), "holds no table of faces: there is no faces.csv"),
    ("csv", remove("images/1.png"), "names an image that does not exist"),
    ("csv", replace_line("faces.csv", "nose_x", "n"), "faces.csv has no column nose_x"),
    ("csv", replace_line("faces.csv", "train", "calibration"), "rows of split calibration, allowed are train, val"),
    ("photos", emptied, "holds no pictures"),
]


@pytest.mark.parametrize(("format", "damage", "message"), BAD, ids=[f"{i}-{bad[0]}" for i, bad in enumerate(BAD)])
def test_bad_data_is_one_sentence(format: str, damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    path = BUILDERS[format](tmp_path)
    if format == "photos":
        (path / "a.png").unlink()
    damage(path)
    with pytest.raises(MisuseError, match=message) as caught:
        read_dataset(path, format)
    assert "\n" not in str(caught.value) and len(str(caught.value).replace(str(tmp_path), "")) < 250


def test_empty_annotations(tmp_path: Path) -> None:
    (tmp_path / "val_set" / "annotations").mkdir(parents=True)
    with pytest.raises(MisuseError, match=re.escape("there is no folder val_set/images")):
        read_dataset(tmp_path)


def test_what_is_no_data_set(tmp_path: Path) -> None:
    known = ", ".join(FORMATS)
    with pytest.raises(MisuseError, match=f"is in no format that is known here: {known}"):
        read_dataset(tmp_path)
    (tmp_path / "only").mkdir()
    with pytest.raises(MisuseError, match=r"the class folders in .* hold no pictures, all 1 are empty"):
        read_dataset(tmp_path, "folders")
    write(tmp_path / "notes.txt", "words")
    with pytest.raises(MisuseError, match="is in no format"):
        read_dataset(tmp_path / "notes.txt")
    with pytest.raises(MisuseError, match=r"notes.txt is no picture \(.apng"):
        read_dataset(tmp_path / "notes.txt", "photos")
    with pytest.raises(MisuseError, match="gone does not exist"):
        read_dataset(tmp_path / "gone")
    with pytest.raises(MisuseError, match=f"there is no format 'coco'; the formats are {known}, ckplus"):
        read_dataset(tmp_path, "coco")


@pytest.mark.parametrize("format", [*FORMATS, "ckplus"])
def test_a_named_format_says_what_is_missing(format: str, tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match=r"holds no |needs class folders"):
        read_dataset(tmp_path, format)
