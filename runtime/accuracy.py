"""How far INT8 moves the answers of a network, and how far is too far."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Sequence

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.text import count

DRAWN, CALIBRATION = "drawn", "calibration"  # faces that are measured on
# SQNR in dB. Networks that were calibrated on faces are at 20 or more, on black pictures or noise of the wrong brightness
# at 6 or less, where half of their answers may be others; docs/int8.md has the numbers.
REFUSED, DOUBTED = 6.0, 14.0
LOWEST = -99.0


@dataclass(frozen=True)
class Accuracy:
    """INT8 logits beside the float network's.

    on: DRAWN or CALIBRATION faces, of which there are `faces`. same_top1: share of them with the same top-1. sqnr_db: of the
    logits, without what all faces have in common; None where INT8 changes nothing (JSON has no infinity). engine: whether
    the engine itself was measured, or its graph in ONNX Runtime.
    """

    on: str
    faces: int
    same_top1: float
    sqnr_db: Optional[float]
    engine: bool

    def __str__(self) -> str:
        sqnr = "infinite" if self.sqnr_db is None else f"{self.sqnr_db:.1f} dB"
        return f"same top-1 on {self.same_top1:.0%} of {count(self.faces, f'{self.on} face')}, SQNR {sqnr}"


def measure(on: str, logits: np.ndarray, reference: np.ndarray, engine: bool) -> Accuracy:
    """logits, reference: float32 [N, classes], N > 1; the reference is the float network's."""
    same = float((logits.argmax(1) == reference.argmax(1)).mean())
    return Accuracy(on, len(logits), same, spread_sqnr(logits, reference), engine)


def spread_sqnr(logits: np.ndarray, reference: np.ndarray) -> Optional[float]:
    """10 log10 of the squared distances of the reference's rows from their mean, over those of `logits` from it, dB.

    The plain ratio would count what all faces have in common as signal: logits of untrained networks are little else.
    None: no noise at all; LOWEST: no signal, or logits that are not finite.
    """
    wanted = reference.astype(np.float64)
    noise = float(np.square(logits - wanted).sum())
    signal = float(np.square(wanted - wanted.mean(0)).sum())
    if noise == 0:
        return None
    return max(10 * math.log10(signal / noise), LOWEST) if signal > 0 and math.isfinite(noise) else LOWEST


def require_close(found: Sequence[Accuracy], trained: bool) -> None:
    """AmpnetError when INT8 does not answer like the float network. Untrained weights mean nothing, and are not judged."""
    for accuracy in found if trained else ():
        if not _at_least(accuracy, REFUSED):
            raise AmpnetError(
                f"INT8 does not answer like the float network ({accuracy}; needed: {REFUSED:g} dB): calibrate on more, and "
                "more varied, pictures of faces (--data, --faces), or take --fp16"
            )


def doubts(found: Sequence[Accuracy], trained: bool) -> Sequence[str]:
    """A sentence where INT8 moves the answers further than it should."""
    doubted = [accuracy for accuracy in found if trained and not _at_least(accuracy, DOUBTED)]
    advice = f"under {DOUBTED:g} dB: calibrate on more, and more varied, faces, or keep layers out of INT8 (--min-sqnr)"
    return [f"INT8 moves the answers far: {accuracy}, {advice}" for accuracy in doubted]


def _at_least(accuracy: Accuracy, bound: float) -> bool:
    return accuracy.sqnr_db is None or accuracy.sqnr_db >= bound
