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

# Other words for the same classes, as data sets name their folders.
SYNONYMS = {
    "happy": "happiness",
    "sad": "sadness",
    "angry": "anger",
    "surprised": "surprise",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
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


def class_names(count: int, given: Sequence[str] | None) -> tuple[str, ...]:
    """Names for `count` outputs: those given, else RAF-DB's for seven (the published default), else numbered ones."""
    if given is None:
        return PRESETS["rafdb"] if count == 7 else tuple(f"class{i}" for i in range(count))
    if len(given) != count:
        raise MisuseError(f"the checkpoint has {count} classes, but {len(given)} were named: {', '.join(given)}")
    return tuple(given)


def canonical(name: str) -> str:
    """Our word for a class, whatever its case and synonym ("Happy" is "happiness"); a name we do not know as it is."""
    plain = name.strip().lower()
    word = SYNONYMS.get(plain, plain)
    return word if word in KNOWN else name.strip()


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
            f"the data has labels that the network lacks: {', '.join(map(repr, unknown))}; its classes are "
            f"{', '.join(network)}, those of the data {', '.join(data)}"
        )
    return [place for place in found if place is not None]


def label_indices(network: Sequence[str], labels: Sequence[str]) -> list[int]:
    """The place of every face's label among the network's classes. Raises MisuseError as `match_classes` does."""
    names = sorted(set(labels))
    place = dict(zip(names, match_classes(network, names)))
    return [place[label] for label in labels]
