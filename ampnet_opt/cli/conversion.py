"""What `build` and `bundle` are asked to make of a checkpoint, and from there what `convert` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Tuple

import typer

from ampnet_opt.cli.inputs import apart, faces_of, read_checkpoint
from ampnet_opt.cli.options import CalibrationMethod, ImageInput, flags, given
from ampnet_opt.core.errors import MisuseError

# Parameters of these commands that mean something only beside others.
OF_INT8, OF_BUDGET = {"method", "scales", "max_drop", "min_sqnr"}, {"min_agreement", "held_out", "ranking"}


@dataclass(frozen=True)
class Calibration:
    """Faces that calibrate, and how.

    Attributes:
        data: the table of faces; None, drawn ones.
        form: of the landmarks, as `--landmarks-format` takes it.
        split: rows of the table.
        faces: how many of them, at most.
        method: how ranges become scales.
        scales: a calibration table that is taken instead.
    """

    data: Optional[Path]
    form: str
    split: str
    faces: int
    method: CalibrationMethod
    scales: Optional[Path]


@dataclass(frozen=True)
class AccuracyBudget:
    """What INT8 may cost, proved on held-out faces.

    Attributes:
        max_drop: points of top-1 that may be lost; None, any.
        min_sqnr: dB that the logits have to keep; None, any.
        min_agreement: per cent of the answers that have to stay the same, beside either.
        held_out: rows of the table that prove it.
        ranking: a file of `ampnet-opt sensitivity`; None, it is measured.
    """

    max_drop: Optional[float]
    min_sqnr: Optional[float]
    min_agreement: float
    held_out: str
    ranking: Optional[Path]

    @property
    def is_given(self) -> bool:
        return self.max_drop is not None or self.min_sqnr is not None


@dataclass(frozen=True)
class ConversionRequest:
    """What is asked of a checkpoint, for one backend.

    Attributes:
        checkpoint: None, the package's.
        backend: by its name.
        precisions: in the order in which they are built.
        image_input: what the graph takes.
        classes: of a checkpoint that names none, as `--classes` takes them.
        patch_radius: of the authors' files; None, the published one.
        calibration: for int8.
        budget: for int8.
    """

    checkpoint: Optional[Path]
    backend: str
    precisions: Tuple[str, ...]
    image_input: ImageInput
    classes: Optional[str]
    patch_radius: Optional[int]
    calibration: Calibration
    budget: AccuracyBudget


def read_request(request: ConversionRequest, context: typer.Context) -> Tuple[Any, Any]:
    """The checkpoint and the `convert.build.Options` of a request; what the backend is told beside stays as by default.

    context: of the command, whose options are named in errors. Raises MisuseError for options that would do nothing, and as
    reading each of the files does.
    """
    from ampnet_opt.faces.face import spread
    from ampnet_opt.shipped import CHECKPOINT

    int8, searches = "int8" in request.precisions, request.budget.is_given
    asked = given(context)
    for names, used, use in ((OF_INT8, int8, "--int8"), (OF_BUDGET, searches, "--max-drop or --min-sqnr")):
        idle = asked & names
        if idle and not used:
            raise MisuseError(f"{flags(context, idle)} would do nothing without {use}")
    calibration, budget = request.calibration, request.budget
    data, form = calibration.data, calibration.form
    calibrates = int8 and (calibration.scales is None or searches)
    chosen = faces_of(data, calibration.split, form, labelled=searches) if calibrates or data is not None else []
    proof = faces_of(data, budget.held_out, form) if searches else []
    chosen, proof = apart(chosen, proof)
    chosen = spread(chosen, calibration.faces)
    loaded = read_checkpoint(request.checkpoint or CHECKPOINT, request.classes, request.patch_radius)
    from ampnet_opt.calibration.table import read_table
    from ampnet_opt.convert.build import Options
    from ampnet_opt.sensitivity.analysis import read_sensitivity
    from ampnet_opt.sensitivity.mixed_precision import LayerSearch
    from ampnet_opt.sensitivity.search import Budget

    search = None
    if searches:
        ranked = None if budget.ranking is None else read_sensitivity(budget.ranking)
        search = LayerSearch(Budget(budget.max_drop, budget.min_agreement / 100, budget.min_sqnr), proof, ranked)
    options = Options(
        backend=request.backend,
        precisions=request.precisions,  # type: ignore[arg-type]
        image_input=request.image_input.value,
        faces=chosen,
        method=calibration.method.value,
        table=None if calibration.scales is None else read_table(calibration.scales),
        search=search,
    )
    return loaded, options
