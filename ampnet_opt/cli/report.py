"""`ampnet-opt report`: a comparison as an HTML page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import List, Optional

import typer

from ampnet_opt.cli.compare import FACES, RUNS, SPLIT, scored_faces
from ampnet_opt.cli.inputs import read_checkpoint, require_extra, subjects_of
from ampnet_opt.cli.options import (
    BATCH,
    CLASSES,
    DATA,
    FORCE,
    LANDMARKS_FORMAT,
    OUTPUT_PANEL,
    RADIUS,
    THREADS,
    output_option,
)
from ampnet_opt.core.messages import say
from ampnet_opt.core.progress import stages

ACTIVATION_FACES = 64  # what the page's histograms are taken over


def report(
    subjects: Optional[List[Path]] = typer.Argument(None, metavar="[CKPT] [ENGINES...]", help="As for compare."),
    classes: Optional[str] = CLASSES,
    patch_radius: Optional[int] = RADIUS,
    data: Optional[Path] = DATA,
    form: str = LANDMARKS_FORMAT,
    split: str = SPLIT,
    faces: Optional[int] = FACES,
    batch: int = BATCH,
    threads: Optional[int] = THREADS,
    runs: int = RUNS,
    output: Path = output_option(Path("report.html"), "The page: one file that needs no other."),
    analysis: Optional[Path] = typer.Option(
        None, "--sensitivity", help="A file of ampnet-opt sensitivity, to show.", rich_help_panel=OUTPUT_PANEL
    ),
    pictures: bool = typer.Option(
        True,
        "--with-faces/--without-faces",
        help="Put pictures of faces into the page, or not.",
        rich_help_panel=OUTPUT_PANEL,
    ),
    force: bool = FORCE,
) -> None:
    """Write the comparison of engines with PyTorch as an HTML page, with the layers and faces that INT8 changes most."""
    from ampnet_opt.cli.compare import ComparisonRequest, require_apart_from, run_comparison
    from ampnet_opt.core.errors import MisuseError
    from ampnet_opt.core.files import require_new_file, sha256, write_text
    from ampnet_opt.faces.face import spread

    require_new_file(output, force)
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
        drawn=data is None,
    )
    require_apart_from(request, {"-o": output}, data)
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
        found = run_comparison(request, progress)
        page = page_of(found.report, found.logits, found.labels, request.faces, pictures=pictures, sensitivity=ranking)
        if ranking is not None and quantised:
            progress("looking at activations", 0, 1)
            loaded = read_checkpoint(checkpoint, classes, patch_radius)
            source = source_of(loaded, read_sidecar(quantised[0]).image_input)  # type: ignore[arg-type]
            few = spread(request.faces, ACTIVATION_FACES)
            page = replace(page, activations=worst_activations(source, quantised[0], ranking, few))
    write_text(output, render_page(page))
    say(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
