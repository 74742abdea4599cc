"""Which candidate is the best: built, timed, scored on faces that choose, and proved on faces that chose nothing.

What is cheap comes first, and a candidate that cannot win any more is dropped with the reason. Python 3.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from ampnet_opt.benchmarks.compare import SCORING_BATCH, Environment
from ampnet_opt.benchmarks.noninferiority import (
    INFERIOR,
    NON_INFERIOR,
    Counts,
    Evidence,
    Margin,
    is_non_inferior,
    judge,
)
from ampnet_opt.benchmarks.workers import Subject, Worker
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import new_directory, new_file
from ampnet_opt.core.metrics import sqnr
from ampnet_opt.core.processor import release_memory
from ampnet_opt.core.progress import Steps
from ampnet_opt.faces.face import load_batches
from ampnet_opt.optimize.candidates import Candidate, Faces, Maker
from ampnet_opt.optimize.speed import Goal, Speed, measure
from ampnet_opt.optimize.trials import Trial, beaten_by, compared, doubt, in_order, where_time_goes
from ampnet_opt.runtime.backend import find_backend
from ampnet_opt.runtime.build import compile_engine
from ampnet_opt.runtime.golden import relative_error
from ampnet_opt.runtime.sidecar import read_sidecar

ROUNDING = 1e-3  # relative error of fp32 logits that other sums of the same numbers explain
SECONDS = 6.0  # of timing the candidates that are left, all together; at first, when they are many, a third of it
MOST_SQNR = 999.0  # dB, of equal logits: JSON has no infinity
MOST_REPEATS = 4  # of that, while other work disturbs it


@dataclass(frozen=True)
class Request:
    """What is asked of the best engine.

    Attributes:
        goal: what is made small.
        margin: what it may lose.
        batch: faces of an inference that is timed.
        threads: of the CPU.
        seconds: of one timing of all candidates together, at least.
        max_value: in the goal's unit; then the most accurate candidate within it is the best. None: the fastest one is.
    """

    goal: Goal
    margin: Margin
    batch: int
    threads: int
    seconds: float = SECONDS
    max_value: Optional[float] = None


@dataclass(frozen=True)
class Outcome:
    """What a contest found.

    Attributes:
        best: the engine to ship; None where no candidate is good enough, and `problem` says why.
        trials: all candidates, the best one among them, in the order in which they came.
        reference: what PyTorch takes; None where it was not measured.
        environment: where it was measured.
        problem: why there is no best one, or "".
        threads: of the CPU with which the best one is fastest: all that were asked for, or half of them.
    """

    best: Optional[Trial]
    trials: List[Trial]
    reference: Optional[Speed]
    environment: Environment
    problem: str = ""
    threads: int = 1


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
            folder: for engines, under their candidates' names, and logits; empty, or of an earlier contest of the same maker
                and faces.
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
        """Raises AmpnetError where no candidate can be built and run, and as `benchmark` does."""
        for candidate in self._maker.candidates():
            self._build(candidate)
        if not self._left():
            raise AmpnetError(f"no candidate works here: {'; '.join(f'{x.name}: {x.fate}' for x in self._trials)}")
        self._time(self._request.seconds / 3)
        self._drop_beaten()
        if "choosing" in self._faces:
            for trial in [trial for trial in self._left() if trial.candidate.precision == "int8"]:
                self._improve(trial)
        place = self._time(self._request.seconds)
        for _ in range(MOST_REPEATS):
            if self._is_steady():
                break
            place = self._time(self._request.seconds, more=True)
        self._drop_beaten()
        best, problem = self._best()
        threads = self._request.threads if best is None else self._fastest_threads(best)
        return Outcome(best, self._trials, self._reference, place, problem, threads)

    # --- building and timing -------------------------------------------------------------------------------------

    def _build(self, candidate: Candidate) -> Trial:
        """Build a candidate, unless a contest that was stopped has; if it fails or does not run, that is its fate."""
        trial, engine = Trial(candidate), self._folder / candidate.name
        self._trials.append(trial)
        try:
            if not engine.is_dir():
                with self._step(f"building {candidate.name}", 1) as progress, new_directory(engine) as new:
                    # Whether it computes its graph in every way is asked of the best one alone: `result.place_best`.
                    compile_engine(self._maker.request(candidate, self._step), new, progress)[0].write(new)
            release_memory()  # the next build and the processes that are timed need it
            find_backend(candidate.backend).check(read_sidecar(engine))
        except AmpnetError as error:
            trial.fate = f"cannot be built and run here: {error}"
        return trial

    def _time(self, seconds: float, more: bool = False) -> Environment:
        """Time PyTorch and the candidates that are left, for so long together. more: beside what was measured before."""
        request, reference, trials = self._request, self._maker.reference, self._left()
        subjects = [*([reference] if reference else []), *map(self._subject, trials)]
        with self._step("timing", 0) as advance:
            speeds, place = measure(subjects, request.goal, request.batch, seconds, lambda stage, done, total: advance(done))
        if reference:
            first, *speeds = speeds
            before = self._reference if more else None
            self._reference = first if before is None or first is None else before.joined(first)
        for trial, speed in zip(trials, speeds):
            trial.speed = speed if speed is None or not more else trial.took.joined(speed)
        return place

    def _is_steady(self) -> bool:
        """Whether more timing would change nothing: the times are steady, or the first in the order beats all others."""
        left = self._left()
        first = in_order(left)[0]
        return all(trial is first or first.beats(trial) for trial in left) or not any(trial.took.unsteady for trial in left)

    def _fastest_threads(self, best: Trial) -> int:
        """All threads, or half of them where that is clearly faster, as it may be with two threads to a core."""
        request, every = self._request, self._request.threads
        if every < 2 or find_backend(best.candidate.backend).device != "cpu":
            return every
        numbers = (every, every // 2)
        subjects = [self._subject(best, number) for number in numbers]
        with self._step("timing fewer threads", 0) as advance:
            (whole, half), _ = measure(
                subjects, request.goal, request.batch, request.seconds / 3, lambda stage, done, total: advance(done)
            )
        return every // 2 if half is not None and whole is not None and half.beats(whole) else every

    def _subject(self, trial: Trial, threads: Optional[int] = None) -> Subject:
        return Subject(trial.name, "engine", self._folder / trial.name, threads or self._request.threads)

    def _where_time_goes(self, trial: Trial) -> str:
        return where_time_goes(self._folder / trial.name, self._request.threads)

    def _left(self) -> List[Trial]:
        return [trial for trial in self._trials if not trial.fate]

    def _drop_beaten(self) -> None:
        left = self._left()
        for trial in left:
            winner = beaten_by(trial, left)
            if winner is not None:
                goal = self._request.goal
                numbers = compared(trial, winner, goal.unit)
                trial.fate = f"{goal.behind} than {winner.name}, which is at least as precise: {numbers}"
                if goal.is_time and trial.candidate.precision == "int8" and winner.candidate.precision != "int8":
                    trial.fate += f"; {self._where_time_goes(trial)}"

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

    def _score(self, trial: Trial, which: str) -> Optional[Evidence]:
        """What these faces say of a candidate; None where it does not answer them, which is its fate then."""
        reference = self._reference_logits(which)
        try:
            logits = self._logits(self._subject(trial), which)
        except AmpnetError as error:
            trial.fate, trial.doubted = str(error), True
            return None
        trial.sqnr_db = min(sqnr(reference, logits), MOST_SQNR)
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

    def _improve(self, first: Trial) -> None:
        """Of all ways to calibrate an int8 engine, take the one whose logits are nearest to PyTorch's; then, if it is not
        right enough, keep layers in floating point."""
        trials = [first, *(self._build(candidate) for candidate in self._maker.variants(first.candidate))]
        scored = {trial.name: self._score(trial, "choosing") for trial in trials if not trial.fate}
        evidence = {name: found for name, found in scored.items() if found is not None}
        trials = [trial for trial in trials if trial.name in evidence]
        if not trials:
            return
        best = max(trials, key=lambda trial: (self._likely(evidence[trial.name].counts), trial.sqnr_db or 0.0))
        for trial in trials:
            if trial is not best:
                trial.fate = (
                    f"SQNR of the logits {trial.sqnr_db:.1f} dB on the choosing faces, with {best.candidate.method} "
                    f"{best.sqnr_db:.1f} dB"
                )
        counts = evidence[best.name].counts
        if self._likely(counts) or not self._likely(Counts(counts.faces, 0, 0, 0)):
            return  # good enough; or the final faces are too few to prove anything
        limit = Provable(self._request.margin, int(counts.faces), len(self._faces["final"].faces))
        for mixed in self._maker.mix(best.candidate, self._folder, limit, self._step):
            trial = self._build(mixed)
            if not trial.fate:
                self._score(trial, "choosing")

    # --- the choice ----------------------------------------------------------------------------------------------

    def _best(self) -> Tuple[Optional[Trial], str]:
        """The first candidate in its order that the final faces prove, or why there is none."""
        order = self._within() if self._request.max_value is not None else in_order(self._left())
        if not order:
            fastest = min((trial for trial in self._trials if trial.speed), key=lambda trial: trial.took.value)
            allowed = f"{self._request.max_value:g} {self._request.goal.unit}"
            return None, f"no engine takes at most {allowed}: the fastest, {fastest.name}, takes {fastest.took.value:.3g}"
        best: Optional[Trial] = None
        for trial in order:
            if best is not None:
                trial.fate = self._behind(trial, best)
            elif self._holds(trial, "choosing") and self._holds(trial, "final"):
                best = trial
        if best is None:
            return None, "no candidate is shown to be right enough: " + "; ".join(f"{x.name}: {x.fate}" for x in order)
        return best, ""

    def _holds(self, trial: Trial, which: str) -> bool:
        """Whether these faces speak for a candidate; if not, that is its fate.

        fp32 computes what PyTorch does, which its logits show: it needs no proof by its answers. Within a limit of time,
        what is not shown to be worse is accepted.
        """
        if which == "choosing" and trial.choosing is None:
            return True
        found = self._score(trial, which)
        if found is None:
            return False
        shown = found.verdict == NON_INFERIOR if which == "final" else self._likely(found.counts)
        limited = self._request.max_value is not None and found.verdict != INFERIOR
        if trial.candidate.precision == "fp32" or shown or limited:
            return True
        trial.fate, trial.doubted = doubt(found, self._request.margin, which, len(self._faces["final"].faces)), True
        return False

    def _within(self) -> List[Trial]:
        """Candidates within the limit, the most accurate first, by SQNR."""
        most, unit = self._request.max_value or 0.0, self._request.goal.unit
        for trial in self._left():
            if trial.took.high > most:
                trial.fate = f"takes {trial.took.value:.3g} {unit}, allowed are {most:g}"
            elif trial.sqnr_db is None:
                self._score(trial, "choosing" if "choosing" in self._faces else "final")
        return sorted(self._left(), key=lambda trial: -(trial.sqnr_db or 0.0))

    def _behind(self, trial: Trial, best: Trial) -> str:
        if self._request.max_value is not None:
            return f"SQNR of the logits {trial.sqnr_db:.1f} dB, that of {best.name} is {best.sqnr_db:.1f} dB"
        goal = self._request.goal
        numbers = compared(trial, best, goal.unit)
        if best.beats(trial):
            return f"{goal.behind} than {best.name}: {numbers}"
        reason = f"not clearly {goal.ahead} than {best.name}, which is at least as precise: {numbers}"
        if goal.is_time and trial.candidate.precision == "int8":
            reason += f"; {self._where_time_goes(trial)}"
        return reason


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
