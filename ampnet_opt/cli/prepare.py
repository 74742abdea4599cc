"""`ampnet-opt prepare`: faces and landmarks from pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Iterable, Optional

import typer

from ampnet_opt.cli.options import (
    DETECTION_PANEL,
    DETECTOR,
    DETECTOR_BACKEND,
    FACES_PANEL,
    LANDMARKS_FORMAT,
    MOST_WORKERS,
    OUTPUT_PANEL,
    one_of,
    output_option,
)
from ampnet_opt.core.messages import remark, say
from ampnet_opt.core.progress import counter
from ampnet_opt.core.text import count


def _formats() -> Iterable[str]:
    from ampnet_opt.datasets.registry import NAMES

    return NAMES


def prepare(
    pictures: Path = typer.Argument(..., metavar="IMAGES_OR_DATASET", help="A picture, a folder of them, or a data set."),
    format: Optional[str] = typer.Option(
        None,
        "--format",
        metavar="FORMAT",
        help="Format of the data set, or the data set whose numbers name the class folders.",
        rich_help_panel=FACES_PANEL,
        **one_of("--format", _formats),
    ),
    classes: Optional[str] = typer.Option(
        None,
        "--classes",
        help="Classes of numbered folders or labels in order, the classes to take, or label=class pairs.",
        rich_help_panel=FACES_PANEL,
    ),
    form: str = LANDMARKS_FORMAT,
    detector: Optional[Path] = DETECTOR,
    detector_backend: Optional[str] = DETECTOR_BACKEND,
    crop: bool = typer.Option(
        True, help="Cut out the face; --no-crop keeps aligned pictures whole.", rich_help_panel=DETECTION_PANEL
    ),
    every: bool = typer.Option(
        False, "--all-faces", help="Take every face of a picture, not only the largest.", rich_help_panel=DETECTION_PANEL
    ),
    workers: Optional[int] = typer.Option(
        None,
        "--workers",
        min=1,
        max=MOST_WORKERS,
        help="Processes (default: one for each core).",
        rich_help_panel=DETECTION_PANEL,
    ),
    output: Path = output_option(..., "Folder for faces.csv and images/."),
    force: bool = typer.Option(
        False,
        "--force",
        help="Replace an earlier preparation, its tables and pictures; your own files in images/ stay.",
        rich_help_panel=OUTPUT_PANEL,
    ),
) -> None:
    """Find faces and landmarks in pictures or a data set; write faces.csv and images/ of 224 x 224."""
    from ampnet_opt.datasets.listing import SKIPPED
    from ampnet_opt.datasets.registry import read_dataset
    from ampnet_opt.preparing.prepare import prepare as run

    dataset = read_dataset(pictures, format, classes)
    for note in dataset.notes:
        remark(f"note: {note}")
    total = len(dataset.pictures)
    title = f"{dataset.format}: {count(total, 'picture')}"
    with counter(title, total) as bar:
        done = run(
            dataset.pictures,
            output,
            detector,
            detector_backend=detector_backend,
            crop=crop,
            form=form,
            faces="all" if every else "largest",
            workers=workers,
            force=force,
            progress=lambda finished: bar(finished, title),
            skipped=dataset.skipped,
        )
    taken = "all" if every else "the largest"
    several = f"; several in {count(done.several, 'picture')}, {taken} taken" if done.several else ""
    say(f"{done.table}: {count(done.faces, 'face')}{several}")
    for reason, number in done.skipped.items():
        remark(f"skipped: {number}, {reason} (listed in {done.table.with_name(SKIPPED)})")
