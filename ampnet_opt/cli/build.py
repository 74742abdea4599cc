"""`ampnet-opt build`: engines, from a checkpoint or from a bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Optional, Sequence

import typer

from ampnet_opt.cli.options import (
    BACKEND,
    BF16,
    CAPABILITIES,
    CLASSES,
    DATA,
    DLA,
    ENGINES,
    FORCE,
    FP16,
    FP32,
    HARDWARE_COMPATIBLE,
    HELD_OUT,
    INPUT,
    INT8,
    LANDMARKS_FORMAT,
    LOG,
    MAX_DROP,
    METHOD,
    MIN_AGREEMENT,
    MIN_SQNR,
    OPTIMIZATION,
    RADIUS,
    RANKING,
    SCALES,
    TIMING_CACHE,
    VERSION_COMPATIBLE,
    WORKSPACE,
    CalibrationMethod,
    Hardware,
    ImageInput,
    batch_option,
    faces_option,
    flags,
    given,
    output_option,
    split_option,
)
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.messages import remark, say
from ampnet_opt.core.progress import steps

if TYPE_CHECKING:
    from ampnet_opt.runtime.sidecar import Sidecar

# Parameters that choose what goes into a bundle; when one is built, they come too late.
DECIDED = {"data", "form", "split", "faces", "method", "scales", "max_drop", "min_sqnr"}
DECIDED |= {"min_agreement", "held_out", "ranking", "image_input", "classes", "patch_radius"}
# Those that a bundle of a finished engine leaves something to.
OPEN = {"checkpoint", "output", "int8", "fp16", "bf16", "fp32", "backend", "force"}


def build(
    context: typer.Context,
    checkpoint: Optional[Path] = typer.Argument(
        None,
        metavar="[CKPT_OR_BUNDLE]",
        help="Checkpoint, or a tar of ampnet-opt bundle (default: the package's checkpoint).",
    ),
    int8: bool = INT8,
    fp16: bool = FP16,
    bf16: bool = BF16,
    fp32: bool = FP32,
    backend: Optional[str] = BACKEND,
    min_batch: int = batch_option("--min-batch", 1, "Smallest batch of the profile."),
    opt_batch: int = batch_option("--opt-batch", 1, "Batch that the engine is tuned for."),
    max_batch: int = batch_option("--max-batch", 16, "Largest batch; more images are split."),
    static_batch: Optional[int] = batch_option("--static-batch", None, "One batch size alone, without dynamic shapes."),
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
    ranking: Optional[Path] = RANKING,
    capabilities: Optional[List[str]] = CAPABILITIES,
    workspace: Optional[int] = WORKSPACE,
    optimization_level: Optional[int] = OPTIMIZATION,
    timing_cache: Optional[Path] = TIMING_CACHE,
    version_compatible: bool = VERSION_COMPATIBLE,
    hardware_compatible: Hardware = HARDWARE_COMPATIBLE,
    dla: Optional[int] = DLA,
    log: Optional[Path] = LOG,
    output: Path = output_option(ENGINES, "Where the engine directories go."),
    force: bool = FORCE,
) -> None:
    """Build engines from a checkpoint or a bundle, one directory for each precision."""
    from ampnet_opt.runtime.compile_options import BuilderOptions, CompileOptions
    from ampnet_opt.runtime.sidecar import BatchRange

    if static_batch is not None:
        others = given(context) & {"min_batch", "opt_batch", "max_batch"}
        if others:
            raise MisuseError(f"{flags(context, others)} does not go with --static-batch, which sets the whole profile")
        min_batch = opt_batch = max_batch = static_batch
    asked = {"fp32": fp32, "fp16": fp16, "bf16": bf16, "int8": int8}
    precisions = [name for name, wanted in asked.items() if wanted]
    builder = BuilderOptions(
        workspace=workspace,
        timing_cache=timing_cache,
        optimization_level=optimization_level,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible.value,
        dla_core=dla,
        log=log,
    )
    compiling = CompileOptions(BatchRange(min_batch, opt_batch, max_batch), tuple(capabilities or ()), builder)
    if checkpoint is not None:
        from ampnet_opt.runtime.bundle import is_bundle

        if is_bundle(checkpoint):
            _build_bundle(context, checkpoint, output, precisions, backend=backend, compiling=compiling, force=force)
            return
    from ampnet_opt.cli.conversion import AccuracyBudget, Calibration, ConversionRequest, read_request
    from ampnet_opt.runtime.backend import find_backend

    if backend is None:
        from ampnet_opt.system.doctor import default_backend

        backend = default_backend()
        remark(f"backend: {backend} (this machine's default; --backend takes another)")
    chosen = find_backend(backend)
    if not precisions and len(chosen.precisions) > 1:
        raise MisuseError("say what to build: --int8, --fp16, --bf16 or --fp32 (several make several engines)")
    precisions = precisions or list(chosen.precisions)
    chosen.require_options(compiling, precisions)
    request = ConversionRequest(
        checkpoint=checkpoint,
        backend=backend,
        precisions=tuple(precisions),
        image_input=image_input,
        classes=classes,
        patch_radius=patch_radius,
        calibration=Calibration(data=data, form=form, split=split, faces=faces, method=method, scales=scales),
        budget=AccuracyBudget(
            max_drop=max_drop, min_sqnr=min_sqnr, min_agreement=min_agreement, held_out=held_out, ranking=ranking
        ),
    )
    loaded, options, _ = read_request(request, context)
    from ampnet_opt.convert.build import build as build_engines

    options = replace(options, compiling=compiling)
    with steps() as step:
        engines = build_engines(loaded, options, output, step, force)
    for engine, not_run in engines.items():
        say_engine(engine, not_run)


def _build_bundle(
    context: typer.Context,
    path: Path,
    output: Path,
    precisions: Sequence[str],
    *,
    backend: Optional[str],
    compiling: Any,
    force: bool,
) -> None:
    """`build` of a bundle. context: of the command. compiling: `runtime.backend.CompileOptions`."""
    late = given(context) & DECIDED
    if late:
        raise MisuseError(f"a bundle is already calibrated and exported: {flags(context, late)} is for ampnet-opt bundle")
    from ampnet_opt.runtime.bundle import open_bundle
    from ampnet_opt.runtime.unbundle import build_bundle

    with open_bundle(path) as opened:
        late = set() if opened.contents.parts is not None else given(context) - OPEN
    if late:
        raise MisuseError(f"bundle {path} holds a finished engine: {flags(context, late)} is for bundles of a checkpoint")

    with steps() as step:
        engines = build_bundle(path, output, step, precisions=precisions, backend=backend, options=compiling, force=force)
    for engine, not_run in engines.items():
        say_engine(engine, not_run)


def say_engine(engine: Path, not_run: str) -> None:
    """What `build` says of an engine that it made. not_run: why it was not compared with its graph, or ""."""
    from ampnet_opt.core.files import size_on_disk
    from ampnet_opt.runtime.backend import find_backend
    from ampnet_opt.runtime.sidecar import parse_sidecar

    sidecar = parse_sidecar(engine)
    note = "" if sidecar.trained else " (untrained weights)"
    say(f"{engine}: {size_on_disk(engine) / 1e6:.1f} MB{note}")
    _say_layers(engine, sidecar)
    advice = find_backend(sidecar.backend).advice(sidecar.precision)
    if advice:
        remark(f"advice: {advice}")
    if not_run:
        remark(f"{engine} was neither run here nor compared with its graph: {not_run}")


def _say_layers(engine: Path, sidecar: Sidecar) -> None:
    """After a build: what INT8 does to the answers, which layers a search kept in floating point, what the layers are
    computed in, and a warning for each that is not as the graph asks.
    """
    from ampnet_opt.runtime.golden import doubts
    from ampnet_opt.runtime.layers import layer_warnings, sentence
    from ampnet_opt.runtime.sidecar import accuracies, describe_accuracy, describe_choice

    if sidecar.mixed_precision is not None:
        say(f"{engine}: {describe_choice(sidecar.mixed_precision)}")
    if sidecar.accuracy:
        say(f"{engine}: {describe_accuracy(sidecar)}")
        for doubt in doubts(accuracies(sidecar), sidecar.trained):
            remark(f"warning: {doubt}")
    record = sidecar.layers
    if record is None:
        return
    say(f"{engine}: {sentence(record)}")
    for warning in layer_warnings(record):
        remark(f"warning: {warning}")
