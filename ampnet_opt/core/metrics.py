"""How right, how alike and how fast: the figures of a comparison, each with its formula. numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEVEL = 0.95  # of every confidence interval
RESAMPLES = 2000
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True)
class Estimate:
    """A share in [0, 1] with the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Recall:
    """Of the `faces` labelled `name`, `correct` were recognised."""

    name: str
    faces: int
    correct: int
    recall: Estimate


@dataclass(frozen=True)
class Accuracy:
    """top1, and recalls of the classes that occur in the labels: Wilson intervals. macro_f1: percentile bootstrap."""

    top1: Estimate
    macro_f1: Estimate
    recalls: list[Recall]


@dataclass(frozen=True)
class Agreement:
    """Against the reference's logits. same_top1: share of faces with the same top-1, Wilson interval.

    largest, mean: absolute difference of a logit, over all faces and classes.
    """

    same_top1: Estimate
    largest: float
    mean: float


@dataclass(frozen=True)
class Latency:
    """Milliseconds per batch, percentiles interpolated linearly over `runs`; images per second of all runs together."""

    p50: float
    p90: float
    p99: float
    images_per_second: float
    runs: int


def wilson(successes: int, trials: int) -> Estimate:
    """A share with its Wilson score interval (Wilson 1927, JASA 22:209-212, without continuity correction).

    Unlike the normal interval it stays within [0, 1] and keeps a width at 0 and 1. Needs 0 <= successes <= trials > 0.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} of {trials} is no share")
    centre = successes + Z**2 / 2
    half = Z * math.sqrt(successes * (trials - successes) / trials + Z**2 / 4)
    # At the ends the bound equals the share exactly; rounding would put it a hair beyond.
    low = 0.0 if successes == 0 else (centre - half) / (trials + Z**2)
    high = 1.0 if successes == trials else (centre + half) / (trials + Z**2)
    return Estimate(successes / trials, low, high)


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Counts int64 [classes, classes], row = label, column = prediction; both arguments int [N], in [0, classes)."""
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean F1 over the classes that occur in the labels, float64 [...] of confusion matrices [..., C, C].

    F1 = 2 TP / (2 TP + FP + FN), whose denominator is the faces labelled so plus the faces predicted so. Predictions of a
    class that no label has lower the F1 of the classes they were taken from.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    labelled, predicted = confusion.sum(-1), confusion.sum(-2)
    f1 = 2 * hits / np.maximum(labelled + predicted, 1)
    occurs = labelled > 0
    return (f1 * occurs).sum(-1) / occurs.sum(-1)


def macro_f1_estimate(confusion: np.ndarray, seed: int = 0) -> Estimate:
    """Macro-F1 of one confusion matrix, with its percentile bootstrap interval over faces.

    Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 13.3. Drawing N faces with replacement and counting
    them draws the confusion matrix from a multinomial distribution, so whole matrices are drawn at once. A resample's macro
    is over the classes that occur in the resample.
    """
    faces = int(confusion.sum())
    draws = np.random.default_rng(seed).multinomial(faces, confusion.ravel() / faces, RESAMPLES)
    low, high = np.quantile(macro_f1(draws.reshape(-1, *confusion.shape)), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(macro_f1(confusion)), float(low), float(high))


def accuracy(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Accuracy:
    """Scores of logits float32 [N, classes] against labels int [N], N > 0."""
    confusion = confusion_matrix(labels, logits.argmax(1), len(classes))
    hits, labelled = np.diagonal(confusion).tolist(), confusion.sum(1).tolist()
    recalls = [
        Recall(name, faces, correct, wilson(correct, faces))
        for name, faces, correct in zip(classes, labelled, hits)
        if faces
    ]
    return Accuracy(wilson(sum(hits), len(labels)), macro_f1_estimate(confusion), recalls)


def agreement(logits: np.ndarray, reference: np.ndarray) -> Agreement:
    """How alike two sets of logits, float32 [N, classes], are; N > 0."""
    same = int((logits.argmax(1) == reference.argmax(1)).sum())
    difference = np.abs(logits.astype(np.float64) - reference)
    return Agreement(wilson(same, len(logits)), float(difference.max()), float(difference.mean()))


def sqnr(reference: np.ndarray, approximation: np.ndarray) -> float:
    """Signal-to-quantisation-noise ratio in dB: 10 log10(sum ref^2 / sum (ref - approx)^2); infinite without noise."""
    signal = np.sum(np.square(reference, dtype=np.float64))
    noise = np.sum(np.square(reference.astype(np.float64) - approximation))
    return 10 * math.log10(signal / noise) if noise else math.inf


def latency(seconds: Sequence[float], batch: int) -> Latency:
    """Percentiles and rate of runs of `batch` images that took `seconds` each."""
    p50, p90, p99 = (float(value) for value in np.percentile(seconds, [50, 90, 99]) * 1e3)
    return Latency(p50, p90, p99, batch * len(seconds) / sum(seconds), len(seconds))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities float64 of logits [..., classes]: exp(x) / sum exp(x) over the last axis."""
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))  # less the largest, so that none overflows
    return np.asarray(powers / powers.sum(-1, keepdims=True))
