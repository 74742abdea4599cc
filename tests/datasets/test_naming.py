"""What the names of class folders and the labels of tables are taken for: words are matched, numbers are never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.labels import KNOWN, PRESETS, canonical
from ampnet_opt.datasets.labelled_picture import Dataset
from ampnet_opt.datasets.naming import NUMBERINGS, Named, is_number, name_labels
from ampnet_opt.datasets.registry import read_dataset
from ampnet_opt.faces.face import COLUMNS

ALPHABETICAL = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
WORD = st.text(st.characters(categories=("L",), exclude_characters=","), min_size=1).filter(
    lambda w: canonical(w) not in KNOWN
)


def picture(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), (200, 100, 50)).save(file)


def numbered(path: Path, first: int, order: tuple[str, ...], splits: tuple[str, ...] = ("train",)) -> Path:
    """Class folders called by number, and in each a picture that is called by what it shows."""
    for split in splits:
        for number, label in enumerate(order, first):
            picture(path / split / str(number) / f"{label}.png")
    return path


def shown(dataset: Dataset) -> dict[str, str]:
    """What each picture shows, by its file's name, and the label that was read."""
    return {Path(item.name).stem: item.label for item in dataset.pictures}


PUBLISHED = [(name, first, classes) for name, (first, classes) in NUMBERINGS.items()]
CKPLUS = NUMBERINGS["ckplus"][1]


@pytest.mark.parametrize(
    ("first", "order"),
    [
        *((first, classes) for _, first, classes in PUBLISHED),
        (0, PRESETS["rafdb"]),
        (1, CKPLUS[1:]),
        (0, ALPHABETICAL),
        (1, ALPHABETICAL),
        (3, PRESETS["rafdb"][:2]),
    ],
)
@pytest.mark.parametrize("splits", [("train",), ("",), ("Training", "PrivateTest")])
def test_numbers_alone_are_refused(first: int, order: tuple[str, ...], splits: tuple[str, ...], tmp_path: Path) -> None:
    path = numbered(tmp_path, first, order, splits)
    picture(path / "stray.png")  # changes nothing
    last = first + len(order) - 1
    span = f"{first} to {last}" if len(order) > 2 else f"{first}, {last}"
    for format in (None, "folders"):
        with pytest.raises(
            MisuseError, match=rf"are numbers \({span}\), and a number alone names no class: pass --format \(rafdb, aff"
        ) as caught:
            read_dataset(path, format)
        assert "--classes" in str(caught.value) and len(str(caught.value).replace(str(path), "")) < 300


@pytest.mark.parametrize(("format", "first", "classes"), PUBLISHED)
@pytest.mark.parametrize("shift", [0, 1])
def test_the_numbers_of_a_data_set_by_its_name(
    format: str, first: int, classes: tuple[str, ...], shift: int, tmp_path: Path
) -> None:
    """Also from 0 where it is published from 1, and the other way round; a note says what was taken for what."""
    start = first if not shift else 1 - first
    dataset = read_dataset(numbered(tmp_path, start, classes), format)
    assert shown(dataset) == {name: name for name in classes}
    assert (dataset.format, dataset.classes) == (format, classes)
    assert f"are read as {start} = {classes[0]}, {start + 1} = {classes[1]}, " in dataset.notes[0]


def test_the_published_numbers_win_where_classes_are_missing(tmp_path: Path) -> None:
    dataset = read_dataset(numbered(tmp_path / "a", 1, CKPLUS[1:]), "ckplus")
    assert shown(dataset) == {name: name for name in CKPLUS[1:]} and dataset.classes == CKPLUS
    dataset = read_dataset(numbered(tmp_path / "b", 2, PRESETS["rafdb"][1:]), "rafdb")
    assert shown(dataset)["neutral"] == "neutral"
    dataset = read_dataset(numbered(tmp_path / "c", 0, PRESETS["affectnet7"]), "affectnet")
    assert dataset.classes == PRESETS["affectnet7"]


def test_numbers_of_another_data_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="are 0 to 7, but fer2013 has the numbers 0 to 6"):
        read_dataset(numbered(tmp_path, 0, ALPHABETICAL), "fer2013")
    with pytest.raises(MisuseError, match="--format affectnet names the classes already; leave out --classes"):
        read_dataset(tmp_path, "affectnet", "ferplus")


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_by_names_in_their_order(first: int, tmp_path: Path) -> None:
    path = numbered(tmp_path, first, ALPHABETICAL)
    dataset = read_dataset(path, classes=",".join(ALPHABETICAL))
    assert shown(dataset) == {name: name for name in ALPHABETICAL}
    assert dataset.classes == ALPHABETICAL and f"{first} = anger, {first + 1} = contempt" in dataset.notes[0]
    assert read_dataset(path, "folders", "ferplus").classes == PRESETS["ferplus"]
    with pytest.raises(MisuseError, match=f"are {first} to {first + 7}, which do not fit with the 7 names"):
        read_dataset(path, classes="rafdb")


def test_numbers_that_may_begin_at_0_or_1_are_refused_until_it_is_said(tmp_path: Path) -> None:
    path = numbered(tmp_path, 1, PRESETS["fer2013"][1:])
    with pytest.raises(
        MisuseError, match=r"may begin at 0 or at 1 with the 7 names of --classes: say which is which.*1=anger"
    ):
        read_dataset(path, classes="fer2013")
    pairs = ",".join(f"{number}={name}" for number, name in enumerate(PRESETS["fer2013"]) if name != "anger")
    assert shown(read_dataset(path, classes=pairs)) == {name: name for name in PRESETS["fer2013"][1:]}


@given(st.permutations(ALPHABETICAL), st.integers(0, 1))
def test_every_number_gets_the_name_at_its_place(order: list[str], first: int) -> None:
    named = name_labels([str(first + i) for i in range(8)], "they", ",".join(order))
    assert named.classes == tuple(order)
    assert [named.of[str(first + i)] for i in range(8)] == order


@given(st.sets(st.integers(0, 12), min_size=1).map(lambda found: {str(number) for number in found}), st.integers(2, 9))
def test_a_number_is_never_given_a_name_that_another_start_would_change(numbers: set[str], count: int) -> None:
    """Where names are given, there is one start that fits, or a refusal."""
    names = [f"class{i}" for i in range(count)]
    fits = [start for start in (0, 1) if all(0 <= int(number) - start < count for number in numbers)]
    if len(fits) == 1:
        assert name_labels(numbers, "they", ",".join(names)).of == {n: names[int(n) - fits[0]] for n in numbers}
    else:
        with pytest.raises(MisuseError, match="may begin at 0 or at 1" if fits else "do not fit"):
            name_labels(numbers, "they", ",".join(names))


# Words


@given(st.sets(WORD, min_size=1, max_size=20), st.sets(st.sampled_from(sorted(KNOWN)), max_size=3))
def test_words_that_are_no_class_are_refused_by_name(unknown: set[str], known: set[str]) -> None:
    with pytest.raises(MisuseError, match="not all named" if known else "are not named after expressions") as caught:
        name_labels(unknown | known, "they")
    listed = str(caught.value).split(": ")[1].split("; if they")[0]
    assert len(listed.partition(" and ")[0].split(", ")) == min(len(unknown), 8)


@pytest.mark.parametrize("names", [("images", "labels"), ("FER2013Train", "images"), ("ahegao", "cars"), ("train2017", "x")])
def test_folders_that_are_no_classes_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        picture(tmp_path / "train" / name / "1.png")
    with pytest.raises(MisuseError, match=f"are not named after expressions: {', '.join(sorted(names))}; if they are class"):
        read_dataset(tmp_path)
    picture(tmp_path / "train" / "happy" / "1.png")
    with pytest.raises(MisuseError, match=f"are not all named after expressions: {', '.join(sorted(names))}; if they are"):
        read_dataset(tmp_path)
    dataset = read_dataset(tmp_path, classes=f"happy,{','.join(names)}")
    assert {item.label for item in dataset.pictures} == {"happiness", *names}


def test_yolo_is_refused_in_words(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        picture(tmp_path / split / "images" / "1.png")
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels" / "1.txt").write_text("4 0.5 0.5 1 1\n")
    with pytest.raises(MisuseError, match="are not named after expressions: images"):
        read_dataset(tmp_path)


def test_classes_choose_among_words_and_say_what_is_missing(tmp_path: Path) -> None:
    for name in ("Happy", "sad", "contempt", "boredom"):
        picture(tmp_path / name / "1.png")
    dataset = read_dataset(tmp_path, classes="sadness,happy,fear")
    assert dataset.classes == ("sadness", "happiness", "fear")
    assert {item.name: item.label for item in dataset.pictures} == {"Happy/1.png": "happiness", "sad/1.png": "sadness"}
    assert [tuple(one)[:2] for one in dataset.skipped] == [
        ("boredom/1.png", "in a folder that --classes leaves out"),
        ("contempt/1.png", "in a folder that --classes leaves out"),
    ]
    assert any("--classes names fear, which the class folders in" in note for note in dataset.notes)
    with pytest.raises(MisuseError, match="--classes names none of them"):
        read_dataset(tmp_path, classes="a,b")


def test_pairs_name_what_has_another_name(tmp_path: Path) -> None:
    for name in ("AN", "HA", "NE", "01"):
        picture(tmp_path / name / "1.png")
    dataset = read_dataset(tmp_path, classes="an=anger, HA=happy,ne=Neutral,1=sad")
    assert dataset.classes == ("anger", "happiness", "neutral", "sadness")
    assert {item.name[:2]: item.label for item in dataset.pictures} == {
        "AN": "anger",
        "HA": "happiness",
        "NE": "neutral",
        "01": "sadness",
    }


@pytest.mark.parametrize("given_text", ["a=", "=b", "a=b,c", "a=b,A=c", "1=a,01=b"])
def test_pairs_that_say_nothing_are_refused(given_text: str) -> None:
    with pytest.raises(MisuseError, match="--classes takes label=class for each, every label once"):
        name_labels(["a"], "they", given_text)


def test_a_class_twice_is_refused() -> None:
    with pytest.raises(MisuseError, match="names a class twice: happy, happiness"):
        name_labels(["0", "1"], "they", "happy,happiness")


def test_names_decomposed_by_a_file_system_are_the_same_words(tmp_path: Path) -> None:
    decomposed = "U\u0308berraschung"
    picture(tmp_path / "train" / decomposed / "e\u0301.png")
    picture(tmp_path / "train" / "happy" / "1.png")
    for classes in ("happy,\u00dcberraschung", f"{decomposed},happy", "\u00fcberraschung=surprise,happy=happy"):
        labels = {item.label for item in read_dataset(tmp_path, classes=classes).pictures}
        assert labels in ({"happiness", "\u00dcberraschung"}, {"happiness", "surprise"})


@pytest.mark.parametrize("split", ["fer2013", "ferplus"])
def test_a_data_set_in_word_folders_by_its_name(split: str, tmp_path: Path) -> None:
    for name in ("angry", "happy"):
        picture(tmp_path / "train" / name / "1.png")
    assert read_dataset(tmp_path, split).classes == PRESETS[split]
    picture(tmp_path / "train" / "contempt" / "1.png")
    if split == "fer2013":
        with pytest.raises(MisuseError, match="have contempt, which fer2013 has not"):
            read_dataset(tmp_path, split)


# Tables


def table(path: Path, labels: list[str]) -> Path:
    lines = [",".join(["file", "label", "split", *COLUMNS])]
    for i, label in enumerate(labels):
        picture(path / "images" / f"{i}.png")
        lines.append(",".join([f"{i}.png", label, "train", *["10"] * 10]))
    (path / "faces.csv").write_text("\n".join(lines) + "\n")
    return path


def test_numbers_in_a_table_are_refused_and_named_like_those_of_folders(tmp_path: Path) -> None:
    path = table(tmp_path, ["0", "6", "3"])
    for place in (path, path / "faces.csv"):
        with pytest.raises(MisuseError, match=r"the labels in .*faces.csv are numbers \(0, 3, 6\), and a number alone"):
            read_dataset(place)
        assert [item.label for item in read_dataset(place, "fer2013").pictures] == ["anger", "neutral", "happiness"]
        assert [item.label for item in read_dataset(place, classes="rafdb").pictures] == ["surprise", "neutral", "happiness"]
    dataset = read_dataset(path, classes="0=anger,3=happy")
    assert [item.label for item in dataset.pictures] == ["anger", "happiness"]
    assert [tuple(one)[:3] for one in dataset.skipped] == [("1.png", "a label that --classes leaves out", "6")]
    with pytest.raises(MisuseError, match="are not all named after expressions: 0"):
        read_dataset(table(tmp_path, ["0", "happy"]))


def test_words_in_a_table_are_the_users_own(tmp_path: Path) -> None:
    assert read_dataset(table(tmp_path, ["boredom", "Happy"])).classes == ("Happy", "boredom")


def test_classes_without_effect_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    with pytest.raises(MisuseError, match=r"--classes is for class folders and tables of faces; .* is read as photos"):
        read_dataset(tmp_path, classes="rafdb")


@pytest.mark.parametrize("text", ["0", "07", "12", "\u0663", "-1", "1.0", "", "9" * 5000])
def test_what_is_a_number(text: str) -> None:
    assert is_number(text) == (text in ("0", "07", "12"))


def test_what_is_known_is_named() -> None:
    assert name_labels(["happy", "Happy", "anger"], "they") == Named(
        ("anger", "happiness"), {"happy": "happiness", "Happy": "happiness", "anger": "anger"}
    )
