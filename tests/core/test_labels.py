from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.labels import PRESETS, SYNONYMS, canonical, class_names, match_classes, parse_classes, same_classes

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


def test_outputs_without_names_are_named_by_the_user_or_by_the_published_seven() -> None:
    assert class_names("x.pth", 7, None, None) == PRESETS["rafdb"]
    assert class_names("x.pth", 2, None, ["a", "b"]) == ("a", "b")
    with pytest.raises(MisuseError, match="3 classes, but 2 were named: a, b"):
        class_names("x.pth", 3, None, ["a", "b"])
    with pytest.raises(MisuseError, match=r"x.pth has 8 outputs and names no classes: name them in order with --classes"):
        class_names("x.pth", 8, None, None)


@given(st.permutations(PRESETS["affectnet8"]))
def test_stored_names_stand_and_others_are_refused(given_names: list[str]) -> None:
    stored = PRESETS["affectnet8"]
    if tuple(given_names) == stored:
        assert class_names("x", 8, stored, given_names) == stored
    else:
        with pytest.raises(MisuseError, match=r"x names its classes: neutral, .*, contempt; leave out --classes"):
            class_names("x", 8, stored, given_names)


def test_synonyms_of_stored_names_in_their_order_are_the_same() -> None:
    assert class_names("x", 3, ["happy", "Fear", "bored"], ["Happiness", "afraid", "bored"]) == ("happy", "Fear", "bored")
    assert not same_classes(["happy", "fear"], ["fear", "happy"])
    assert not same_classes(["happy", "fear"], ["happy", "fear", "sad"])


@pytest.mark.parametrize("word, ours", [*SYNONYMS.items(), *((name, name) for name in PRESETS["ferplus"])])
def test_words_for_classes_become_ours(word: str, ours: str) -> None:
    assert ours in PRESETS["ferplus"]
    assert {canonical(form) for form in (word, word.upper(), word.title(), f" {word} ")} == {ours}


def test_other_words_stay() -> None:
    assert [canonical(word) for word in ("Boredom", "class0", "7")] == ["Boredom", "class0", "7"]


def test_a_word_is_the_same_in_both_forms_of_unicode() -> None:
    composed = "\u00dcberraschung"
    assert canonical("U\u0308berraschung") == canonical(composed) == composed
    assert match_classes([composed, "a"], ["U\u0308berraschung"]) == [0]


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
