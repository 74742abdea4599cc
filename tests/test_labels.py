from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampnet_opt.errors import MisuseError
from ampnet_opt.labels import PRESETS, SYNONYMS, canonical, class_names, match_classes, parse_classes

NAME = st.text(st.characters(exclude_characters=",", codec="utf-8"), min_size=1).map(str.strip).filter(bool)


@pytest.mark.parametrize(
    ("preset", "count"), [("rafdb", 7), ("affectnet7", 7), ("affectnet8", 8), ("fer2013", 7), ("ferplus", 8)]
)
def test_presets_have_each_emotion_once(preset: str, count: int) -> None:
    names = parse_classes(preset)
    basic = {"neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger"}
    assert len(names) == count and set(names) == basic | ({"contempt"} if count == 8 else set())
    assert PRESETS[preset] == names


@given(st.lists(NAME, min_size=2, unique=True), st.sampled_from([",", ", ", " , "]))
def test_names_keep_their_order(names: list[str], comma: str) -> None:
    assert parse_classes(comma.join(names)) == tuple(names)


@pytest.mark.parametrize("text", ["", "affectnet", "a,", "a,,b", " , ", "a,b,a", "a, a"])
def test_what_names_no_classes_is_refused(text: str) -> None:
    with pytest.raises(MisuseError, match="--classes") as caught:
        parse_classes(text)
    assert "\n" not in str(caught.value)


def test_outputs_without_names_get_some() -> None:
    assert class_names(7, None) == PRESETS["rafdb"]
    assert class_names(3, None) == ("class0", "class1", "class2")
    assert class_names(2, ["a", "b"]) == ("a", "b")
    with pytest.raises(MisuseError, match="3 classes, but 2 were named: a, b"):
        class_names(3, ["a", "b"])


@pytest.mark.parametrize("word, ours", [*SYNONYMS.items(), *((name, name) for name in PRESETS["ferplus"])])
def test_words_for_classes_become_ours(word: str, ours: str) -> None:
    assert ours in PRESETS["ferplus"]
    assert {canonical(form) for form in (word, word.upper(), word.title(), f" {word} ")} == {ours}


def test_other_words_stay() -> None:
    assert [canonical(word) for word in ("Boredom", "class0", "7")] == ["Boredom", "class0", "7"]


@given(st.permutations(PRESETS["affectnet8"]), st.lists(st.sampled_from(PRESETS["affectnet8"]), unique=True))
def test_classes_are_matched_by_name(network: list[str], data: list[str]) -> None:
    assert [network[place] for place in match_classes(network, data)] == data


def test_classes_are_matched_by_synonym_unless_the_name_itself_is_there() -> None:
    assert match_classes(["sad", "happiness"], ["Happy", "sadness"]) == [1, 0]
    assert match_classes(["afraid", "fear"], ["fear", "afraid", "fearful"]) == [1, 0, 1]


def test_classes_that_the_network_lacks_are_named() -> None:
    with pytest.raises(
        MisuseError, match=r"lacks: 'contempt'; its classes are neutral, .*, those of the data neutral, .*tempt"
    ):
        match_classes(PRESETS["affectnet7"], PRESETS["affectnet8"])
