"""Candidates of a bundle, on the board that it was made for. Python 3.8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, Sequence

from ampnet_opt.benchmarks.workers import Subject
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.progress import Steps
from ampnet_opt.optimize.candidates import PRECISIONS, Candidate
from ampnet_opt.runtime.backend import find_backend
from ampnet_opt.runtime.build import EngineRequest
from ampnet_opt.runtime.bundle import Bundle
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.unbundle import part_request

if TYPE_CHECKING:
    from ampnet_opt.sensitivity.search import Limit


class BundleMaker:
    """As `candidates.Maker`. The bundle stays open meanwhile."""

    def __init__(self, bundle: Bundle, backend: str, precisions: Sequence[str], compiling: CompileOptions) -> None:
        """
        Args:
            bundle: of a checkpoint.
            backend: the bundle's, by its name.
            precisions: that this machine computes in.
            compiling: how the backend compiles.
        """
        contents = bundle.contents
        if contents.parts is None or contents.origin is None:
            raise MisuseError(f"bundle {bundle.path} holds a finished engine: there is nothing to choose from")
        self.reference: Optional[Subject] = None
        self.classes, self.trained = tuple(contents.origin.classes), contents.origin.trained
        self.identity = {
            "bundle": str(sorted(contents.members.items())),
            f"{backend} version": find_backend(backend).availability().version,
            "batch": str(compiling.batch),
        }
        self._backend, self._bundle, self._compiling = backend, bundle, compiling
        self._parts = {part.precision: part for part in contents.parts if part.precision in precisions}
        if not self._parts:
            held = ", ".join(part.precision for part in contents.parts)
            raise MisuseError(f"this machine computes in none of the precisions of bundle {bundle.path} ({held})")

    def candidates(self) -> List[Candidate]:
        return [Candidate(self._backend, precision) for precision in sorted(self._parts, key=PRECISIONS.index)]

    def variants(self, candidate: Candidate) -> List[Candidate]:
        return []

    def request(self, candidate: Candidate, step: Steps) -> EngineRequest:
        return part_request(self._bundle, self._parts[candidate.precision], self._compiling)

    def mix(self, candidate: Candidate, engines: Path, limit: Limit, step: Steps) -> Sequence[Candidate]:
        return ()
