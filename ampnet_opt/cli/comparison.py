"""What `compare` and `report` are asked to measure."""

from __future__ import annotations

from contextlib import ExitStack
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
        detected: score the faces that a detector finds, too.
        detector: its ONNX file; None, the default one.
    """

    checkpoint: Path
    engines: Sequence[Path]
    faces: Sequence[Any]
    classes: Optional[str]
    patch_radius: Optional[int]
    batch: int
    threads: Optional[int]
    runs: int
    detected: bool = False
    detector: Optional[Path] = None


def measure(request: ComparisonRequest, progress: Callable[[str, int, int], None]) -> Any:
    """The `benchmarks.compare.Comparison` of a request; errors as there."""
    from ampnet_opt.benchmarks.compare import compare
    from ampnet_opt.core.labels import parse_classes

    with ExitStack() as stack:
        finder = None
        if request.detected:
            from ampnet_opt.detection.detector import load_detector

            finder = load_detector(request.detector, threads=request.threads)
            stack.callback(finder.close)
        return compare(
            request.checkpoint,
            request.engines,
            request.faces,
            classes=None if request.classes is None else parse_classes(request.classes),
            patch_radius=request.patch_radius,
            batch=request.batch,
            threads=request.threads,
            runs=request.runs,
            detector=finder,
            progress=progress,
        )
