"""The commands that measure: engines against PyTorch, in a table or on a page, and which layers INT8 costs most."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, List, Optional

import typer

from ampnet_opt.cli.messages import say
from ampnet_opt.cli.terminal import (
    CLASSES,
    DATA,
    FORCE,
    INPUT,
    INPUTS,
    LANDMARKS_FORMAT,
    METHOD,
    RADIUS,
    SHIPPED,
    THREADS,
    faces_of,
    one_of,
    read_checkpoint,
    require_extra,
    stages,
    subjects_of,
)

ACTIVATION_FACES = 64  # what the page's histograms are taken over
LISTED = 20  # rows of the table on the terminal; the file has all
SCORED = typer.Option("test", "--split", help="Rows of the table to score on; all: every row.")
LIMIT = typer.Option(None, "--limit", min=1, help="Only so many faces, spread evenly.")
BATCH = typer.Option(1, "--batch", min=1, max=1 << 16, help="Batch that is timed.")
RUNS = typer.Option(50, "--runs", min=1, max=1_000_000, help="Timed runs of each engine.")


def compare(
    subjects: Optional[List[Path]] = typer.Argument(
        None, metavar="[CKPT] [ENGINES...]", help="Default: the package's checkpoint, and all that lies in engines/."
    ),
    data: Optional[Path] = DATA,
    form: str = LANDMARKS_FORMAT,
    split: str = SCORED,
    limit: Optional[int] = LIMIT,
    batch: int = BATCH,
    threads: Optional[int] = THREADS,
    runs: int = RUNS,
    json_file: Optional[Path] = typer.Option(None, "--json", help="Write everything measured to this file."),
    classes: Optional[str] = CLASSES,
    patch_radius: Optional[int] = RADIUS,
) -> None:
    """Accuracy and latency of engines against the PyTorch checkpoint, measured in one run."""
    from ampnet_opt.core.console import console
    from ampnet_opt.core.files import write_text

    checkpoint, engines = subjects_of(subjects or [])
    chosen = _scored(data, split, limit, form)
    require_extra()
    from ampnet_opt.benchmarks.report import render

    with stages() as progress:
        found = _compared(checkpoint, engines, chosen, classes, patch_radius, batch, threads, runs, progress)
    console().print(render(found.report))
    if json_file is not None:
        write_text(json_file, found.report.to_json())


def sensitivity(
    checkpoint: Optional[Path] = SHIPPED,
    output: Path = typer.Option(Path("sensitivity.json"), "-o", "--output", help="JSON file."),
    picture: Optional[Path] = typer.Option(None, "--picture", help="PNG of the costliest units."),
    data: Optional[Path] = DATA,
    form: str = LANDMARKS_FORMAT,
    split: str = typer.Option("train", "--split", help="Rows of the table to calibrate and measure on; all: every row."),
    faces: int = typer.Option(256, "--faces", min=1, help="How many of them, spread evenly."),
    kind: str = typer.Option("layer", "--units", help="What is quantised at a time: layer or block."),
    mode: str = typer.Option("only", "--mode", help="only: INT8 in that unit alone; all-but: everywhere else."),
    method: str = METHOD,
    image_input: str = INPUT,
    classes: Optional[str] = CLASSES,
    patch_radius: Optional[int] = RADIUS,
    force: bool = FORCE,
) -> None:
    """What INT8 costs, layer by layer: divergence of the answers, agreement, top-1 and SQNR. A stopped run goes on."""
    from ampnet_opt.calibration.ranges import METHODS
    from ampnet_opt.core.files import new_file, require_new_file
    from ampnet_opt.faces.face import spread
    from ampnet_opt.shipped import CHECKPOINT

    one_of("--units", kind, ("layer", "block"))
    one_of("--mode", mode, ("only", "all-but"))
    one_of("--calibration", method, tuple(METHODS))
    one_of("--input", image_input, INPUTS)
    require_new_file(output, force)
    if picture is not None:
        require_new_file(picture, force)
    chosen = spread(faces_of(data, split, form), faces)
    loaded = read_checkpoint(checkpoint or CHECKPOINT, classes, patch_radius)
    import numpy as np

    from ampnet_opt.convert.source import calibrate, source_of
    from ampnet_opt.core.console import console
    from ampnet_opt.core.labels import label_indices
    from ampnet_opt.sensitivity.analysis import analyse
    from ampnet_opt.sensitivity.chart import draw_ranking
    from ampnet_opt.sensitivity.table import render

    labels = np.array(label_indices(loaded.classes, [face.label for face in chosen]))
    with stages() as progress:
        progress("exporting the graph", 0, 1)
        source = source_of(loaded, image_input)  # type: ignore[arg-type]
        progress("exporting the graph", 1, 1)
        int8 = calibrate(source, chosen, method, lambda done: progress(f"calibrating ({method})", done, len(chosen)))
        found = analyse(
            source.graph,
            int8,
            checkpoint_sha256=loaded.sha256,
            batches=source.batches(chosen, 16),
            labels=labels,
            kind=kind,  # type: ignore[arg-type]
            mode=mode,  # type: ignore[arg-type]
            state=output.with_name(f"{output.name}.partial"),
            progress=lambda done, total: progress(f"measuring each {kind}", done, total),
        )
    found.write(output)
    if picture is not None:
        with new_file(picture) as temporary:
            draw_ranking(temporary, found)
    console().print(render(found, LISTED))
    say(f"{output}: {len(found.rows)} {kind}s")


def report(
    subjects: Optional[List[Path]] = typer.Argument(None, metavar="[CKPT] [ENGINES...]", help="As for compare."),
    output: Path = typer.Option(Path("report.html"), "-o", "--output", help="The page: one file that needs no other."),
    data: Optional[Path] = DATA,
    form: str = LANDMARKS_FORMAT,
    split: str = SCORED,
    limit: Optional[int] = LIMIT,
    analysis: Optional[Path] = typer.Option(None, "--sensitivity", help="File of ampnet-opt sensitivity."),
    pictures: bool = typer.Option(True, "--faces/--no-faces", help="Whether pictures of faces go into the page."),
    batch: int = BATCH,
    threads: Optional[int] = THREADS,
    runs: int = RUNS,
    classes: Optional[str] = CLASSES,
    patch_radius: Optional[int] = RADIUS,
    force: bool = FORCE,
) -> None:
    """Compare, as an HTML page: accuracy, confusion, sensitivity, activations, the faces whose answers moved most."""
    from ampnet_opt.core.errors import MisuseError
    from ampnet_opt.core.files import require_new_file, sha256, write_text
    from ampnet_opt.faces.face import spread

    require_new_file(output, force)
    checkpoint, engines = subjects_of(subjects or [])
    chosen = _scored(data, split, limit, form)
    require_extra()
    from ampnet_opt.benchmarks.page.activations import worst_activations
    from ampnet_opt.benchmarks.page.data import page_of
    from ampnet_opt.benchmarks.page.render import render_page
    from ampnet_opt.convert.source import source_of
    from ampnet_opt.runtime.sidecar import read_sidecar
    from ampnet_opt.sensitivity.analysis import read_sensitivity

    ranking = None if analysis is None else read_sensitivity(analysis)
    if ranking is not None and ranking.checkpoint_sha256 != sha256(checkpoint):
        raise MisuseError(
            f"{analysis} was measured on another checkpoint than {checkpoint}: run ampnet-opt sensitivity again"
        )
    quantised = [engine for engine in engines if read_sidecar(engine).precision == "int8"]
    with stages() as progress:
        found = _compared(checkpoint, engines, chosen, classes, patch_radius, batch, threads, runs, progress)
        page = page_of(found.report, found.logits, found.labels, chosen, pictures=pictures, sensitivity=ranking)
        if ranking is not None and quantised:
            progress("looking at activations", 0, 1)
            loaded = read_checkpoint(checkpoint, classes, patch_radius)
            source = source_of(loaded, read_sidecar(quantised[0]).image_input)  # type: ignore[arg-type]
            few = spread(chosen, ACTIVATION_FACES)
            page = replace(page, activations=worst_activations(source, quantised[0], ranking, few))
    write_text(output, render_page(page))
    say(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


def _scored(data: Optional[Path], split: str, limit: Optional[int], form: str) -> List[Any]:
    from ampnet_opt.faces.face import spread

    faces = faces_of(data, split, form)
    return faces if limit is None else spread(faces, limit)


def _compared(
    checkpoint: Path,
    engines: List[Path],
    faces: List[Any],
    classes: Optional[str],
    patch_radius: Optional[int],
    batch: int,
    threads: Optional[int],
    runs: int,
    progress: Any,
) -> Any:
    from ampnet_opt.benchmarks.compare import compare
    from ampnet_opt.core.labels import parse_classes

    return compare(
        checkpoint,
        engines,
        faces,
        classes=None if classes is None else parse_classes(classes),
        patch_radius=patch_radius,
        batch=batch,
        threads=threads,
        runs=runs,
        progress=progress,
    )
