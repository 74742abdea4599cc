"""`ampnet-opt run`: faces in, expressions out."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import List, Optional

import typer

from ampnet_opt.cli.json_output import STDOUT, json_lines
from ampnet_opt.cli.options import FACES_PANEL, INFERENCE_PANEL, LANDMARKS_FORMAT, THREADS, json_option
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.messages import remark, say


def run(
    engine: Path = typer.Argument(..., metavar="ENGINE", help="An engine directory."),
    images: List[Path] = typer.Argument(..., metavar="IMAGES", help="Pictures, or folders of them."),
    landmarks: Path = typer.Option(
        ..., "--landmarks", help="Table with file and the five landmarks, or its folder.", rich_help_panel=FACES_PANEL
    ),
    form: str = LANDMARKS_FORMAT,
    threads: Optional[int] = THREADS,
    trusted: bool = typer.Option(
        False,
        "--trusted",
        help="Run an engine whose files were changed after it was built.",
        rich_help_panel=INFERENCE_PANEL,
    ),
    json_file: Optional[Path] = json_option("one JSON object a line"),
) -> None:
    """Classify faces: the expression and its probability for every picture."""
    from ampnet_opt.core.text import count
    from ampnet_opt.pipeline.classify import classify, find_faces, left_out, name_unread

    found = find_faces(images, landmarks, form)
    others = left_out(images)
    if others:
        remark(f"note: {count(len(others), 'picture')} left out, of formats not read here: {name_unread(others)}")
    from ampnet_opt.runtime import Engine

    failures = 0
    with ExitStack() as stack:
        loaded = stack.enter_context(Engine.load(engine, threads, trusted=trusted))
        write = None if json_file is None else stack.enter_context(json_lines(json_file))
        if not loaded.sidecar.trained:
            remark("untrained weights: these answers mean nothing")
        for result in classify(loaded, found, threads):
            if result.error is not None:
                failures += 1
                remark(f"error: {result.error}")
                continue
            if write is not None:
                write(result.as_dict())
            if json_file != STDOUT:
                say(f"{result.file}  {result.label}  {result.probabilities[result.label]:.1%}")
    if failures:
        raise AmpnetError(f"{failures} of {len(found)} pictures could not be classified")
