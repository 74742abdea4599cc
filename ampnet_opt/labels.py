"""Class names, in the order of a network's outputs: data of a checkpoint, never of the code that runs it."""

from __future__ import annotations

from typing import Sequence

from ampnet_opt.errors import MisuseError

PRESETS: dict[str, tuple[str, ...]] = {
    "rafdb": ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"),
    "affectnet7": ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger"),
    "affectnet8": ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"),
    "fer2013": ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"),
    "ferplus": ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
}


def parse_classes(text: str) -> tuple[str, ...]:
    """A preset's name, or class names separated by commas, in the order of the outputs."""
    if text in PRESETS:
        return PRESETS[text]
    names = tuple(name.strip() for name in text.split(","))
    if len(names) < 2:
        raise MisuseError(f"--classes takes a preset ({', '.join(PRESETS)}) or names separated by commas, got {text!r}")
    if "" in names or len(set(names)) != len(names):
        raise MisuseError(f"--classes has an empty or repeated name: {text!r}")
    return names


def class_names(count: int, given: Sequence[str] | None) -> tuple[str, ...]:
    """Names for `count` outputs: those given, else RAF-DB's for seven (the published default), else numbered ones."""
    if given is None:
        return PRESETS["rafdb"] if count == 7 else tuple(f"class{i}" for i in range(count))
    if len(given) != count:
        raise MisuseError(f"the checkpoint has {count} classes, but {len(given)} were named: {', '.join(given)}")
    return tuple(given)
