from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampnet_opt.errors import MisuseError
from ampnet_opt.labels import PRESETS, class_names, parse_classes

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
