"""What the labels of a data set mean: names of class folders, or of a column, as the classes that they stand for.

A word is a class when it is one of ours (`labels.canonical`). A number is none by itself: FER-2013's 0 is anger, AffectNet's
is neutral. It takes a published numbering, or names that the user gives.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.labels import KNOWN, LISTED, PRESETS, canonical, parse_classes
from ampnet_opt.core.text import listed

# The number of the first class, and the classes in order, as published. CK+: Lucey et al., "The Extended Cohn-Kanade
# Dataset (CK+)", CVPR Workshops 2010; the others: see the module of each.
NUMBERINGS: dict[str, tuple[int, tuple[str, ...]]] = {
    "rafdb": (1, PRESETS["rafdb"]),
    "affectnet": (0, PRESETS["affectnet8"]),
    "fer2013": (0, PRESETS["fer2013"]),
    "ferplus": (0, PRESETS["ferplus"]),
    "ckplus": (0, ("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")),
}


@dataclass(frozen=True)
class Named:
    """classes: in order. of: the class of each label, "" for a label that `--classes` leaves out. notes: a sentence each."""

    classes: tuple[str, ...]
    of: Mapping[str, str]
    notes: tuple[str, ...] = ()


def name_labels(labels: Collection[str], where: str, given: str | None = None, numbering: str | None = None) -> Named:
    """The class of each of `labels`, of which there is one at least.

    where: what they are, as the beginning of a sentence ("the class folders in faces/"). given: `--classes`, names (of the
    classes; where labels are numbers, in their order) or pairs label=class. numbering: a key of `NUMBERINGS`. Raises
    MisuseError for numbers that nothing names or that do not fit, and for words that are no class.
    """
    numbers = all(is_number(label) for label in labels)
    if given is not None:
        pairs = _pairs(given)
        if pairs:
            return _chosen(labels, where, {_key(label): name for label, name in pairs.items()}, tuple(pairs.values()), _key)
        names = _canonical(parse_classes(given))
        if numbers:
            return _counted(labels, where, names, _start(labels, where, names))
        return _chosen(labels, where, {name: name for name in names}, names, canonical)
    if numbers:
        if numbering is None:
            raise MisuseError(
                f"{where} are numbers ({_span(labels)}), and a number alone names no class: pass --format "
                f"({', '.join(NUMBERINGS)}) if they are that data set's, or --classes with the names in their order"
            )
        return _published(labels, where, numbering)
    unknown = sorted(label for label in labels if canonical(label) not in KNOWN)
    if unknown:
        none = len(unknown) == len(labels)
        raise MisuseError(
            f"{where} are {'not named after expressions' if none else 'not all named after expressions'}: "
            f"{listed(unknown, LISTED)}; if they are classes, say so with --classes (names, or folder=class, by commas)"
        )
    of = {label: canonical(label) for label in labels}
    if numbering is None:
        return Named(tuple(sorted(set(of.values()))), of)
    classes = NUMBERINGS[numbering][1]
    others = sorted({name for name in of.values() if name not in classes})
    if others:
        raise MisuseError(f"{where} have {listed(others, LISTED)}, which {numbering} has not; leave out --format")
    return Named(affectnet_classes(of.values()) if numbering == "affectnet" else classes, of)


def is_number(label: str) -> bool:
    return label.isascii() and label.isdigit() and len(label) < 10


def _published(labels: Collection[str], where: str, numbering: str) -> Named:
    """As published, or from 0 what is published from 1, or the other way round, where only that fits."""
    first, classes = NUMBERINGS[numbering]
    for start in (first, 1 - first):
        if all(start <= int(label) < start + len(classes) for label in labels):
            found = {classes[int(label) - start] for label in labels}
            return _counted(labels, where, affectnet_classes(found) if numbering == "affectnet" else classes, start)
    raise MisuseError(
        f"{where} are {_span(labels)}, but {numbering} has the numbers {first} to {first + len(classes) - 1}; "
        "another --format, or --classes, may fit"
    )


def affectnet_classes(found: Collection[str]) -> tuple[str, ...]:
    """AffectNet's classes: where no picture shows contempt, the data set is the one of seven."""
    return PRESETS["affectnet8" if "contempt" in found else "affectnet7"]


def _start(labels: Collection[str], where: str, names: tuple[str, ...]) -> int:
    fits = [start for start in (0, 1) if all(start <= int(label) < start + len(names) for label in labels)]
    if len(fits) == 1:
        return fits[0]
    problem = "may begin at 0 or at 1" if fits else "do not fit"
    raise MisuseError(
        f"{where} are {_span(labels)}, which {problem} with the {len(names)} names of --classes: say which is which, "
        f"as in --classes {min(map(int, labels))}={names[0]},..."
    )


def _counted(labels: Collection[str], where: str, names: tuple[str, ...], start: int) -> Named:
    meaning = ", ".join(f"{number} = {name}" for number, name in enumerate(names, start))
    of = {label: names[int(label) - start] for label in labels}
    return Named(names, of, (f"{where[:1].upper()}{where[1:]} are read as {meaning}.",))


def _chosen(
    labels: Collection[str], where: str, names: Mapping[str, str], classes: tuple[str, ...], key: Callable[[str], str]
) -> Named:
    """The labels whose key is among `names`; the others are left out."""
    of = {label: names.get(key(label), "") for label in labels}
    missing = sorted(set(names) - {key(label) for label in labels})
    if len(missing) == len(names):
        raise MisuseError(f"{where} are {listed(sorted(labels), LISTED)}; --classes names none of them")
    notes = [f"--classes names {listed(missing, LISTED)}, which {where} lack."] if missing else []
    return Named(tuple(dict.fromkeys(classes)), of, tuple(notes))


def _pairs(given: str) -> dict[str, str]:
    """`--classes` as label=class, or nothing where it names classes alone."""
    parts = [part.partition("=") for part in given.split(",")]
    if not any(equals for _, equals, _ in parts):
        return {}
    pairs = {label.strip(): canonical(name) for label, _, name in parts}
    if len({_key(label) for label in pairs}) != len(parts) or not all(label and name for label, name in pairs.items()):
        raise MisuseError(f"--classes takes label=class for each, every label once, got {given[:100]!r}")
    return pairs


def _canonical(names: tuple[str, ...]) -> tuple[str, ...]:
    found = tuple(canonical(name) for name in names)
    if len(set(found)) != len(found):
        raise MisuseError(f"--classes names a class twice: {listed(names, LISTED)}")
    return found


def _key(label: str) -> str:
    """What is equal for labels that are spelled differently: in case, as numbers, in the form of Unicode."""
    return str(int(label)) if is_number(label) else unicodedata.normalize("NFC", label).strip().casefold()


def _span(labels: Collection[str]) -> str:
    numbers = sorted({int(label) for label in labels})
    whole = numbers == list(range(numbers[0], numbers[-1] + 1)) and len(numbers) > 2
    return f"{numbers[0]} to {numbers[-1]}" if whole else listed(numbers, LISTED)
