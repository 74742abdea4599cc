"""What `compare` and `report` are asked to measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Sequence


@dataclass(frozen=True)
class ComparisonRequest:
    """What `compare` and `report` measure.

    Attributes:
        checkpoint: the reference.
        engines: directories.
        faces: the labelled faces that are scored.
        classes: of a checkpoint that names none, as `--classes` takes them.
        patch_radius: of the authors' files; None, the published one.
        batch: faces of an inference that is timed.
        threads: of the CPU; None, one per core.
        runs: timed inferences of each.
    """

    checkpoint: Path
    engines: Sequence[Path]
    faces: Sequence[Any]
    classes: Optional[str]
    patch_radius: Optional[int]
    batch: int
    threads: Optional[int]
    runs: int


def measure(request: ComparisonRequest, progress: Callable[[str, int, int], None]) -> Any:
    """The `benchmarks.compare.Comparison` of a request; errors as there."""
    from ampnet_opt.benchmarks.compare import compare
    from ampnet_opt.core.labels import parse_classes

    return compare(
        request.checkpoint,
        request.engines,
        request.faces,
        classes=None if request.classes is None else parse_classes(request.classes),
        patch_radius=request.patch_radius,
        batch=request.batch,
        threads=request.threads,
        runs=request.runs,
        progress=progress,
    )
