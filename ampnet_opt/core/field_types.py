"""Whether what was read from a file is of the types that its dataclass names."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints


def require_types(value: Any, hint: Any, name: str = "it") -> None:
    """ValueError when `value`, called `name`, is not of the type `hint`, or holds what is not.

    hint: a class, a dataclass (each of its fields is checked), Any, Optional, or List and Dict of these. A float is finite,
    and may be written as a whole number.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return
    if origin is Union:
        if value is not None:
            require_types(value, inner[0], name)
        elif type(None) not in inner:
            raise ValueError(f"{name} is missing")
        return
    plain = origin or hint
    accepted: Any = (int, float) if plain is float else plain
    if not isinstance(value, accepted) or (plain in {int, float} and isinstance(value, bool)):
        raise ValueError(f"{name} is no {plain.__name__}")
    if plain is float and not _is_finite(value):
        raise ValueError(f"{name} is no number")
    if isinstance(value, list):
        for item in value:
            require_types(item, inner[0], f"an item of {name}")
    elif isinstance(value, dict):
        for key, item in value.items():
            require_types(key, inner[0], f"a key of {name}")
            require_types(item, inner[1], f"{name}[{key!r}]")
    elif is_dataclass(hint):
        hints = get_type_hints(hint)
        for part in fields(hint):
            require_types(getattr(value, part.name), hints[part.name], part.name)


def _is_finite(number: Union[int, float]) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number that no float holds
        return False
