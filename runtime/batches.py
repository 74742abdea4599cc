"""Batches of the size that a backend asks for."""

from __future__ import annotations

import numpy as np


def filled(values: np.ndarray, size: int) -> np.ndarray:
    """`values`, with the last repeated until there are at least `size`."""
    missing = size - len(values)
    return np.concatenate([values, np.repeat(values[-1:], missing, 0)]) if missing > 0 else values
