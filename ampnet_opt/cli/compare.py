"""`ampnet-opt compare`: engines against PyTorch: as accurate, and how fast?"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, List, Mapping, Optional, Sequence

import typer

from ampnet_opt.cli.inputs import faces_of, require_extra, subjects_of, table_of
from ampnet_opt.cli.options import (
    BATCH,
    CLASSES,
    DATA,
    DETECTION_PANEL,
    DETECTOR,
    DETECTOR_BACKEND,
    LANDMARKS_FORMAT,
    RADIUS,
    STDOUT,
    THREADS,
    faces_option,
    json_option,
    runs_option,
    split_option,
    write_json,
)
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.progress import stages


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
        detector_backend: that runs it; None, the fastest on a CPU.
        drawn: whether the faces are drawn.
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
    detector_backend: Optional[str] = None
    drawn: bool = False


def run_comparison(request: ComparisonRequest, progress: Callable[[str, int, int], None]) -> Any:
    """The `benchmarks.compare.Comparison` of a request; errors as there."""
    from ampnet_opt.benchmarks.compare import compare
    from ampnet_opt.core.labels import parse_classes

    with ExitStack() as stack:
        finder = None
        if request.detected:
            from ampnet_opt.detection.detector import load_detector

            finder = load_detector(request.detector, backend=request.detector_backend, threads=request.threads)
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
            drawn=request.drawn,
            progress=progress,
        )


SPLIT = split_option("test", "score on")
FACES = faces_option(None)
RUNS = runs_option(1, "Timed runs of each engine.")


def compare(
    subjects: Optional[List[Path]] = typer.Argument(
        None, metavar="[CKPT] [ENGINES...]", help="Default: the package's checkpoint, and all engines in engines/."
    ),
    classes: Optional[str] = CLASSES,
    patch_radius: Optional[int] = RADIUS,
    data: Optional[Path] = DATA,
    form: str = LANDMARKS_FORMAT,
    split: str = SPLIT,
    faces: Optional[int] = FACES,
    batch: int = BATCH,
    threads: Optional[int] = THREADS,
    runs: int = RUNS,
    pipeline: bool = typer.Option(
        False,
        "--pipeline",
        help="Also measure what detection costs: score the same pictures with faces as `run` finds them.",
        rich_help_panel=DETECTION_PANEL,
    ),
    detector: Optional[Path] = DETECTOR,
    detector_backend: Optional[str] = DETECTOR_BACKEND,
    json_file: Optional[Path] = json_option("everything measured"),
) -> None:
    """Measure accuracy and latency of engines beside the PyTorch checkpoint, in one run."""
    from ampnet_opt.core.console import console

    for option, value in (("--detector", detector), ("--detector-backend", detector_backend)):
        if value is not None and not pipeline:
            raise MisuseError(f"{option} needs --pipeline")
    checkpoint, engines = subjects_of(subjects or [])
    request = ComparisonRequest(
        checkpoint=checkpoint,
        engines=engines,
        faces=scored_faces(data, split, faces, form),
        classes=classes,
        patch_radius=patch_radius,
        batch=batch,
        threads=threads,
        runs=runs,
        detected=pipeline,
        detector=detector,
        detector_backend=detector_backend,
        drawn=data is None,
    )
    require_apart_from(request, {"--json": json_file}, data)
    require_extra()
    from ampnet_opt.benchmarks.report import render_comparison

    with stages() as progress:
        found = run_comparison(request, progress)
    if json_file != STDOUT:
        console().print(render_comparison(found.report))
    if json_file is not None:
        write_json(json_file, found.report.to_json())


def require_apart_from(request: ComparisonRequest, outputs: Mapping[str, Optional[Path]], data: Optional[Path]) -> None:
    """As `core.files.require_apart`, of what a comparison reads. data: the table of its faces."""
    from ampnet_opt.core.files import require_apart

    pictures = [face.file for face in request.faces]
    require_apart(outputs, [request.checkpoint, *request.engines, request.detector, table_of(data), *pictures])


def scored_faces(data: Optional[Path], split: str, most: Optional[int], form: str) -> List[Any]:
    """At most so many faces of a split, spread evenly; otherwise as `faces_of`."""
    from ampnet_opt.faces.face import spread

    faces = faces_of(data, split, form)
    return faces if most is None else spread(faces, most)
