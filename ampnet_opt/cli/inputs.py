"""What the commands read: checkpoints, faces, the engines of a comparison, and requests of a conversion."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import typer

from ampnet_opt.cli.options import ENGINES, CalibrationMethod, ImageInput, flags, given
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.installing import install_command
from ampnet_opt.core.messages import remark
from ampnet_opt.core.progress import stages
from ampnet_opt.core.text import command


def require_extra() -> None:
    """AmpnetError where what `[convert]` installs is missing."""
    try:
        import onnxruntime  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        if sys.version_info < (3, 10):
            raise AmpnetError("this command needs Python 3.10 or newer; engines and bundles work with this one") from error
        raise AmpnetError(f"this command needs more than the runtime ({error}): {install_command('convert')}") from error


def read_checkpoint(path: Path, classes: Optional[str], patch_radius: Optional[int]) -> Any:
    from ampnet_opt.core.files import require_file
    from ampnet_opt.core.labels import parse_classes
    from ampnet_opt.shipped import CHECKPOINT

    if path != CHECKPOINT:
        _require_no_bundle(path)
    require_file(path, "checkpoint")
    require_extra()
    from ampnet_opt.network.checkpoint import read_checkpoint

    loaded = read_checkpoint(path, None if classes is None else parse_classes(classes), patch_radius)
    if loaded.dropped:
        remark(f"{path}: {len(loaded.dropped)} weights that the network does not use were left out")
    return loaded


def _require_no_bundle(path: Path) -> None:
    from ampnet_opt.runtime.bundle import is_bundle

    if is_bundle(path):
        build = command("ampnet-opt", "build", path)
        raise MisuseError(f"{path} is a bundle, not a checkpoint: build its engines with {build}")


def faces_of(table: Optional[Path], split: str, form: str = "auto", labelled: bool = True) -> List[Any]:
    """The faces of a split of a table, or of the default data, about which a line on stderr says what they are.

    split: "all" is every row; of a table without splits, every row is taken, and that is said. form: of the landmarks.
    """
    from ampnet_opt.faces.face import ALL, read_faces
    from ampnet_opt.faces.landmark_checks import form_of

    form_of(form)  # a wrong one is told before anything is read
    if table is not None:
        faces = read_faces(table, split, labelled, form, whole=True)
        if split != ALL and not any(face.split for face in faces):
            remark(f"data: {table} has no splits; all {len(faces)} faces are taken")
        return faces
    require_extra()  # whoever wants faces wants the rest too, which older Pythons do not have
    from ampnet_opt.synthetic import default_faces

    with stages() as progress:
        wanted = None if split == ALL else split
        faces = default_faces(wanted, lambda done, total: progress("drawing faces, once", done, total))
    remark(f"data: {len(faces)} drawn faces, split {split} (--data takes yours)")
    return faces


def table_of(data: Optional[Path]) -> Optional[Path]:
    """The table that `faces_of` reads, None for the default data. Raises MisuseError when there is none."""
    from ampnet_opt.core.tables import find_table

    return None if data is None else find_table(data, "data file")


def apart(sets: Sequence[List[Any]], names: Sequence[str]) -> List[List[Any]]:
    """Sets of faces, each of which is to prove what the ones before it gave: no face is in two of them.

    names: the options that chose them. All faces of data without splits are dealt out, each class in turn. Copies of a
    picture under another name, of which published data sets have some in other splits, stay in the first set, with a remark.
    Raises MisuseError where splits that were asked for share faces, or nothing would be left of a set.
    """
    from ampnet_opt.core.text import count
    from ampnet_opt.faces.repeats import unseen

    found: List[List[Any]] = list(sets[:1])
    for i in range(1, len(sets)):
        others = sets[i]
        for j, earlier in enumerate(found):
            before = len(others)
            shared, others = unseen(others, earlier)
            if shared and not any(face.split for faces in sets for face in faces):
                return _dealt_out(sets[0], len(sets))
            if shared:
                raise MisuseError(
                    f"{names[j]} and {names[i]} share {count(shared, 'face')}: faces that calibrate or choose cannot prove"
                )
            if not others:
                raise MisuseError(f"all faces of {names[i]} are copies of pictures of {names[j]}, and cannot prove anything")
            if len(others) < before:
                copies = count(before - len(others), "face")
                remark(f"data: {copies} of {names[i]} left out: copies of pictures of {names[j]}")
        found.append(others)
    return found


def _dealt_out(faces: List[Any], parts: int) -> List[List[Any]]:
    found = dealt(faces, parts)
    if not found[-1]:
        number = {2: "two faces: one to calibrate on, one to prove it on"}.get(
            parts, f"{parts} faces: to calibrate and to prove"
        )
        raise MisuseError(f"the data has no splits, and no class has {number}")
    told = ", ".join(str(len(part)) for part in found[1:])
    remark(f"data: {len(found[0])} faces calibrate, {told} others prove the result")
    return found


def dealt(faces: List[Any], parts: int) -> List[List[Any]]:
    """The faces dealt out into so many parts, each class in turn, so that all parts have their share of it."""
    turn: Dict[str, int] = {}
    found: List[List[Any]] = [[] for _ in range(parts)]
    for face in faces:
        turn[face.label] = turn.get(face.label, -1) + 1
        found[turn[face.label] % parts].append(face)
    return found


def subjects_of(paths: List[Path]) -> tuple[Path, List[Path]]:
    """Checkpoint and engine directories of a comparison; what is not given is the package's checkpoint and engines/*."""
    from ampnet_opt.runtime.sidecar import NAME
    from ampnet_opt.shipped import CHECKPOINT

    checkpoint = paths[0] if paths and not paths[0].is_dir() else CHECKPOINT
    engines = [path for path in paths if path is not checkpoint]
    if not engines:
        # Without hidden ones: they are in the making, or left by a build that was killed.
        engines = sorted(file.parent for file in ENGINES.glob(f"[!.]*/{NAME}"))
        if not engines:
            raise MisuseError("there are no engines to compare: name them, or make one with ampnet-opt build --int8")
    return checkpoint, engines


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


def read_request(request: ConversionRequest, context: typer.Context) -> Tuple[Any, Any, List[Any]]:
    """The checkpoint, the `convert.build.Options` and the judging faces of a request.

    What the backend is told beside stays as by default. The judging faces neither calibrate nor choose layers.

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
    if calibration.scales is not None:
        # The faces of --data are compared on, even where they calibrate nothing.
        for names, used, condition in ((OF_RANGES, False, ""), (OF_FACES, searches or data is not None, " without --data")):
            idle = asked & names
            if idle and not used:
                raise MisuseError(f"{flags(context, idle)} would do nothing beside --scales{condition}")
    chosen = faces_of(data, calibration.split, form, labelled=searches) if calibrates or data is not None else []
    proof = faces_of(data, budget.held_out, form) if searches else []
    judging = faces_of(*request.judging, form) if request.judging else []
    if calibrates:  # else they give no scales, and may be all there are
        own = request.judging is not None and request.judging[0] == data  # drawn faces are none of the user's
        last = "--final" if data is not None else "the drawn faces that the bundle carries"
        sets = {"--split": chosen, **({"--held-out": proof} if searches else {}), **({last: judging} if own else {})}
        sets = dict(zip(sets, apart([*sets.values()], [*sets])))
        chosen, proof, judging = sets["--split"], sets.get("--held-out", []), sets.get(last, judging)
    chosen = spread(chosen, calibration.faces)
    loaded = read_checkpoint(request.checkpoint or CHECKPOINT, request.classes, request.patch_radius)
    from ampnet_opt.calibration.table import read_table
    from ampnet_opt.convert.build import Options

    search = None
    if searches:
        from ampnet_opt.sensitivity.analysis import read_sensitivity
        from ampnet_opt.sensitivity.mixed_precision import LayerSearch
        from ampnet_opt.sensitivity.search import Budget

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
    return loaded, options, judging
