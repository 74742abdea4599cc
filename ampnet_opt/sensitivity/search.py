"""The fewest units in floating point that keep the answers within a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.sensitivity.analysis import Row
from ampnet_opt.sensitivity.effect import Effect

MIN_AGREEMENT = 0.99
# Says what the network answers when the layers with these names stay in floating point. It is asked for some choices more
# than once, and should remember what it measured.
Judge = Callable[[Collection[str]], Effect]


class NoChoice(AmpnetError):
    """Not even one unit can be INT8."""


class Limit(Protocol):
    """What a network with some layers in floating point has to hold."""

    def holds(self, found: Effect, reference_top1: float) -> bool:
        """Whether it does. reference_top1: the float network's."""

    def describe(self, found: Effect, reference_top1: float) -> str:
        """What was found beside what is allowed."""

    def record(self) -> dict[str, Any]:
        """What is allowed, for a sidecar."""


@dataclass(frozen=True)
class Budget:
    """max_drop: of top-1 below the float network's, in percentage points; None, any. min_agreement: share of equal answers.
    min_sqnr: of the logits, dB; None, any. Raises MisuseError for what no comparison is made with: infinity, not a number.
    """

    max_drop: float | None
    min_agreement: float = MIN_AGREEMENT
    min_sqnr: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not math.isfinite(value):
                raise MisuseError(f"--{name.replace('_', '-')} is {value}, which is not a number")

    def holds(self, found: Effect, reference_top1: float) -> bool:
        return all(held for held, _ in self._compared(found, reference_top1))

    def describe(self, found: Effect, reference_top1: float) -> str:
        """What was found beside what is allowed."""
        return " and ".join(words for _, words in self._compared(found, reference_top1))

    def record(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    def _compared(self, found: Effect, reference_top1: float) -> list[tuple[bool, str]]:
        """For each part of the budget, whether it holds, and both numbers in words."""
        parts = []
        if self.max_drop is not None:
            drop = 100 * (reference_top1 - found.top1)
            words = f"top-1 is {drop:.2f} points under the float network's (allowed: {self.max_drop:g})"
            parts.append((drop <= self.max_drop + 1e-9, words))
        words = f"{found.agreement:.1%} of the answers agree (needed: {100 * self.min_agreement:g}%)"
        parts.append((found.agreement >= self.min_agreement, words))
        if self.min_sqnr is not None:
            words = f"the SQNR of the logits is {found.sqnr_db:.1f} dB (needed: {self.min_sqnr:g})"
            parts.append((found.sqnr_db >= self.min_sqnr, words))
        return parts


@dataclass(frozen=True)
class Choice:
    """kept: the units in floating point, the worst first. measured: with them."""

    kept: tuple[Row, ...]
    measured: Effect


def by_gain(rows: Sequence[Row], saved: Mapping[str, float]) -> list[Row]:
    """The units in the order in which they go back to floating point when time counts: most noise for least time first.

    Noise is what the unit alone, in INT8, adds to the logits: their power over the SQNR as a ratio. Such shares add up, as
    far as rounding errors of different layers are independent.

    Args:
        rows: of a sensitivity analysis of the mode "only".
        saved: layer -> seconds that INT8 saves in it. A unit in which it saves nothing comes first.
    """
    least = 1e-3 * max([*saved.values(), 1e-9])

    def noise_per_second(row: Row) -> float:
        return 10 ** (-row.effect.sqnr_db / 10) / max(sum(saved.get(layer, 0.0) for layer in row.layers), least)

    return sorted(rows, key=noise_per_second, reverse=True)


def search(rows: Sequence[Row], judge: Judge, reference_top1: float, budget: Limit, trimmed: int | None = None) -> Choice:
    """Keep the worst units, as few as hold the budget, then give up again those that it holds without.

    rows: the worst first (`Sensitivity.rows`, `by_gain`). How many is found by doubling and bisection, which take it that
    more units in floating point are no worse; the choice itself is measured, so that it holds in any case. trimmed: how many
    units, at most, it is tried to give up again; None, all. Raises NoChoice when not even one unit can be INT8.
    """

    def measure(kept: Sequence[Row]) -> Effect:
        return judge([layer for row in kept for layer in row.layers])

    def holds(kept: Sequence[Row]) -> bool:
        return budget.holds(measure(kept), reference_top1)

    low = high = 0  # the smallest number that holds is in [low, high] when the first loop ends
    while not holds(rows[:high]):
        if high == len(rows) - 1:
            found = measure(rows[:high])
            raise NoChoice(
                f"no choice of layers holds the budget: with only {rows[-1].name} in INT8, "
                f"{budget.describe(found, reference_top1)}; allow more, or take --fp16"
            )
        low, high = high + 1, min(max(1, 2 * high), len(rows) - 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(rows[:middle]) else (middle + 1, high)
    kept = list(rows[:high])
    for row in list(reversed(rows[:high]))[:trimmed]:
        fewer = [other for other in kept if other is not row]
        if holds(fewer):
            kept = fewer
    return Choice(tuple(kept), measure(kept))
