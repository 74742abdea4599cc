"""What `build` and `bundle` are asked to make of a checkpoint, and the files that this names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Optional, Sequence, Set, Tuple

import typer

from ampnet_opt.cli.inputs import apart, faces_of, read_checkpoint
from ampnet_opt.cli.options import CalibrationMethod, ImageInput, flags, given
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.messages import remark

# Parameters of these commands that mean something only beside others.
OF_INT8, OF_BUDGET = {"method", "scales", "max_drop", "min_sqnr"}, {"min_agreement", "held_out", "ranking"}
OF_RANGES, OF_FACES = {"method"}, {"form", "split", "faces"}


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
        judging: data and split of the faces that a bundle carries, for its machine to choose by; None, none.
    """

    checkpoint: Optional[Path]
    backend: str
    precisions: Tuple[str, ...]
    image_input: ImageInput
    classes: Optional[str]
    patch_radius: Optional[int]
    calibration: Calibration
    budget: AccuracyBudget
    judging: Optional[Tuple[Optional[Path], str]] = None

    @property
    def int8(self) -> bool:
        return "int8" in self.precisions

    @property
    def calibrates(self) -> bool:
        """Whether faces give scales, or rank layers."""
        return self.int8 and (self.calibration.scales is None or self.budget.is_given)


def read_request(request: ConversionRequest, context: typer.Context) -> Tuple[Any, Any, List[Any]]:
    """The checkpoint, the `convert.build.Options` and the judging faces of a request.

    What the backend is told beside stays as by default. The judging faces neither calibrate nor choose layers.

    context: of the command, whose options are named in errors. Raises MisuseError for options that would do nothing, and as
    reading each of the files does.
    """
    from ampnet_opt.shipped import CHECKPOINT

    _require_used(request, context)
    calibration = request.calibration
    chosen, proof, judging = _face_sets(request)
    loaded = read_checkpoint(request.checkpoint or CHECKPOINT, request.classes, request.patch_radius)
    from ampnet_opt.calibration.table import read_table
    from ampnet_opt.convert.build import Options

    table = None if calibration.scales is None else read_table(calibration.scales)
    if table is not None:
        own = request.judging is not None and request.judging[0] is not None
        proof = independent(proof, table, "--held-out")
        judging = independent(judging, table, "--final") if own else judging
    options = Options(
        backend=request.backend,
        precisions=request.precisions,  # type: ignore[arg-type]
        image_input=request.image_input.value,
        faces=chosen,
        method=calibration.method.value,
        table=table,
        search=_search(request, proof) if request.budget.is_given else None,
    )
    return loaded, options, judging


def _require_used(request: ConversionRequest, context: typer.Context) -> None:
    """MisuseError for options that would do nothing."""
    scales, data = request.calibration.scales is not None, request.calibration.data is not None
    # The faces of --data are compared on, even where they calibrate nothing.
    idle_faces = "beside --scales without --data" if scales and request.int8 else "without --int8 or --data"
    rules: Sequence[Tuple[Set[str], bool, str]] = (
        (OF_INT8, request.int8, "without --int8"),
        (OF_BUDGET, request.budget.is_given, "without --max-drop or --min-sqnr"),
        (OF_RANGES, not scales, "beside --scales"),
        (OF_FACES, request.calibrates or data, idle_faces),
    )
    for names, used, why in rules:
        idle = given(context) & names
        if idle and not used:
            raise MisuseError(f"{flags(context, idle)} would do nothing {why}")


def _face_sets(request: ConversionRequest) -> Tuple[List[Any], List[Any], List[Any]]:
    """Faces that calibrate, that prove a choice of layers, and that a bundle carries; [] for those that are not needed."""
    from ampnet_opt.faces.face import spread
    from ampnet_opt.faces.landmark_checks import AUTO

    calibration, searches = request.calibration, request.budget.is_given
    data, form = calibration.data, calibration.form
    needed = request.calibrates or data is not None
    chosen = faces_of(data, calibration.split, form, labelled=searches) if needed else []
    proof = faces_of(data, request.budget.held_out, form) if searches else []
    judging: List[Any] = []
    if request.judging is not None:
        table, split = request.judging
        judging = faces_of(table, split, AUTO if table is None else form)
    if request.calibrates:  # else they give no scales, and may be all there are
        own = request.judging is not None and request.judging[0] == data  # drawn faces are none of the user's
        last = "--final" if data is not None else "the drawn faces that the bundle carries"
        sets = {"--split": chosen, **({"--held-out": proof} if searches else {}), **({last: judging} if own else {})}
        sets = dict(zip(sets, apart([*sets.values()], [*sets])))
        chosen, proof, judging = sets["--split"], sets.get("--held-out", []), sets.get(last, judging)
    return spread(chosen, calibration.faces), proof, judging


def independent(faces: List[Any], table: Any, name: str) -> List[Any]:
    """Those of the faces that did not give the scales of a table. name: the option that chose them."""
    from ampnet_opt.core.text import count
    from ampnet_opt.faces.face import identity

    if not faces or table.seen is None:
        if faces:
            remark(f"data: the scales (--scales) do not say which faces they are of; some of {name} may be among them")
        return faces
    seen = {*table.seen}
    left = [face for face in faces if identity(face) not in seen]
    if not left:
        raise MisuseError(f"the scales (--scales) are of all faces of {name}, which therefore cannot prove anything")
    if len(left) < len(faces):
        remark(f"data: {count(len(faces) - len(left), 'face')} of {name} left out: the scales (--scales) are of them")
    return left


def _search(request: ConversionRequest, proof: List[Any]) -> Any:
    """The `convert.build.LayerChoice` of the budget."""
    from ampnet_opt.sensitivity.analysis import read_sensitivity
    from ampnet_opt.sensitivity.mixed_precision import LayerSearch
    from ampnet_opt.sensitivity.search import Budget

    budget, calibration = request.budget, request.calibration
    ranked = None if budget.ranking is None else read_sensitivity(budget.ranking)
    faces_from = {
        "drawn": calibration.data is None,
        "split": calibration.split,
        "faces": calibration.faces,
        "held_out": budget.held_out,
        **({} if calibration.data is None else {"landmarks_format": calibration.form}),
    }
    limits = Budget(budget.max_drop, budget.min_agreement / 100, budget.min_sqnr)
    return LayerSearch(limits, proof, ranked, faces_from)
