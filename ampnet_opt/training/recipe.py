"""What a training run is made of, as data: equal recipes on equal faces give equal networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.training.augment import Augmentation

FASTEST = 10.0  # learning rate; no network of this kind has been trained with one near it


@dataclass(frozen=True)
class TrainingRecipe:
    """epochs: passes over as many faces as the training split has. batch: faces a step. rate: of SGD with Nesterov
    momentum 0.9, multiplied by 0.1 at each of `decay_at` (shares of all epochs). smoothing: of the labels. balance: classes
    are drawn in proportion to count^(1 - balance): 0 as they come, 1 all equally often, 0.5 the square-root sampling of
    Mahajan et al., ECCV 2018. ema: decay of the averaged weights, which are what is kept. bf16: autocast.

    Raises MisuseError for a rate that is not over 0, or over `FASTEST`.
    """

    epochs: int = 40
    batch: int = 32
    rate: float = 0.01
    decay_at: tuple[float, ...] = (0.6, 0.85)
    weight_decay: float = 1e-4
    smoothing: float = 0.05
    balance: float = 0.5
    ema: float = 0.998
    seed: int = 0
    bf16: bool = False
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if not 0 < self.rate <= FASTEST:
            raise MisuseError(f"the learning rate is over 0 and at most {FASTEST:g}, not {self.rate:g}")

    def rate_of(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        return self.rate * 0.1 ** sum(epoch >= share * self.epochs for share in self.decay_at)


def draw(labels: Sequence[int], balance: float, seed: int, epoch: int) -> np.ndarray:
    """Indices int64 [len(labels)] of one epoch's faces, with replacement; each class as often as `Recipe.balance` says."""
    counts = np.bincount(labels)
    weights = counts[np.asarray(labels)].astype(np.float64) ** -balance
    return np.random.default_rng([seed, epoch]).choice(len(labels), len(labels), p=weights / weights.sum())


def averaging(decay: float, steps: int) -> float:
    """Share of the old average that a step keeps: min(decay, (1 + n) / (10 + n)) after n steps, as in TensorFlow's
    ExponentialMovingAverage, so that the first epochs are not averaged with the seeded weights."""
    return min(decay, (1 + steps) / (10 + steps))
