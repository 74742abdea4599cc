"""The commands for a board: a bundle from a checkpoint or an engine here, and engines from the bundle there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Sequence, Set, Tuple

import typer

from ampnet_opt.cli.messages import remark, say
from ampnet_opt.cli.terminal import (
    BF16,
    CALIBRATING,
    CLASSES,
    DATA,
    FACES,
    FORCE,
    FP16,
    HELD_OUT,
    INPUT,
    INPUTS,
    INT8,
    LANDMARKS_FORMAT,
    MAX_DROP,
    METHOD,
    MIN_AGREEMENT,
    MIN_SQNR,
    RADIUS,
    RANKING,
    SCALES,
    apart,
    faces_of,
    one_of,
    read_checkpoint,
    steps,
)
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.text import command

# Options of `build` that choose what goes into a bundle; when one is built, they come too late.
DECIDED = {"data", "form", "split", "faces", "method", "scales", "max_drop", "min_sqnr"}
DECIDED |= {"min_agreement", "held_out", "ranking", "image_input", "classes", "patch_radius"}
# Options that mean something only beside others.
OF_INT8, OF_SEARCH = {"method", "scales", "max_drop", "min_sqnr"}, {"min_agreement", "held_out", "ranking"}
# Those that a bundle of a finished engine leaves something to.
OPEN = {"checkpoint", "output", "int8", "fp16", "bf16", "fp32", "backend", "force"}


def bundle(
    context: typer.Context,
    source: Optional[Path] = typer.Argument(
        None, metavar="[CKPT_OR_ENGINE]", help="Default: the checkpoint that comes with the package."
    ),
    name: str = typer.Option(
        ..., "--target", help="orin-nano, orin-nx, agx-orin, xavier, thor, rtx or cpu.", metavar="MACHINE"
    ),
    output: Path = typer.Option(Path("bundle.tar"), "-o", "--output", help="The tar to copy to that machine."),
    int8: bool = INT8,
    fp16: bool = FP16,
    bf16: bool = BF16,
    fp32: bool = typer.Option(False, "--fp32", help="FP32. Default of all four: --int8, for GPUs --fp16 too."),
    data: Optional[Path] = DATA,
    form: str = LANDMARKS_FORMAT,
    split: str = CALIBRATING,
    faces: int = FACES,
    method: str = METHOD,
    scales: Optional[Path] = SCALES,
    max_drop: Optional[float] = MAX_DROP,
    min_sqnr: Optional[float] = MIN_SQNR,
    min_agreement: float = MIN_AGREEMENT,
    held_out: str = HELD_OUT,
    ranking: Optional[Path] = RANKING,
    image_input: str = INPUT,
    classes: Optional[str] = CLASSES,
    patch_radius: Optional[int] = RADIUS,
    force: bool = FORCE,
) -> None:
    """Pack what a machine needs to build and run engines without torch or data: graphs, scales, the package, a README."""
    from ampnet_opt.bundling.targets import TARGETS
    from ampnet_opt.core.files import require_new_file

    one_of("--target", name, tuple(TARGETS))
    target = TARGETS[name]
    asked = {"fp32": fp32, "fp16": fp16, "bf16": bf16, "int8": int8}
    precisions = [precision for precision, wanted in asked.items() if wanted]
    if source is not None and source.is_dir() and not is_unpacked(source):
        from ampnet_opt.bundling.pack import bundle_engine

        late = given(context) - {"source", "name", "output", "force"}
        if late:
            raise MisuseError(f"engine {source} is finished: {_flags(context, late)} is for bundles of a checkpoint")
        _told(bundle_engine(source, target, output, force))
        return
    if not precisions:
        precisions = ["int8"] if target.backend == "cpu" else ["fp16", "int8"]
        remark(f"precisions: {', '.join(precisions)} (--int8, --fp16, --bf16 and --fp32 take others)")
    require_new_file(output, force)
    kept_float = (max_drop, min_sqnr, min_agreement, held_out, ranking)
    recipe = (image_input, data, form, split, faces, method, scales, *kept_float, classes, patch_radius)
    loaded, options = conversion(context, source, target.backend, precisions, *recipe)
    from ampnet_opt.convert.bundle import bundle_checkpoint

    with steps() as step:
        path = bundle_checkpoint(loaded, options, target, output, step, force)
    _told(path, "" if loaded.trained else " (untrained weights)")


def _told(path: Path, note: str = "") -> None:
    shown = command("tar", "-xOf", path, "README.txt")
    say(f"{path}: {path.stat().st_size / 1e6:.1f} MB{note}; what to do with it: {shown}")


def conversion(
    context: typer.Context,
    checkpoint: Optional[Path],
    backend: str,
    precisions: Sequence[str],
    image_input: str,
    data: Optional[Path],
    form: str,
    split: str,
    faces: int,
    method: str,
    scales: Optional[Path],
    max_drop: Optional[float],
    min_sqnr: Optional[float],
    min_agreement: float,
    held_out: str,
    ranking: Optional[Path],
    classes: Optional[str],
    patch_radius: Optional[int],
) -> Tuple[Any, Any]:
    """The checkpoint and the `convert.build.Options` that `build` and `bundle` were given, but for those of the backend.

    context: of that command.
    """
    from ampnet_opt.calibration.ranges import METHODS
    from ampnet_opt.faces.face import spread
    from ampnet_opt.shipped import CHECKPOINT

    int8 = "int8" in precisions
    one_of("--input", image_input, INPUTS)
    one_of("--calibration", method, tuple(METHODS))
    searches = max_drop is not None or min_sqnr is not None
    asked = given(context)
    for names, used, use in ((OF_INT8, int8, "--int8"), (OF_SEARCH, searches, "--max-drop or --min-sqnr")):
        idle = asked & names
        if idle and not used:
            raise MisuseError(f"{_flags(context, idle)} would do nothing without {use}")
    calibrates = int8 and (scales is None or searches)
    chosen = faces_of(data, split, form, labelled=searches) if calibrates or data is not None else []
    proof = faces_of(data, held_out, form) if searches else []
    chosen, proof = apart(chosen, proof)
    chosen = spread(chosen, faces)
    loaded = read_checkpoint(checkpoint or CHECKPOINT, classes, patch_radius)
    from ampnet_opt.calibration.table import read_table
    from ampnet_opt.convert.build import Options
    from ampnet_opt.sensitivity.analysis import read_sensitivity
    from ampnet_opt.sensitivity.mixed_precision import LayerSearch
    from ampnet_opt.sensitivity.search import Budget

    search = None
    if searches:
        ranked = None if ranking is None else read_sensitivity(ranking)
        search = LayerSearch(Budget(max_drop, min_agreement / 100, min_sqnr), proof, ranked)
    options = Options(
        backend,  # type: ignore[arg-type]
        precisions,  # type: ignore[arg-type]
        image_input,  # type: ignore[arg-type]
        faces=chosen,
        method=method,
        table=None if scales is None else read_table(scales),
        search=search,
    )
    return loaded, options


def build_from(
    context: typer.Context,
    path: Path,
    output: Path,
    precisions: Sequence[str],
    backend: Optional[str],
    force: bool,
    **machine: Any,
) -> None:
    """`build` of a bundle. context: of that command. machine: what else `build_bundle` takes."""
    late = given(context) & DECIDED
    if late:
        raise MisuseError(f"a bundle is calibrated and exported already: {_flags(context, late)} is for ampnet-opt bundle")
    from ampnet_opt.cli.engines import say_engine
    from ampnet_opt.runtime.bundle import open_bundle
    from ampnet_opt.runtime.unbundle import build_bundle

    with open_bundle(path) as opened:
        late = set() if opened.contents.parts is not None else given(context) - OPEN
    if late:
        raise MisuseError(f"bundle {path} holds a finished engine: {_flags(context, late)} is for bundles of a checkpoint")

    with steps() as step:
        engines = build_bundle(path, output, step, precisions, backend, force=force, **machine)
    for engine, not_run in engines.items():
        say_engine(engine, not_run)


def is_unpacked(folder: Path) -> bool:
    """Whether a folder is what a bundle of a checkpoint unpacks to; that of an engine is an engine as well."""
    from ampnet_opt.runtime.bundle import NAME, SIDECAR

    return (folder / NAME).is_file() and not (folder / SIDECAR).is_file()


def given(context: typer.Context) -> Set[str]:
    """Names of the parameters that stand on the command line."""
    names = [str(parameter.name) for parameter in context.command.params]
    sources = {name: context.get_parameter_source(name) for name in names}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _flags(context: typer.Context, names: Set[str]) -> str:
    return ", ".join(parameter.opts[0] for parameter in context.command.params if parameter.name in names)
