"""What `optimize` found: as JSON, as a table for a terminal, and why the best engine is the best. Python 3.8."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from shutil import copyfile
from typing import Any, Dict, List, Optional

from rich.console import Group, RenderableType
from rich.text import Text

from ampnet_opt.benchmarks.compare import Environment
from ampnet_opt.benchmarks.noninferiority import NON_INFERIOR, Bound, ClassDrop, Counts, Evidence, Margin
from ampnet_opt.benchmarks.report import milliseconds
from ampnet_opt.core.console import new_table
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import new_directory
from ampnet_opt.core.json_files import read_json
from ampnet_opt.core.text import count
from ampnet_opt.optimize.candidates import Candidate
from ampnet_opt.optimize.contest import Outcome
from ampnet_opt.optimize.speed import GOALS, Speed
from ampnet_opt.optimize.trials import Trial
from ampnet_opt.runtime.build import EngineRequest, complete_engine
from ampnet_opt.runtime.sidecar import NAME as SIDECAR
from ampnet_opt.runtime.sidecar import parse_sidecar, read_sidecar

FORMAT = "ampnet-opt-optimize/1"
METHOD = (
    "Every candidate runs in a process of its own and is timed in turn, in rounds; a value is a median with its 95 % "
    "interval over turns. One is faster than another where the 95 % interval of the ratio of their turns, round by round, "
    "is above 1.02.",
    "Bounds are one-sided, 95 %, over faces that both networks answer: Tango's score for the drop of top-1, Wilson's for "
    "the share of equal answers, a paired bootstrap for macro-F1 and recall.",
    "Candidates are chosen on one set of faces and proved on another. FP32 computes what PyTorch does, which its logits "
    "show, so that it needs no proof by its answers.",
)


@dataclass(frozen=True)
class Result:
    """One run of `optimize`.

    Attributes:
        key: digest of all that it follows from.
        source: the checkpoint or bundle, as it was named.
        trained: False for seeded weights, whose answers mean nothing.
        drawn: whether the faces are drawn ones.
        goal: name of what was made small.
        margin: what the best engine may lose.
        max_value: most that it may take, in the goal's unit; None, anything.
        batch: faces of an inference.
        threads: of the CPU.
        choosing_faces: how many chose.
        final_faces: how many others proved the choice.
        rows: every candidate, in the order in which they came.
        best: name of the best one; None where there is none, and `problem` says why.
        why: the best one in a sentence, or "".
        problem: why there is no best one, or "".
        reference: what PyTorch takes; None where it was not measured.
        environment: where it was measured, and when.
        seconds: what the run took.
        passed_over: backend -> why it does not run here.
    """

    key: str
    source: str
    trained: bool
    drawn: bool
    goal: str
    margin: Margin
    max_value: Optional[float]
    batch: int
    threads: int
    choosing_faces: int
    final_faces: int
    rows: List[Trial]
    best: Optional[str]
    why: str
    problem: str
    reference: Optional[Speed]
    environment: Environment
    seconds: float
    passed_over: Dict[str, str]

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"


def reason(outcome: Outcome, goal_name: str, threads: int) -> str:
    """Why the best engine is the best, in a sentence. threads: that it was timed with."""
    best, goal = outcome.best, GOALS[goal_name]
    assert best is not None and best.speed is not None
    parts, speeds = [f"{best.name}: {milliseconds(best.speed.value)} {goal.unit}"], [best.speed]
    if outcome.reference is not None:
        speeds.append(outcome.reference)
        parts.append(f"{outcome.reference.value / best.speed.value:.2f} times {goal.better} as PyTorch")
    slower = [(x.speed.value, x.name) for x in outcome.trials if x.speed is not None and best.speed.beats(x.speed)]
    if slower:
        value, name = min(slower)
        parts.append(f"{value / best.speed.value:.2f} times {goal.better} as {name}")
    doubt = " (unsteady times)" if any(speed.unsteady for speed in speeds) else ""
    told = f"{', '.join(parts)}{doubt}; {_proof(best)}"
    return (
        told if outcome.threads == threads else f"{told}; it is faster with --threads {outcome.threads} than with {threads}"
    )


def _proof(best: Trial) -> str:
    found = best.final
    assert found is not None
    faces = count(int(found.counts.faces), "face")
    if best.candidate.precision == "fp32":
        return f"computes what PyTorch does: logits on {faces} equal to rounding"
    told = (
        f"on {faces} that chose nothing, {found.agreement.value:.1%} of the answers are PyTorch's (at least "
        f"{found.agreement.bound:.1%}), and top-1 drops by {found.drop.value:.2f} points (at most {found.drop.bound:.2f})"
    )
    return told if found.verdict == NON_INFERIOR else f"{told}: {found.verdict} to show that this is within what is allowed"


def missed(result: Result) -> List[str]:
    """A sentence for each int8 engine that would have been faster than the best one, but is not shown to be right."""
    best = next((row for row in result.rows if row.name == result.best), None)
    if best is None or best.speed is None:
        return []
    return [
        f"{row.name} would be {best.speed.value / row.speed.value:.2f} times {GOALS[result.goal].better}, but is "
        f"not shown to be right: {row.fate}"
        for row in result.rows
        if row.doubted and row.speed is not None and row.speed.beats(best.speed)
    ]


def render_result(result: Result) -> Group:
    """Where it was measured, a row for each candidate, why each lost, and the sentence."""
    place, goal = result.environment, GOALS[result.goal]
    faces = f"{count(result.final_faces, 'face')} to prove"
    if result.choosing_faces:
        faces = f"{count(result.choosing_faces, 'face')} to choose, {faces}"
    parts: List[RenderableType] = [
        Text(f"{result.source}; {faces}{', drawn' if result.drawn else ''}"),
        Text(f"batch {result.batch}, {count(result.threads, 'thread')}; {result.seconds:.0f} s in all"),
        Text(f"{place.cpu}, {count(place.cores, 'core')}; {place.system}; {place.date}"),
        Text(", ".join(f"{name} {version}" for name, version in place.versions.items())),
    ]
    if not result.trained:
        parts.append(Text("* Untrained (seeded) weights: their answers mean nothing; agreement and speed do."))
    right = [goal.unit, "±", "ratio", "SQNR dB", "same %", "≥", "drop", "≤"]
    table = new_table("Candidates (ratio: to PyTorch; same: its answers; drop: of top-1, points; bounds: 95 %)", [""], right)
    table.add_column("", no_wrap=True)
    table.padding = (0, 1, 0, 0)
    if result.reference is not None:
        table.add_row("PyTorch", *_took(result.reference, result.reference), "-", "-", "", "-", "", "")
    for row in result.rows:
        found = row.evidence
        scores = ["-", "", "-", ""]
        if found is not None:
            scores = [f"{100 * share:.1f}" for share in (found.agreement.value, found.agreement.bound)]
            scores += [f"{points:.2f}" for points in (found.drop.value, found.drop.bound)]
        verdict = "best" if row.name == result.best else found.verdict if found is not None and row.doubted else ""
        sqnr = "-" if row.sqnr_db is None else f"{row.sqnr_db:.1f}"
        table.add_row(Text(row.name), *_took(row.speed, result.reference), sqnr, *scores, verdict)
    parts.append(table)
    parts += [Text(f"{row.name}: {row.fate}") for row in result.rows if row.fate]
    speeds = [("PyTorch", result.reference), *((row.name, row.speed) for row in result.rows)]
    unsteady = [name for name, speed in speeds if speed is not None and speed.unsteady]
    if unsteady:
        names = ", ".join(unsteady)
        parts.append(Text(f"* Unsteady times: {names}. Other work was probably running; measure again without it."))
    return Group(*parts, Text(""))


def _took(speed: Optional[Speed], reference: Optional[Speed]) -> List[str]:
    if speed is None:
        return ["-", "", "-"]
    half = max(speed.high - speed.value, speed.value - speed.low) / speed.value
    return [milliseconds(speed.value), f"{half:.0%}", "-" if reference is None else f"{reference.value / speed.value:.2f}x"]


def place_best(best: Path, request: EngineRequest, optimized: Dict[str, str], target: Path, force: bool) -> None:
    """Copy the best engine to `target`, with why it is the best in its sidecar, and compare it with its graph.

    It is there whole, or not at all. request: what it was made of. optimized: as of `Sidecar`. Raises AmpnetError when it
    does not compute its graph.
    """
    sidecar = read_sidecar(best)
    with new_directory(target, force) as directory:
        for name in sidecar.files:
            copyfile(best / name, directory / name)
        complete_engine(request, directory, replace(sidecar, optimized=optimized))


def earlier_result(file: Path, key: str, engine: Path) -> Optional[Result]:
    """The result of a run with this key, where its engine stands there still, unchanged; else None."""
    try:
        content = read_json(file, "result")
        if content.pop("format") != FORMAT or content["key"] != key or not (engine / SIDECAR).is_file():
            return None
        found = _parsed(content)
        sidecar = parse_sidecar(engine)
        chosen = sidecar.optimized or {}
        return found if chosen.get("why") == found.why and read_sidecar(engine) == sidecar else None
    except (AmpnetError, ValueError, KeyError, TypeError, AttributeError, OSError):
        return None


def _parsed(content: Dict[str, Any]) -> Result:
    """Raises KeyError or TypeError for what `Result.to_json` never writes."""
    rows = [
        Trial(
            Candidate(**row["candidate"]),
            _optional(Speed, row["speed"]),
            row["sqnr_db"],
            _evidence(row["choosing"]),
            _evidence(row["final"]),
            row["fate"],
            row["doubted"],
        )
        for row in content["rows"]
    ]
    known = {field.name for field in fields(Result)}
    return Result(
        **{
            **{name: value for name, value in content.items() if name in known},
            "margin": Margin(**content["margin"]),
            "rows": rows,
            "reference": _optional(Speed, content["reference"]),
            "environment": Environment(**content["environment"]),
        }
    )


def _optional(kind: Any, content: Optional[Dict[str, Any]]) -> Any:
    return None if content is None else kind(**content)


def _evidence(content: Optional[Dict[str, Any]]) -> Optional[Evidence]:
    if content is None:
        return None
    return Evidence(
        **{
            **content,
            "counts": Counts(**content["counts"]),
            **{name: Bound(**content[name]) for name in ("drop", "agreement", "macro_f1")},
            "recalls": [ClassDrop(row["name"], row["faces"], Bound(**row["drop"])) for row in content["recalls"]],
        }
    )
