"""`ampnet-opt bundle`: what a board needs, in one file, from a checkpoint or an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterable, List, Optional

import typer

from ampnet_opt.cli.options import (
    BF16,
    CLASSES,
    DATA,
    FACES_PANEL,
    FINAL,
    FORCE,
    FP16,
    FP32,
    HELD_OUT,
    INPUT,
    INT8,
    LANDMARKS_FORMAT,
    MAX_DROP,
    METHOD,
    MIN_AGREEMENT,
    MIN_SQNR,
    RADIUS,
    RANKING,
    SCALES,
    WHAT,
    CalibrationMethod,
    ImageInput,
    faces_option,
    flags,
    given,
    one_of,
    output_option,
    split_option,
)
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.messages import remark, say
from ampnet_opt.core.progress import steps
from ampnet_opt.core.text import command

# Drawn faces that a bundle carries: with 539 that all agree, half a point is shown (benchmarks.noninferiority).
DRAWN_FACES = 560
DRAWN_SPLIT = "test"
MOST_FACES = 1000  # of the user's


def _targets() -> Iterable[str]:
    from ampnet_opt.bundling.targets import TARGETS

    return TARGETS


def bundle(
    context: typer.Context,
    source: Optional[Path] = typer.Argument(
        None, metavar="[CKPT_OR_ENGINE]", help="Default: the checkpoint that comes with the package."
    ),
    name: str = typer.Option(
        ...,
        "--target",
        metavar="MACHINE",
        help="orin-nano, orin-nx, agx-orin, xavier, thor, gpu (with TensorRT), rtx, cpu or arm.",
        rich_help_panel=WHAT,
        **one_of("--target", _targets),
    ),
    int8: bool = INT8,
    fp16: bool = FP16,
    bf16: bool = BF16,
    fp32: bool = FP32,
    image_input: ImageInput = INPUT,
    classes: Optional[str] = CLASSES,
    patch_radius: Optional[int] = RADIUS,
    data: Optional[Path] = DATA,
    form: str = LANDMARKS_FORMAT,
    split: str = split_option("train", "calibrate on"),
    faces: int = faces_option(256),
    method: CalibrationMethod = METHOD,
    scales: Optional[Path] = SCALES,
    max_drop: Optional[float] = MAX_DROP,
    min_sqnr: Optional[float] = MIN_SQNR,
    min_agreement: float = MIN_AGREEMENT,
    held_out: str = HELD_OUT,
    final: str = FINAL,
    ranking: Optional[Path] = RANKING,
    with_faces: bool = typer.Option(
        False,
        "--with-faces",
        help="Carry faces of --data for optimize to judge by: pictures of people (default: drawn faces).",
        rich_help_panel=FACES_PANEL,
    ),
    output: Path = output_option(Path("bundle.tar"), "The tar to copy to that machine."),
    force: bool = FORCE,
) -> None:
    """Pack what a machine needs to build and run engines without torch or data: graphs, scales, the package, a README.

    Without --int8, --fp16, --bf16 or --fp32, the bundle is for --int8; for GPUs also for --fp16; for arm for --fp32 alone.
    """
    from ampnet_opt.bundling.targets import TARGETS
    from ampnet_opt.cli.conversion import AccuracyBudget, Calibration, ConversionRequest, read_request
    from ampnet_opt.cli.inputs import table_of
    from ampnet_opt.core.files import require_apart, require_new_file
    from ampnet_opt.runtime.backend import find_backend

    target = TARGETS[name]
    asked = {"fp32": fp32, "fp16": fp16, "bf16": bf16, "int8": int8}
    precisions = [precision for precision, wanted in asked.items() if wanted]
    if source is not None and source.is_dir() and not _is_unpacked(source):
        from ampnet_opt.bundling.pack import bundle_engine

        late = given(context) - {"source", "name", "output", "force"}
        if late:
            raise MisuseError(f"engine {source} is finished: {flags(context, late)} is for bundles of a checkpoint")
        _say_bundle(bundle_engine(source, target, output, force))
        return
    if not precisions:
        backend = find_backend(target.backend)
        usual = ["int8"] if backend.device == "cpu" else ["fp16", "int8"]
        precisions = [precision for precision in usual if precision in backend.precisions] or list(backend.precisions)
        remark(f"precisions: {', '.join(precisions)} (--int8, --fp16, --bf16 and --fp32 take others)")
    require_new_file(output, force)
    require_apart({"-o": output}, [source, scales, ranking, table_of(data)])
    if with_faces and data is None:
        raise MisuseError("--with-faces carries faces of --data, which is missing")
    if "final" in given(context) and not with_faces:
        raise MisuseError("--final would do nothing without --with-faces")
    judging = (data, final) if with_faces else (None, DRAWN_SPLIT)
    request = ConversionRequest(
        checkpoint=source,
        backend=target.backend,
        precisions=tuple(precisions),
        image_input=image_input,
        classes=classes,
        patch_radius=patch_radius,
        calibration=Calibration(data=data, form=form, split=split, faces=faces, method=method, scales=scales),
        budget=AccuracyBudget(
            max_drop=max_drop, min_sqnr=min_sqnr, min_agreement=min_agreement, held_out=held_out, ranking=ranking
        ),
        judging=judging if with_faces or len(precisions) > 1 else None,
    )
    loaded, options, judges = read_request(request, context)
    from ampnet_opt.convert.bundle import bundle_checkpoint

    carried = _carried(loaded, judges, with_faces)
    with steps() as step:
        path = bundle_checkpoint(loaded, options, target, output, step, carried=carried, force=force)
    _say_bundle(path, "" if loaded.trained else " (untrained weights)")


def _carried(checkpoint: Any, faces: List[Any], own: bool) -> Any:
    """What a board chooses by, of faces of the user's data or of drawn ones: these of the network's classes alone."""
    from ampnet_opt.convert.bundle import CarriedFaces
    from ampnet_opt.core.labels import canonical
    from ampnet_opt.faces.face import spread

    if own:
        return CarriedFaces(spread(faces, MOST_FACES), drawn=False)
    known = {canonical(name) for name in checkpoint.classes}
    faces = [face for face in faces if canonical(face.label) in known]  # not every class can be drawn
    return CarriedFaces(spread(faces, DRAWN_FACES), drawn=True) if faces else None


def _say_bundle(path: Path, note: str = "") -> None:
    shown = command("tar", "-xOf", path, "README.txt")
    say(f"{path}: {path.stat().st_size / 1e6:.1f} MB{note}; what to do with it: {shown}")


def _is_unpacked(folder: Path) -> bool:
    """Whether a folder is what a bundle of a checkpoint unpacks to; that of an engine is an engine as well."""
    from ampnet_opt.runtime import bundle, sidecar

    return (folder / bundle.NAME).is_file() and not (folder / sidecar.NAME).is_file()
