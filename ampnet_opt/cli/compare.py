"""`ampnet-opt compare`: engines against PyTorch: as accurate, and how fast?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Optional

import typer

from ampnet_opt.cli.inputs import faces_of, require_extra, subjects_of
from ampnet_opt.cli.json_output import STDOUT, write_json
from ampnet_opt.cli.options import (
    BATCH,
    CLASSES,
    DATA,
    DETECTION_PANEL,
    DETECTOR,
    LANDMARKS_FORMAT,
    RADIUS,
    THREADS,
    faces_option,
    json_option,
    runs_option,
    split_option,
)
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.progress import stages

SPLIT = split_option("test", "score on")
FACES = faces_option(None)
RUNS = runs_option(1, "Timed runs of each engine.")


def compare(
    subjects: Optional[List[Path]] = typer.Argument(
        None, metavar="[CKPT] [ENGINES...]", help="Default: the package's checkpoint, and all that lies in engines/."
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
        help="Also what detection costs: the same pictures with faces as `run` finds them.",
        rich_help_panel=DETECTION_PANEL,
    ),
    detector: Optional[Path] = DETECTOR,
    json_file: Optional[Path] = json_option("everything measured"),
) -> None:
    """Accuracy and latency of engines against the PyTorch checkpoint, measured in one run."""
    from ampnet_opt.cli.comparison import ComparisonRequest, measure
    from ampnet_opt.core.console import console

    if detector is not None and not pipeline:
        raise MisuseError("--detector needs --pipeline")
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
    )
    require_extra()
    from ampnet_opt.benchmarks.report import render

    with stages() as progress:
        found = measure(request, progress)
    if json_file != STDOUT:
        console().print(render(found.report))
    if json_file is not None:
        write_json(json_file, found.report.to_json())


def scored_faces(data: Optional[Path], split: str, most: Optional[int], form: str) -> List[Any]:
    """At most so many faces of a split, spread evenly; otherwise as `faces_of`."""
    from ampnet_opt.faces.face import spread

    faces = faces_of(data, split, form)
    return faces if most is None else spread(faces, most)
