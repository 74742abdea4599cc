"""What could be built on this machine, and what makes it. Python 3.8."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Optional, Protocol, Sequence, Tuple

from ampnet_opt.benchmarks.workers import Subject
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.progress import Steps
from ampnet_opt.faces.face import Face
from ampnet_opt.runtime.backend import REGISTERED, find_backend
from ampnet_opt.runtime.build import EngineRequest, engine_name
from ampnet_opt.system.doctor import availability

if TYPE_CHECKING:
    from ampnet_opt.sensitivity.search import Limit  # boards have nothing to search in

# From what is nearest to PyTorch's arithmetic to what is farthest from it.
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True)
class Candidate:
    """An engine that could be built.

    Attributes:
        backend: by its name.
        precision: of PRECISIONS.
        method: how int8 is calibrated, of `calibration.ranges.METHODS`; "" where a bundle decided it, and for others.
        float_layers: of int8, how many layers stay in floating point by choice.
    """

    backend: str
    precision: str
    method: str = ""
    float_layers: int = 0

    @property
    def name(self) -> str:
        """For tables and directories: "cpu-int8-entropy-5-float"."""
        kept = f"{self.float_layers}-float" if self.float_layers else ""
        return "-".join(part for part in (engine_name(self.backend, self.precision), self.method, kept) if part)

    @property
    def distance(self) -> Tuple[int, int]:
        """From PyTorch's arithmetic, for ordering: the smaller, the nearer."""
        return PRECISIONS.index(self.precision), -self.float_layers


class Maker(Protocol):
    """Makes the candidates of one checkpoint or bundle.

    Attributes:
        classes: of the network.
        trained: False for seeded weights, whose answers mean nothing.
        identity: digests of all that its engines and answers follow from.
        reference: PyTorch, as what a worker measures; None where torch is not part of it.
    """

    classes: Tuple[str, ...]
    trained: bool
    identity: Dict[str, str]
    reference: Optional[Subject]

    def candidates(self) -> Sequence[Candidate]:
        """Those to begin with, one for each backend and precision, the cheapest to build first."""

    def variants(self, candidate: Candidate) -> Sequence[Candidate]:
        """Candidates of the same speed as this one, but with other answers: int8 calibrated in other ways."""

    def request(self, candidate: Candidate, step: Steps) -> EngineRequest:
        """What the engine is made of; errors as of `build`."""

    def mix(self, candidate: Candidate, engines: Path, limit: Limit, step: Steps) -> Sequence[Candidate]:
        """int8 candidates with layers in floating point that hold `limit` on the choosing faces, to be timed.

        engines: the folder of the engines that were built, by their names. Empty where no choice holds, or this maker has
        no graph to choose in.
        """


def runnable(names: Sequence[str] = ()) -> Tuple[List[Tuple[str, Tuple[str, ...]]], Dict[str, str]]:
    """Backends that build and run here, each with the precisions that this machine computes in; and why others do not.

    names: look at these alone. Raises AmpnetError where one of them, or none at all, runs here.
    """
    able: List[Tuple[str, Tuple[str, ...]]] = []
    problems: Dict[str, str] = {}
    for name in names or REGISTERED:
        backend = find_backend(name)
        here = availability(backend)
        if here.builds and here.runs:
            able.append((name, tuple(p for p in PRECISIONS if p in (here.precisions or backend.precisions))))
        else:
            problems[name] = here.problem or "it does not run here"
    if names and problems:
        name, why = next(iter(problems.items()))
        raise AmpnetError(f"engines of the backend {name} cannot be measured here: {why}")
    if not able:
        raise AmpnetError("no backend runs on this machine: ampnet-opt doctor says what each needs")
    return able, problems


@dataclass(frozen=True)
class Faces:
    """Labelled faces, as they are judged by. labels: places in the network's classes."""

    faces: Sequence[Face]
    labels: Sequence[int]

    def __post_init__(self) -> None:
        if not self.faces:
            raise MisuseError("there are no faces to judge by")
