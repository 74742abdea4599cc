"""The command that explains INT8: which layers it costs most."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import typer

from ampnet_opt.terminal import (
    CLASSES,
    FORCE,
    RADIUS,
    SHIPPED,
    faces_of,
    one_of,
    read_checkpoint,
    require_extra,
    stages,
)

LISTED = 20  # rows of the table on the terminal; the file has all


def sensitivity(
    checkpoint: Optional[Path] = SHIPPED,
    output: Path = typer.Option(Path("sensitivity.json"), "-o", "--output", help="JSON file; the picture goes beside it."),
    data: Optional[Path] = typer.Option(None, "--data", help="CSV of labelled faces (default: drawn faces)."),
    split: str = typer.Option("train", "--split", help="Rows of the CSV to calibrate and to measure on."),
    faces: int = typer.Option(256, "--faces", min=1, help="How many of them, spread evenly."),
    kind: str = typer.Option("layer", "--units", help="What is quantised at a time: layer or block."),
    mode: str = typer.Option("only", "--mode", help="only: INT8 in that unit alone; all-but: everywhere else."),
    method: str = typer.Option("entropy", "--calibration", help="entropy, minmax, mse or percentile."),
    image_input: str = typer.Option("uint8", "--input", help="As for build: uint8 or float32."),
    classes: Optional[str] = CLASSES,
    patch_radius: Optional[int] = RADIUS,
    force: bool = FORCE,
) -> None:
    """What INT8 costs, layer by layer: divergence of the answers, agreement, top-1 and SQNR. A stopped run goes on."""
    from ampnet_opt.calibration.ranges import METHODS
    from ampnet_opt.faces import spread
    from ampnet_opt.files import require_new
    from ampnet_opt.shipped import CHECKPOINT

    one_of("--units", kind, ("layer", "block"))
    one_of("--mode", mode, ("only", "all-but"))
    one_of("--calibration", method, tuple(METHODS))
    one_of("--input", image_input, ("uint8", "float32"))
    require_new(output, force)
    chosen = spread(faces_of(data, split), faces)
    require_extra()
    loaded = read_checkpoint(checkpoint or CHECKPOINT, classes, patch_radius)
    import numpy as np
    from rich.console import Console

    from ampnet_opt.convert.source import calibrate, source_of
    from ampnet_opt.labels import label_indices
    from ampnet_opt.sensitivity.analysis import analyse
    from ampnet_opt.sensitivity.table import render

    labels = np.array(label_indices(loaded.classes, [face.label for face in chosen]))
    with stages() as progress:
        progress("exporting the graph", 0, 1)
        source = source_of(loaded, image_input)  # type: ignore[arg-type]
        int8 = calibrate(source, chosen, method, lambda done: progress(f"calibrating ({method})", done, len(chosen)))
        found = analyse(
            source.graph,
            loaded.sha256,
            int8,
            source.batches(chosen, 16),
            labels,
            kind,  # type: ignore[arg-type]
            mode,  # type: ignore[arg-type]
            output.with_name(f"{output.name}.partial"),
            lambda done, total: progress(f"measuring each {kind}", done, total),
        )
    found.write(output)
    Console().print(render(found, LISTED))
    typer.echo(f"{output}: {len(found.rows)} {kind}s")
