"""Class names, in the order of a network's outputs: data of a checkpoint, never of the code that runs it."""

from __future__ import annotations

import logging
import unicodedata
from functools import lru_cache
from typing import Sequence

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.text import listed

log = logging.getLogger(__name__)

LISTED = 8  # classes that a message names

PRESETS: dict[str, tuple[str, ...]] = {
    "rafdb": ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"),
    "affectnet7": ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger"),
    "affectnet8": ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"),
    "fer2013": ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"),
    "ferplus": ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
}

# Other words for the same classes, as data sets name their folders.
SYNONYMS = {
    "happy": "happiness",
    "sad": "sadness",
    "angry": "anger",
    "surprised": "surprise",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
    "scared": "fear",
    "suprise": "surprise",  # so spelled in several copies of AffectNet and CK+
    "contemptuous": "contempt",
    "neutrality": "neutral",
}
KNOWN = {name for names in PRESETS.values() for name in names}


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


def class_names(file: object, count: int, stored: Sequence[str] | None, given: Sequence[str] | None) -> tuple[str, ...]:
    """Names for the `count` outputs of a checkpoint: those stored in it, or else those given, or else RAF-DB's for seven.

    AMP-Net's authors publish weights without names, of RAF-DB by default. Raises MisuseError when the names given are not
    those stored (by our word for them, in the same order) or not `count`, and when nothing names outputs that are not seven.
    """
    if stored is not None:
        if given is not None and not same_classes(stored, given):
            raise MisuseError(f"checkpoint {file} names its classes: {listed(stored, LISTED)}; leave out --classes")
        return tuple(stored)
    if given is not None:
        if len(given) != count:
            raise MisuseError(f"the checkpoint has {count} classes, but {len(given)} were named: {listed(given, LISTED)}")
        return tuple(given)
    if count != len(PRESETS["rafdb"]):
        raise MisuseError(
            f"checkpoint {file} has {count} outputs and names no classes: name them in order with --classes "
            f"({', '.join(PRESETS)}, or names by commas)"
        )
    return PRESETS["rafdb"]


def assumption(file: object) -> str:
    """What `class_names` assumes of a checkpoint that names no classes when none are given."""
    return f"{file} names no classes: RAF-DB's order is assumed ({', '.join(PRESETS['rafdb'])}); --classes names another"


@lru_cache(maxsize=None)
def warn_once(message: str) -> None:
    """Warn of what this process has not been warned of yet: one command may read a checkpoint several times."""
    log.warning("%s", message)


def same_classes(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two lists name the same classes in the same order, by our words for them."""
    return [canonical(name) for name in one] == [canonical(name) for name in other]


def canonical(name: str) -> str:
    """Our word for a class, whatever its case and synonym ("Happy" is "happiness"); an unknown name as it is, in NFC."""
    stripped = unicodedata.normalize("NFC", name).strip()
    word = SYNONYMS.get(stripped.lower(), stripped.lower())
    return word if word in KNOWN else stripped


def match_classes(network: Sequence[str], data: Sequence[str]) -> list[int]:
    """Where each class of the data stands among the network's, by name or else by our word for it.

    Raises MisuseError, naming both lists, when the network lacks one.
    """
    places = {canonical(name): place for place, name in enumerate(network)}
    places.update({name: place for place, name in enumerate(network)})
    found = [places.get(name, places.get(canonical(name))) for name in data]
    unknown = [name for name, place in zip(data, found) if place is None]
    if unknown:
        raise MisuseError(
            f"the data has labels that the network lacks: {listed(map(repr, unknown), LISTED)}; its classes are "
            f"{listed(network, LISTED)}, those of the data {listed(data, LISTED)}"
        )
    return [place for place in found if place is not None]


def label_indices(network: Sequence[str], labels: Sequence[str]) -> list[int]:
    """The place of every face's label among the network's classes. Raises MisuseError as `match_classes` does."""
    names = sorted(set(labels))
    place = dict(zip(names, match_classes(network, names)))
    return [place[label] for label in labels]
