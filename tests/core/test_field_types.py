from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sidecars import SIDECAR

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.field_types import require_types
from ampnet_opt.runtime.sidecar import FORMAT, NAME, parse_sidecar


@dataclass
class Inner:
    share: float


@dataclass
class Outer:
    name: str
    count: int
    names: List[str]
    sizes: Dict[str, int]
    inner: Optional[Inner] = None
    rest: Any = None


RIGHT = Outer("a", 1, ["b"], {"c": 2}, Inner(1), [None])


def test_what_fits_passes() -> None:
    require_types(RIGHT, Outer)
    require_types(Outer("", 0, [], {}), Outer)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", None),
        ("name", 1),
        ("count", True),
        ("count", 1.0),
        ("names", "b"),
        ("names", [1]),
        ("sizes", {"c": "d"}),
        ("sizes", {1: 2}),
        ("inner", {"share": 1.0}),
        ("inner", Inner(math.nan)),
        ("inner", Inner(True)),
    ],
)
def test_what_does_not_fit_is_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field if field != "inner" or isinstance(value, dict) else "share"):
        require_types(Outer(**{**vars(RIGHT), field: value}), Outer)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(asdict(SIDECAR))), JUNK)
def test_a_sidecar_of_any_contents_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: Any
) -> None:
    folder: Path = tmp_path_factory.mktemp("engine")
    content = {"format": FORMAT, **asdict(SIDECAR), field: value}
    (folder / NAME).write_text(json.dumps(content), encoding="utf-8")
    try:
        sidecar = parse_sidecar(folder)
    except AmpnetError as error:
        assert "\n" not in str(error)
    else:
        json.dumps(asdict(sidecar), allow_nan=False)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", '"x"', "{}", "1e999", ""])
def test_a_sidecar_that_is_none_is_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(AmpnetError, match="is damaged"):
        parse_sidecar(tmp_path)
