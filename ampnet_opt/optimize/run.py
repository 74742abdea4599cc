"""A contest from its inputs to its files: what was found before is taken, a stopped one goes on. Python 3.8."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any, Dict, Optional, Tuple

import numpy as np

from ampnet_opt import __version__
from ampnet_opt.benchmarks.workers import Worker, random_faces
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import require_new, reserved, write_text
from ampnet_opt.core.processor import available_cores, processor_name
from ampnet_opt.core.progress import Steps
from ampnet_opt.faces.face import fingerprint
from ampnet_opt.optimize.candidates import Faces, Maker
from ampnet_opt.optimize.contest import Contest, Request
from ampnet_opt.optimize.page import render_page
from ampnet_opt.optimize.result import Result, earlier_result, place_best, reason
from ampnet_opt.runtime.backend import find_backend

BEST, JSON, PAGE, STATE = "best", "optimize.json", "optimize.html", ".optimize"
KEY = "key"
START_SECONDS = 25.0  # imports, the export, and processes that load what is timed
BUILD_SECONDS = {"cpu": 5.0, "gpu": 120.0}  # of one candidate


@dataclass(frozen=True)
class Inputs:
    """What a contest is held with.

    Attributes:
        source: the checkpoint or bundle, as it was named.
        choosing: faces that candidates are chosen by; None where nothing is chosen by accuracy.
        final: other faces, which prove the choice.
        logits: float32 [N, classes] of PyTorch on the final faces, where a bundle carries them.
        drawn: whether the faces are drawn.
        passed_over: backend -> why it does not run here.
    """

    source: str
    choosing: Optional[Faces]
    final: Faces
    logits: Optional[np.ndarray] = None
    drawn: bool = False
    passed_over: Optional[Dict[str, str]] = None


def optimize(
    maker: Maker, inputs: Inputs, request: Request, output: Path, *, step: Steps, force: bool = False
) -> Tuple[Result, bool]:
    """Find the best engine, and write it to `output`/best, with the figures in optimize.json and optimize.html beside it.

    force: measure again, and replace what stands there. Returns the result, and whether it is that of an earlier run with
    the same inputs, whose engine stands there still. What a stopped run has built is taken up again.

    Raises AmpnetError when there is no best one: optimize.json and the page are written all the same. Other errors as of
    `Contest.hold`.
    """
    began = time.monotonic()
    state_key, key = _keys(maker, inputs, request)
    target = output / BEST
    if not force:
        found = earlier_result(output / JSON, key, target)
        if found is not None:
            return found, True
    require_new(target, force)
    with reserved(target):
        folder = _state(output / STATE, state_key)
        contest = Contest(
            maker, request, folder, choosing=inputs.choosing, final=inputs.final, logits=inputs.logits, step=step
        )
        outcome = contest.hold()
        why = "" if outcome.best is None else reason(outcome, request.goal.name, request.threads)
        result = Result(
            key=key,
            source=inputs.source,
            trained=maker.trained,
            drawn=inputs.drawn,
            goal=request.goal.name,
            margin=request.margin,
            max_value=request.max_value,
            batch=request.batch,
            threads=request.threads,
            choosing_faces=0 if inputs.choosing is None else len(inputs.choosing.faces),
            final_faces=len(inputs.final.faces),
            rows=outcome.trials,
            best=None if outcome.best is None else outcome.best.name,
            why=why,
            problem=outcome.problem,
            reference=outcome.reference,
            environment=outcome.environment,
            seconds=round(time.monotonic() - began, 1),
            # Without what to do about it, which `doctor` says and which names this machine's folders.
            passed_over={name: why.partition(";")[0] for name, why in (inputs.passed_over or {}).items()},
        )
        if outcome.best is not None:
            with step(f"checking {outcome.best.name}", 0):
                made_of = maker.request(outcome.best.candidate, step)
                place_best(folder / outcome.best.name, made_of, {"goal": request.goal.name, "why": why}, target, force)
        write_text(output / JSON, result.to_json())
        write_text(output / PAGE, render_page(result))
        if outcome.best is None:
            raise AmpnetError(f"{outcome.problem} (all figures: {output / PAGE})")
        rmtree(folder, ignore_errors=True)
    return result, False


def estimated_seconds(maker: Maker, inputs: Inputs, request: Request) -> Optional[float]:
    """What `optimize` takes without other work on the machine, roughly; None for a bundle, whose board has no PyTorch.

    In inferences of PyTorch, one of which is timed here: calibration and bias corrections take about 700, and a face that is
    scored by PyTorch and five engines 2. The constants are those of the small and the full-size network on two cores.
    """
    if maker.reference is None:
        return None
    with Worker(maker.reference) as worker:
        inference = min(worker.time(*random_faces(1), 2, 5))
    candidates = maker.candidates()
    builds = sum(BUILD_SECONDS[find_backend(candidate.backend).device] for candidate in candidates)
    scored = len(inputs.final.faces) + (0 if inputs.choosing is None else len(inputs.choosing.faces))
    return START_SECONDS + builds + 2 * request.seconds + inference * (700 + 2 * scored)


def _keys(maker: Maker, inputs: Inputs, request: Request) -> Tuple[str, str]:
    """Digests of what engines and answers follow from, and of that and of what is asked of them."""
    sets = {"final": inputs.final, **({} if inputs.choosing is None else {"choosing": inputs.choosing})}
    content: Dict[str, Any] = {
        **maker.identity,
        **{name: [fingerprint(faces.faces), list(map(int, faces.labels))] for name, faces in sets.items()},
        "version": __version__,
        "machine": [processor_name(), available_cores()],
    }
    state = _digest(content)
    return state, _digest({"state": state, **asdict(request)})


def _digest(content: Dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _state(folder: Path, key: str) -> Path:
    """The folder of what is built, as a stopped run with this key has left it, or empty."""
    marker = folder / KEY
    if folder.is_dir() and not (marker.is_file() and marker.read_text(encoding="utf-8") == key):
        rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(key, encoding="utf-8")
    return folder
