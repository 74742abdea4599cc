"""A candidate that was built, and how candidates are compared: who is beaten, and who is tried first. Python 3.8."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Sequence

from ampnet_opt.benchmarks.bench_layers import layer_times
from ampnet_opt.benchmarks.noninferiority import INFERIOR, Evidence, Margin, faces_needed
from ampnet_opt.optimize.candidates import Candidate
from ampnet_opt.optimize.speed import Speed
from ampnet_opt.runtime.layers import sentence
from ampnet_opt.runtime.sidecar import parse_sidecar

SHOWN = 4  # kinds of layers in a sentence


@dataclass
class Trial:
    """A candidate and what became of it: a row of the result.

    Attributes:
        candidate: the engine.
        speed: measured in the last round that it took part in; None where it was not timed.
        sqnr_db: of its logits on the faces that it was scored on last, dB, finite; None where it was not scored.
        choosing: what the faces that choose say; None where there are none, or it was not scored on them.
        final: what the faces that chose nothing say; None where it was not tried on them.
        fate: why it is not the best one; "" for the best.
        doubted: whether that is because it is not shown to be right.
    """

    candidate: Candidate
    speed: Optional[Speed] = None
    sqnr_db: Optional[float] = None
    choosing: Optional[Evidence] = None
    final: Optional[Evidence] = None
    fate: str = ""
    doubted: bool = False

    @property
    def name(self) -> str:
        return self.candidate.name

    @property
    def evidence(self) -> Optional[Evidence]:
        """Of the final faces, or else of those that choose."""
        return self.final or self.choosing

    @property
    def took(self) -> Speed:
        """`speed`, of a trial that was timed."""
        assert self.speed is not None
        return self.speed

    def beats(self, other: Trial) -> bool:
        return self.took.beats(other.took)


def beaten_by(trial: Trial, others: Sequence[Trial]) -> Optional[Trial]:
    """The fastest of the others that beats this one and is at least as near to PyTorch's arithmetic, if any.

    Whatever a beaten candidate answers, it cannot win.
    """
    winners = [x for x in others if x is not trial and x.candidate.distance <= trial.candidate.distance and x.beats(trial)]
    return min(winners, key=lambda winner: winner.took.value, default=None)


def in_order(trials: Sequence[Trial]) -> List[Trial]:
    """The order in which candidates are proved: the fastest first, but after a more precise one that it does not beat."""
    left, order = list(trials), []
    while left:
        order.append(_first(left))
        left.remove(order[-1])
    return order


def _first(trials: Sequence[Trial]) -> Trial:
    """The fastest, if it beats the fastest of those that are more precise; else that one, if it does so in turn."""
    chosen = min(trials, key=lambda trial: trial.took.value)
    while True:
        nearer = [trial for trial in trials if trial.candidate.distance < chosen.candidate.distance]
        rival = min(nearer, key=lambda trial: trial.took.value, default=None)
        if rival is None or chosen.beats(rival):
            return chosen
        chosen = rival


def compared(one: Trial, other: Trial, unit: str) -> str:
    return f"{one.took.value:.3g} against {other.took.value:.3g} {unit}"


def doubt(found: Evidence, margin: Margin, which: str, final_faces: int) -> str:
    """What speaks against a candidate, and what would settle it. which: "choosing" or "final"."""
    told = (
        f"{found.verdict}: on {found.counts.faces:.0f} {which} faces {found.agreement.value:.1%} of the answers agree (at "
        f"least {found.agreement.bound:.1%}, needed {margin.min_agreement:.1%}), top-1 drops by {found.drop.value:.2f} "
        f"points (at most {found.drop.bound:.2f}, allowed {margin.max_drop:g})"
    )
    needed = faces_needed(found.counts, margin)
    if found.verdict == INFERIOR:
        return told
    if needed is None:
        return f"{told}; with these rates no number of faces would show that it is right"
    return f"{told}; with these rates {needed} final faces would show that it is right, there are {final_faces}"


def where_time_goes(engine: Path, threads: int) -> str:
    """What an engine's layers are, and which kinds of them take its time: why a low precision gains little."""
    record = parse_sidecar(engine).layers
    kinds: Counter[str] = Counter()
    for layer in layer_times(engine, 1, threads):
        kinds[layer.kernel.split()[0] or layer.kernel] += round(1000 * layer.share)
    shares = ", ".join(f"{kind} {share / 10:.0f} %" for kind, share in kinds.most_common(SHOWN))
    return f"{'' if record is None else sentence(record) + '; '}time by kind of layer: {shares}"
