"""JSON that others may have written: read within bounds, or refused with the reason. Standard library only."""

from __future__ import annotations

import json
import math
from typing import Any, Dict, List, Tuple, Union

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import PathLike, require_file

# Far above what any of our files needs; parsed, a file of this size takes at most about 120 MB.
LARGEST = 4 << 20
DEEPEST = 40  # values within values
LONGEST_NUMBER = 400  # characters; a float64 written out in full has at most 327 before and after the point


def read_json(path: PathLike, what: str) -> Any:
    """The value in a JSON file of at most `LARGEST` bytes; what: what it is called when it is not there.

    Raises MisuseError when `path` is no regular file (a pipe or a device could go on for ever), AmpnetError when it cannot
    be read or is too large, ValueError as `parse_json` does.
    """
    file = require_file(path, what)
    try:
        with open(file, "rb") as stream:
            data = stream.read(LARGEST + 1)
    except OSError as error:
        raise AmpnetError(f"{what} {file} cannot be read: {error.strerror or error}") from error
    if len(data) > LARGEST:
        raise AmpnetError(f"{what} {file} is larger than {LARGEST >> 20} MiB, which no file of ampnet-opt is")
    return parse_json(data)


def parse_json(data: Union[bytes, str]) -> Any:
    """The value of a JSON text; bytes are UTF-8, with or without a byte order mark.

    Raises ValueError for what is no JSON, and for what JSON allows but no file of ours holds: values nested deeper than
    `DEEPEST`, a key twice, numbers that a float64 does not hold, half characters (lone surrogates).
    """
    if isinstance(data, bytes):
        try:
            data = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"it is not UTF-8 at byte {error.start}") from error
    try:
        value = json.loads(data, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer)
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels") from error
    _require_sound(value)
    return value


def _object(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: Dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                raise ValueError(f"it holds the key {key[:80]!r} twice")
            seen[key] = value
    return found


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not a finite number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _integer(text: str) -> int:
    """Python parses 5,000 digits in quadratic time, or raises: no number of ours comes near the end of a float64."""
    if len(text) > LONGEST_NUMBER or not math.isfinite(float(text)):
        raise ValueError(f"the number {text[:40]}... of {len(text)} characters is too large")
    return int(text)


def _require_sound(value: Any) -> None:
    """ValueError for what `parse_json` refuses once it is parsed; without recursion, however deep the value is."""
    level = [value]
    for _ in range(DEEPEST):
        inner: List[Any] = []
        for item in level:
            if isinstance(item, str):
                _require_whole(item)
            elif isinstance(item, dict):
                for key in item:
                    _require_whole(key)
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        if not inner:
            return
        level = inner
    raise ValueError(f"it is nested deeper than {DEEPEST} levels")


def _require_whole(text: str) -> None:
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError(f"it holds half a character: {text[:80]!a}")
