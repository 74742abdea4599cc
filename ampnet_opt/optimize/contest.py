"""Which candidate is the best: built, timed, scored on faces that choose, and proved on faces that chose nothing.

What is cheap comes first, and a candidate that cannot win any more is dropped with the reason. Python 3.8.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from ampnet_opt.benchmarks.compare import SCORING_BATCH, Environment
from ampnet_opt.benchmarks.workers import Subject, Worker
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import new_file
from ampnet_opt.core.metrics import sqnr
from ampnet_opt.core.progress import Steps
from ampnet_opt.core.text import count
from ampnet_opt.faces.face import load_batches
from ampnet_opt.optimize.candidates import Candidate, Faces, Maker
from ampnet_opt.optimize.noninferiority import (
    INFERIOR,
    NON_INFERIOR,
    Counts,
    Evidence,
    Margin,
    faces_needed,
    is_non_inferior,
    judge,
)
from ampnet_opt.optimize.speed import Goal, Speed, measure
from ampnet_opt.runtime.golden import relative_error

ROUNDING = 1e-3  # relative error of fp32 logits that other sums of the same numbers explain
FIRST_SECONDS, LAST_SECONDS = 2.0, 6.0  # of timing all candidates together, and those that are left


@dataclass(frozen=True)
class Request:
    """What is asked of the best engine.

    Attributes:
        goal: what is made small.
        margin: what it may lose.
        batch: faces of an inference that is timed.
        threads: of the CPU.
        max_value: in the goal's unit; then the most accurate candidate within it is the best. None: the fastest one is.
    """

    goal: Goal
    margin: Margin
    batch: int
    threads: int
    max_value: Optional[float] = None


@dataclass
class Trial:
    """A candidate and what became of it.

    Attributes:
        candidate: the engine.
        directory: where it was built.
        speed: measured in the last round that it took part in.
        sqnr_db: of its logits on the faces it was scored on last, dB; None where it was not scored.
        choosing: what the faces that choose say; None where there are none, or it was not scored on them.
        final: what the faces that chose nothing say; None where it was not tried on them.
        fate: why it is not the best one; "" for the best.
        doubted: whether that is because it is not shown to be right.
    """

    candidate: Candidate
    directory: Path
    speed: Optional[Speed] = None
    sqnr_db: Optional[float] = None
    choosing: Optional[Evidence] = None
    final: Optional[Evidence] = None
    fate: str = ""
    doubted: bool = False

    @property
    def name(self) -> str:
        return self.candidate.name


@dataclass(frozen=True)
class Outcome:
    """What a contest found.

    Attributes:
        best: the engine to ship; None where no candidate is good enough, and `problem` says why.
        trials: all candidates, the best one among them, in the order in which they came.
        reference: what PyTorch takes; None where it was not measured.
        environment: where it was measured.
        problem: why there is no best one, or "".
    """

    best: Optional[Trial]
    trials: List[Trial]
    reference: Optional[Speed]
    environment: Environment
    problem: str = ""


class Contest:
    """One search for the best engine. It keeps what it built and scored in a folder, so that a stopped one goes on."""

    def __init__(
        self,
        maker: Maker,
        request: Request,
        folder: Path,
        *,
        choosing: Optional[Faces],
        final: Faces,
        logits: Optional[np.ndarray] = None,
        step: Steps,
    ) -> None:
        """
        Args:
            maker: of the candidates.
            request: what is asked of them.
            folder: for engines and logits, empty or of an earlier contest of the same maker and faces.
            choosing: faces that candidates are chosen by; None where nothing is chosen by accuracy.
            final: other faces, which prove the choice.
            logits: float32 [N, classes] of PyTorch on the final faces; None, they are computed.
            step: of `core.progress.steps`.
        """
        self._maker, self._request, self._folder, self._step = maker, request, folder, step
        self._faces = {"final": final, **({} if choosing is None else {"choosing": choosing})}
        self._known = {} if logits is None else {"final": logits}
        self._trials: List[Trial] = []
        self._reference: Optional[Speed] = None

    def hold(self) -> Outcome:
        """Raises as `build` and `benchmark` do, MisuseError for what no candidate can satisfy on any machine."""
        trials = [self._built(candidate) for candidate in self._maker.candidates()]
        place = self._time(trials, FIRST_SECONDS)
        self._drop_dominated(trials)
        if "choosing" in self._faces:
            for trial in [trial for trial in self._alive() if trial.candidate.precision == "int8"]:
                self._choose_int8(trial)
            place = self._time(self._alive(), LAST_SECONDS)
            self._drop_dominated(self._alive())
        best, problem = self._proved()
        return Outcome(best, self._trials, self._reference, place, problem)

    # --- building and timing -------------------------------------------------------------------------------------

    def _built(self, candidate: Candidate) -> Trial:
        directory = self._folder / candidate.name
        if not directory.is_dir():  # whole, if it is there
            self._maker.build(candidate, directory, self._step)
        trial = Trial(candidate, directory)
        self._trials.append(trial)
        return trial

    def _time(self, trials: Sequence[Trial], seconds: float) -> Environment:
        """Time these and PyTorch; what each takes goes into the trials."""
        request, reference = self._request, self._maker.reference
        subjects = [*([reference] if reference else []), *map(self._subject, trials)]
        with self._stages() as progress:
            speeds, place = measure(subjects, request.goal, request.batch, seconds, progress)
        if reference:
            self._reference, *speeds = speeds
        for trial, speed in zip(trials, speeds):
            trial.speed = speed
        return place

    def _subject(self, trial: Trial) -> Subject:
        return Subject(trial.name, "engine", trial.directory, self._request.threads)

    @contextmanager
    def _stages(self) -> Iterator[Callable[[str, int, int], None]]:
        """Progress of a measurement, as a step."""
        with self._step("timing", 0) as advance:
            yield lambda stage, done, total: advance(done)

    def _alive(self) -> List[Trial]:
        return [trial for trial in self._trials if not trial.fate]

    def _drop_dominated(self, trials: Sequence[Trial]) -> None:
        """Those that one beats which is at least as near to PyTorch's arithmetic: whatever they answer, they lose."""
        for trial in trials:
            nearer = [x for x in trials if x is not trial and x.candidate.distance <= trial.candidate.distance]
            winners = [x for x in nearer if not x.fate and _speed(x).beats(_speed(trial))]
            if winners and not trial.fate:
                by = min(winners, key=lambda winner: _speed(winner).value)
                trial.fate = f"slower than {by.name}, which is at least as precise: {self._compared(trial, by)}"

    def _compared(self, one: Trial, other: Trial) -> str:
        return f"{_speed(one).value:.3g} against {_speed(other).value:.3g} {self._request.goal.unit}"

    # --- scoring -------------------------------------------------------------------------------------------------

    def _logits(self, subject: Subject, which: str) -> np.ndarray:
        """Logits float32 [N, classes] of a subject on one set of faces; those of an earlier contest are taken."""
        file = self._folder / f"{subject.name}.{which}.npy"
        if file.is_file():
            return np.asarray(np.load(file, allow_pickle=False))
        faces = self._faces[which].faces
        parts: List[np.ndarray] = []
        with self._step(f"scoring {subject.name}", len(faces)) as advance, Worker(subject) as worker:
            for images, landmarks in load_batches(faces, SCORING_BATCH):
                parts.append(worker.infer(images, landmarks))
                advance(sum(map(len, parts)))
        logits = np.concatenate(parts)
        with new_file(file, durable=False) as temporary, open(temporary, "wb") as stream:
            np.save(stream, logits)
        return logits

    def _reference_logits(self, which: str) -> np.ndarray:
        if which in self._known:
            return self._known[which]
        assert self._maker.reference is not None
        return self._logits(self._maker.reference, which)

    def _score(self, trial: Trial, which: str) -> Evidence:
        reference, logits = self._reference_logits(which), self._logits(self._subject(trial), which)
        trial.sqnr_db = sqnr(reference, logits)
        labels = np.asarray(self._faces[which].labels)
        found = judge(reference, logits, labels, self._maker.classes, self._request.margin)
        if trial.candidate.precision == "fp32" and relative_error(logits, reference) > ROUNDING:
            raise AmpnetError(
                f"the logits of {trial.name} are off by {relative_error(logits, reference):.2%} from PyTorch's, more than "
                "rounding explains: the backend computes this network wrongly here"
            )
        setattr(trial, which, found)
        return found

    def _likely(self, counts: Counts) -> bool:
        """Whether these rates would prove a candidate on the final faces."""
        return is_non_inferior(counts.scaled(len(self._faces["final"].faces)), self._request.margin)

    # --- int8 ----------------------------------------------------------------------------------------------------

    def _choose_int8(self, first: Trial) -> None:
        """Of all ways to calibrate an int8 engine the one whose logits are nearest; then, if it is not right enough, the
        layers that have to stay in floating point."""
        trials = [first, *(self._built(candidate) for candidate in self._maker.variants(first.candidate))]
        for trial in trials:
            trial.speed = first.speed  # the same graph with other scales
            self._score(trial, "choosing")
        best = max(trials, key=lambda trial: (self._likely(_evidence(trial).counts), trial.sqnr_db or 0.0))
        for trial in trials:
            if trial is not best:
                trial.fate = (
                    f"SQNR of the logits {trial.sqnr_db:.1f} dB on the choosing faces, with {best.candidate.method} "
                    f"{best.sqnr_db:.1f} dB"
                )
        counts = _evidence(best).counts
        if self._likely(counts) or not self._likely(Counts(counts.faces, 0, 0, 0)):
            return  # good enough; or the final faces are too few to prove anything
        limit = Provable(self._request.margin, int(counts.faces), len(self._faces["final"].faces))
        mixed = self._maker.mix(best.candidate, self._folder, limit, self._step)
        if mixed is not None:
            self._score(self._built(mixed), "choosing")

    # --- the choice ----------------------------------------------------------------------------------------------

    def _proved(self) -> Tuple[Optional[Trial], str]:
        """The first candidate, in the order of `_order`, that the final faces prove; or why there is none."""
        order, problem = self._order()
        if problem:
            return None, problem
        best: Optional[Trial] = None
        for trial in order:
            if best is not None:
                trial.fate = trial.fate or self._behind(trial, best)
                continue
            if trial.choosing is not None and not self._accepted(trial, self._likely(trial.choosing.counts)):
                trial.fate, trial.doubted = self._doubt(trial.choosing, "choosing"), True
                continue
            final = self._score(trial, "final")
            if self._accepted(trial, final.verdict == NON_INFERIOR):
                best = trial
            else:
                trial.fate, trial.doubted = self._doubt(final, "final"), True
        if best is None:
            return None, "no candidate is shown to be right enough: " + "; ".join(f"{x.name}: {x.fate}" for x in order)
        return best, ""

    def _accepted(self, trial: Trial, shown: bool) -> bool:
        """fp32 computes what PyTorch does, to rounding, which its logits show; within a limit of time, what is not shown to
        be worse is accepted."""
        if trial.candidate.precision == "fp32" or shown:
            return True
        evidence = trial.final or trial.choosing
        return self._request.max_value is not None and evidence is not None and evidence.verdict != INFERIOR

    def _order(self) -> Tuple[List[Trial], str]:
        """Candidates in the order in which they are tried, and why there are none.

        The fastest first; of those that are about as fast, the nearest to PyTorch's arithmetic. Within a limit of time, the
        nearest by SQNR first.
        """
        left, most = self._alive(), self._request.max_value
        if most is None:
            order: List[Trial] = []
            while left:
                fastest = min(left, key=lambda trial: _speed(trial).value)
                equal = [trial for trial in left if not _speed(fastest).beats(_speed(trial))]
                order.append(min(equal, key=lambda trial: (trial.candidate.distance, _speed(trial).value)))
                left.remove(order[-1])
            return order, ""
        unit = self._request.goal.unit
        for trial in self._trials:
            trial.fate = "" if trial.fate.startswith("slower than") else trial.fate  # here the limit decides
            if not trial.fate and _speed(trial).high > most:
                trial.fate = f"takes {_speed(trial).value:.3g} {unit}, allowed are {most:g}"
        within = self._alive()
        if not within:
            fastest = min(self._trials, key=lambda trial: _speed(trial).value)
            return (
                [],
                f"no engine takes at most {most:g} {unit}: the fastest, {fastest.name}, takes {_speed(fastest).value:.3g}",
            )
        for trial in within:
            if trial.sqnr_db is None:
                self._score(trial, "choosing" if "choosing" in self._faces else "final")
        return sorted(within, key=lambda trial: -(trial.sqnr_db or 0.0)), ""

    def _behind(self, trial: Trial, best: Trial) -> str:
        if self._request.max_value is not None:
            return f"SQNR of the logits {trial.sqnr_db:.1f} dB, that of {best.name} is {best.sqnr_db:.1f} dB"
        if _speed(best).beats(_speed(trial)):
            return f"slower than {best.name}: {self._compared(trial, best)}"
        return f"not clearly faster than {best.name}, which is more precise: {self._compared(trial, best)}"

    def _doubt(self, found: Evidence, which: str) -> str:
        """What speaks against a candidate, and what would settle it."""
        margin, faces, final = self._request.margin, self._faces[which].faces, len(self._faces["final"].faces)
        told = (
            f"{found.agreement.value:.1%} of the answers agree (at least {found.agreement.bound:.1%}, needed "
            f"{margin.min_agreement:.1%}), top-1 drops by {found.drop.value:.2f} points (at most {found.drop.bound:.2f}, "
            f"allowed {margin.max_drop:g})"
        )
        needed = faces_needed(found.counts, margin)
        if found.verdict == INFERIOR:
            ending = ""
        elif needed is None:
            ending = "; with these rates no number of faces would show that it is right"
        else:
            ending = f"; with these rates {needed} final faces would show that it is right, there are {final}"
        return f"{found.verdict}: on {count(len(faces), f'{which} face')} {told}{ending}"


def _speed(trial: Trial) -> Speed:
    assert trial.speed is not None
    return trial.speed


def _evidence(trial: Trial) -> Evidence:
    assert trial.choosing is not None
    return trial.choosing


@dataclass(frozen=True)
class Provable:
    """Rates on the choosing faces with which the final faces would prove an engine: what a choice of layers has to hold.

    Attributes:
        margin: what may be lost.
        faces: how many choose.
        final_faces: how many prove.
    """

    margin: Margin
    faces: int
    final_faces: int

    def holds(self, found: Any, reference_top1: float) -> bool:
        """found: a `sensitivity.effect.Effect`. Each changed answer is taken to be a face lost or won, the worst case."""
        changed, net = (1 - found.agreement) * self.faces, (reference_top1 - found.top1) * self.faces
        counts = Counts(self.faces, (changed + net) / 2, (changed - net) / 2, changed)
        return is_non_inferior(counts.scaled(self.final_faces), self.margin)

    def describe(self, found: Any, reference_top1: float) -> str:
        drop = 100 * (reference_top1 - found.top1)
        return f"{found.agreement:.1%} of the answers agree and top-1 drops by {drop:.2f} points"

    def record(self) -> Dict[str, Any]:
        return {"max_drop": self.margin.max_drop, "final_faces": self.final_faces}
