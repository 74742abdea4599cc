"""What a change of the network did to its answers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from ampnet_opt.core.field_types import require_types
from ampnet_opt.core.metrics import sqnr


@dataclass(frozen=True)
class Effect:
    """Of changed logits against the reference's.

    sqnr_db: signal to quantisation noise of the logits, dB. kl: mean Kullback-Leibler divergence of the class probabilities,
    nats. agreement: share of faces with the same top-1. top1: share of faces whose top-1 is the label.
    """

    sqnr_db: float
    kl: float
    agreement: float
    top1: float

    def record(self) -> dict[str, float | None]:
        """For JSON, which has no infinity: the SQNR where nothing changed is None."""
        return {**asdict(self), "sqnr_db": None if math.isinf(self.sqnr_db) else self.sqnr_db}

    @classmethod
    def of(cls, record: dict[str, Any]) -> Effect:
        """What `record` gave. Raises KeyError, TypeError or ValueError when it is something else."""
        found = cls(*(record[field.name] for field in fields(cls)))
        require_types(replace(found, sqnr_db=0.0 if found.sqnr_db is None else found.sqnr_db), cls)
        return replace(found, sqnr_db=math.inf) if found.sqnr_db is None else found


def effect(logits: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> Effect:
    """logits, reference: float32 [N, classes]; labels: int64 [N]; N > 0."""
    top1 = logits.argmax(1)
    return Effect(
        sqnr(reference, logits),
        kl_divergence(logits, reference),
        float((top1 == reference.argmax(1)).mean()),
        float((top1 == labels).mean()),
    )


def kl_divergence(logits: np.ndarray, reference: np.ndarray) -> float:
    """Mean over rows of sum p log(p / q), nats, p being softmax(reference) and q softmax(logits)."""
    p, q = _log_softmax(reference), _log_softmax(logits)
    return float((np.exp(p) * (p - q)).sum(1).mean())


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
