"""`ampnet-opt sensitivity`: which layers does INT8 cost most?"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Optional

import typer

from ampnet_opt.cli.inputs import faces_of, read_checkpoint, table_of
from ampnet_opt.cli.options import (
    CALIBRATION_PANEL,
    CLASSES,
    DATA,
    FORCE,
    INPUT,
    LANDMARKS_FORMAT,
    METHOD,
    RADIUS,
    SHIPPED,
    CalibrationMethod,
    ImageInput,
    faces_option,
    output_option,
    picture_option,
    split_option,
)
from ampnet_opt.core.messages import say
from ampnet_opt.core.progress import stages

LISTED = 20  # rows of the table on the terminal; the file has all
BATCH = 16


class Units(str, Enum):
    layer = "layer"
    block = "block"


class Mode(str, Enum):
    only = "only"
    all_but = "all-but"


def sensitivity(
    context: typer.Context,
    checkpoint: Optional[Path] = SHIPPED,
    image_input: ImageInput = INPUT,
    classes: Optional[str] = CLASSES,
    patch_radius: Optional[int] = RADIUS,
    data: Optional[Path] = DATA,
    form: str = LANDMARKS_FORMAT,
    split: str = split_option("train", "calibrate and measure on"),
    faces: int = faces_option(256),
    method: CalibrationMethod = METHOD,
    units: Units = typer.Option(
        Units.layer, "--units", help="What to quantise at a time.", rich_help_panel=CALIBRATION_PANEL
    ),
    mode: Mode = typer.Option(
        Mode.only,
        "--mode",
        help="only: INT8 in that unit alone; all-but: INT8 everywhere else.",
        rich_help_panel=CALIBRATION_PANEL,
    ),
    output: Path = output_option(Path("sensitivity.json"), "JSON file."),
    picture: Optional[Path] = picture_option("the most sensitive units"),
    force: bool = FORCE,
) -> None:
    """Show which layers lose most in INT8: divergence, agreement, top-1 and SQNR of each. Interrupted runs resume."""
    from ampnet_opt.core.files import new_file, require_apart, require_new_file, reserved
    from ampnet_opt.faces.face import spread
    from ampnet_opt.shipped import CHECKPOINT

    require_new_file(output, force)
    if picture is not None:
        require_new_file(picture, force)
    context.with_resource(reserved(output))  # to the end of the command
    state = output.with_name(f"{output.name}.partial")  # kept until the result is written
    chosen = spread(faces_of(data, split, form), faces)
    inputs = [checkpoint or CHECKPOINT, table_of(data), *(face.file for face in chosen)]
    require_apart({"-o": output, "--picture": picture}, inputs)
    loaded = read_checkpoint(checkpoint or CHECKPOINT, classes, patch_radius)
    import numpy as np

    from ampnet_opt.convert.source import calibrate, source_of
    from ampnet_opt.core.console import console
    from ampnet_opt.core.labels import label_indices
    from ampnet_opt.sensitivity.analysis import analyse
    from ampnet_opt.sensitivity.report import draw_ranking, render_sensitivity

    labels = np.array(label_indices(loaded.classes, [face.label for face in chosen]))
    way = method.value
    with stages() as progress:
        progress("exporting the graph", 0, 1)
        source = source_of(loaded, image_input.value)
        progress("exporting the graph", 1, 1)
        int8 = calibrate(source, chosen, way, lambda done: progress(f"calibrating ({way})", done, len(chosen)))
        found = analyse(
            source.graph,
            int8,
            checkpoint_sha256=loaded.sha256,
            batches=source.batches(chosen, BATCH),
            labels=labels,
            kind=units.value,
            mode=mode.value,
            state=state,
            progress=lambda done, total: progress(f"measuring each {units.value}", done, total),
        )
    found.write(output)
    state.unlink(missing_ok=True)
    if picture is not None:
        with new_file(picture) as temporary:
            draw_ranking(temporary, found)
    console().print(render_sensitivity(found, LISTED))
    say(f"{output}: {len(found.rows)} {units.value}s")
