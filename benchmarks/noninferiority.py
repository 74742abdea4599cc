"""Is an engine as right as PyTorch? One-sided 95 % bounds over the same faces, and how many faces they need. Python 3.8.

Both networks answer the same faces, so what counts are the faces on which they differ, not the two accuracies by themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import List, Optional, Sequence

import numpy as np

from ampnet_opt.core.metrics import RESAMPLES, macro_f1

LEVEL = 0.95  # of each bound, one-sided
Z = NormalDist().inv_cdf(LEVEL)
NON_INFERIOR, INFERIOR, UNDECIDED = "non-inferior", "inferior", "not enough faces"
MOST_FACES = 1 << 30  # as a number of faces that would be needed


@dataclass(frozen=True)
class Margin:
    """What an engine may lose.

    Attributes:
        max_drop: of top-1, in percentage points, over 0.
        min_agreement: share of faces with PyTorch's answer, in [0, 1).
    """

    max_drop: float = 0.5
    min_agreement: float = 0.99


@dataclass(frozen=True)
class Counts:
    """How two networks answer the same faces.

    Attributes:
        faces: all of them, at least one.
        lost: faces that only the reference gets right.
        won: faces that only the engine gets right.
        changed: faces with another answer, right or wrong; at least `lost + won`.
    """

    faces: float
    lost: float
    won: float
    changed: float

    def scaled(self, faces: float) -> Counts:
        """What the same rates give over another number of faces; a fraction of a face is one."""
        by = faces / self.faces
        return Counts(faces, self.lost * by, self.won * by, self.changed * by)


@dataclass(frozen=True)
class Bound:
    """A measured value and its one-sided 95 % bound, on the side where it could be worse."""

    value: float
    bound: float


@dataclass(frozen=True)
class ClassDrop:
    """Loss of recall of the class `name`, which `faces` faces are labelled with, in percentage points."""

    name: str
    faces: int
    drop: Bound


@dataclass(frozen=True)
class Evidence:
    """What a set of faces says about an engine.

    Attributes:
        verdict: NON_INFERIOR, INFERIOR or UNDECIDED.
        counts: what it follows from.
        drop: of top-1, in percentage points; upper bound.
        agreement: share of faces with the reference's answer; lower bound.
        p_value: exact McNemar test, one-sided, of the hypothesis that the engine loses no more faces than it wins.
        macro_f1: loss, in percentage points; upper bound of a paired bootstrap.
        recalls: of each class that occurs, likewise.
        needed: faces that would show the engine to be non-inferior if its rates stayed what they are; None where no number
            would, or where it is shown already.
    """

    verdict: str
    counts: Counts
    drop: Bound
    agreement: Bound
    p_value: float
    macro_f1: Bound
    recalls: List[ClassDrop]
    needed: Optional[int]


def count_answers(reference: np.ndarray, engine: np.ndarray, labels: np.ndarray) -> Counts:
    """Counts of two sets of logits float32 [N, classes] against labels int [N], N > 0."""
    before, after = reference.argmax(1), engine.argmax(1)
    was, now = before == labels, after == labels
    return Counts(len(labels), int((was & ~now).sum()), int((now & ~was).sum()), int((before != after).sum()))


def judge(reference: np.ndarray, engine: np.ndarray, labels: np.ndarray, classes: Sequence[str], margin: Margin) -> Evidence:
    """What logits float32 [N, classes] of an engine are worth beside the reference's, with labels int [N], N > 0."""
    counts = count_answers(reference, engine, labels)
    macro, recalls = _bootstrap(reference.argmax(1), engine.argmax(1), labels, classes)
    shown = verdict(counts, margin)
    return Evidence(
        shown,
        counts,
        Bound(100 * (counts.lost - counts.won) / counts.faces, 100 * drop_bound(counts)),
        Bound(1 - counts.changed / counts.faces, agreement_bound(counts)),
        mcnemar(int(counts.lost), int(counts.won)),
        macro,
        recalls,
        None if shown == NON_INFERIOR else faces_needed(counts, margin),
    )


def verdict(counts: Counts, margin: Margin) -> str:
    """NON_INFERIOR where both bounds hold; INFERIOR where the opposite of one is shown at the same level; else UNDECIDED.

    With few faces the scores are only roughly normal, so that what calls an engine INFERIOR is held to exact tests as well.
    """
    if is_non_inferior(counts, margin):
        return NON_INFERIOR
    loses = score(counts, margin.max_drop / 100) >= Z and mcnemar(int(counts.lost), int(counts.won)) <= 1 - LEVEL
    differs = _at_least(int(counts.changed), int(counts.faces), 1 - margin.min_agreement) <= 1 - LEVEL
    return INFERIOR if loses or differs else UNDECIDED


def is_non_inferior(counts: Counts, margin: Margin) -> bool:
    return drop_bound(counts) <= margin.max_drop / 100 and agreement_bound(counts) >= margin.min_agreement


def score(counts: Counts, drop: float) -> float:
    """Tango's score statistic of the hypothesis that the reference's top-1 is `drop`, in (-1, 1), above the engine's.

    Standard normal where that is so; large where the drop is larger. Tango 1998, Statistics in Medicine 17:891-908,
    equation 11: the rate of `won` faces is estimated under the hypothesis, so that it works without any discordant face.
    """
    n, lost, won = counts.faces, counts.lost, counts.won
    a, b, c = 2 * n, -lost - won + (2 * n - lost + won) * drop, -won * drop * (1 - drop)
    rate = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    deviation = math.sqrt(max(n * (2 * rate + drop * (1 - drop)), 0.0))
    distance = float(lost - won - n * drop)
    if deviation == 0:  # no discordant face is possible under the hypothesis
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / deviation


def drop_bound(counts: Counts) -> float:
    """Upper one-sided bound of the drop of top-1, in (-1, 1): the largest one that `score` does not reject."""
    low, high = 1e-9 - 1, 1 - 1e-9
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if score(counts, middle) > -Z else (low, middle)
    return high


def agreement_bound(counts: Counts) -> float:
    """Lower one-sided bound of the share of equal answers: the end of Wilson's score interval, as of `metrics.wilson`."""
    n, same = counts.faces, counts.faces - counts.changed
    half = Z * math.sqrt(same * (n - same) / n + Z**2 / 4)
    return max((same + Z**2 / 2 - half) / (n + Z**2), 0.0)


def mcnemar(lost: int, won: int) -> float:
    """P(X >= lost) of X ~ Binomial(lost + won, 1/2): how likely so many lost faces are where engine and reference are
    equally right (McNemar 1947, Psychometrika 12:153-157; exact)."""
    return _at_least(lost, lost + won, 0.5)


def _at_least(successes: int, trials: int, share: float) -> float:
    """P(X >= successes) of X ~ Binomial(trials, share); share: in (0, 1]."""
    if share == 1:
        return 1.0
    logs = [
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(share)
        + (trials - k) * math.log1p(-share)
        for k in range(successes)
    ]
    return max(1 - math.fsum(map(math.exp, logs)), 0.0)


def faces_needed(counts: Counts, margin: Margin) -> Optional[int]:
    """The fewest faces over which the rates of `counts` are NON_INFERIOR; None where no number is enough."""

    def enough(faces: int) -> bool:
        return is_non_inferior(counts.scaled(faces), margin)

    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST_FACES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _bootstrap(
    before: np.ndarray, after: np.ndarray, labels: np.ndarray, classes: Sequence[str], seed: int = 0
) -> tuple[Bound, List[ClassDrop]]:
    """Losses of macro-F1 and of each class's recall, percentage points, with bounds of a paired percentile bootstrap.

    Faces are drawn with replacement, each with both answers (Efron & Tibshirani 1993, section 13.3). What counts is how
    often each (label, answer, answer) occurs, so these counts are drawn from their multinomial distribution.
    """
    size = len(classes)
    cells = np.bincount((labels * size + before) * size + after, minlength=size**3)
    seen = np.flatnonzero(cells)
    draws = np.zeros((RESAMPLES + 1, size**3), np.int64)  # the first is what was measured
    draws[0] = cells
    rng = np.random.default_rng(seed)
    draws[1:, seen] = rng.multinomial(len(labels), cells[seen] / len(labels), RESAMPLES)
    joint = draws.reshape(-1, size, size, size)
    confusions = joint.sum(3), joint.sum(2)  # of the reference, and of the engine
    macro = 100 * (macro_f1(confusions[0]) - macro_f1(confusions[1]))
    labelled = confusions[0].sum(2)
    hits = [np.diagonal(confusion, axis1=1, axis2=2) for confusion in confusions]
    drops = 100 * (hits[0] - hits[1]) / np.maximum(labelled, 1)
    found = [
        ClassDrop(name, int(labelled[0, i]), _upper(drops[:, i])) for i, name in enumerate(classes) if labelled[0, i] > 0
    ]
    return _upper(macro), found


def _upper(values: np.ndarray) -> Bound:
    return Bound(float(values[0]), float(np.quantile(values[1:], LEVEL)))
