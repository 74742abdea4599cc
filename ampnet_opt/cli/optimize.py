"""`ampnet-opt optimize`: the fastest engine that is still right, in one command."""

from __future__ import annotations

from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Tuple

import typer

from ampnet_opt.cli.inputs import apart, dealt, faces_of, read_checkpoint
from ampnet_opt.cli.options import (
    BACKEND,
    BATCH,
    BUDGET_PANEL,
    CLASSES,
    DATA,
    ENGINES,
    FACES_PANEL,
    FINAL,
    FORCE,
    INFERENCE_PANEL,
    INPUT,
    LANDMARKS_FORMAT,
    RADIUS,
    STDOUT,
    THREADS,
    WHAT,
    ImageInput,
    faces_option,
    flags,
    given,
    json_option,
    output_option,
    split_option,
    write_json,
)
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.messages import remark, say
from ampnet_opt.core.progress import steps
from ampnet_opt.core.text import shown_path

if TYPE_CHECKING:
    from ampnet_opt.optimize.contest import Request

# Parameters that a bundle has decided.
DECIDED = {"data", "form", "split", "held_out", "final", "faces", "image_input", "classes", "patch_radius"}


class GoalName(str, Enum):
    """Those of optimize.speed."""

    latency = "latency"
    throughput = "throughput"
    energy = "energy"
    memory = "memory"


def optimize(
    context: typer.Context,
    source: Optional[Path] = typer.Argument(
        None, metavar="[CKPT_OR_BUNDLE]", help="Default: the checkpoint that comes with the package."
    ),
    goal: GoalName = typer.Option(
        GoalName.latency,
        "--goal",
        help="What to minimise (throughput: the time per image when many come in a row).",
        rich_help_panel=WHAT,
    ),
    max_latency: Optional[float] = typer.Option(
        None,
        "--max-latency",
        min=0,
        max=86_400_000,
        help="Milliseconds; the best engine is then the most accurate one that takes no longer.",
        rich_help_panel=WHAT,
    ),
    backend: Optional[str] = BACKEND,
    batch: int = BATCH,
    threads: Optional[int] = THREADS,
    seconds: float = typer.Option(
        6.0,
        "--seconds",
        min=0,
        max=86_400,
        help="Time all candidates together for at least so many seconds.",
        rich_help_panel=INFERENCE_PANEL,
    ),
    image_input: ImageInput = INPUT,
    classes: Optional[str] = CLASSES,
    patch_radius: Optional[int] = RADIUS,
    data: Optional[Path] = DATA,
    form: str = LANDMARKS_FORMAT,
    split: str = split_option("train", "calibrate on"),
    faces: int = faces_option(256),
    held_out: str = typer.Option(
        "val", "--held-out", help="Split of the table that candidates are chosen on.", rich_help_panel=FACES_PANEL
    ),
    final: str = FINAL,
    max_drop: float = typer.Option(
        0.5, "--max-drop", min=0.01, help="Points of top-1 that the engine may lose.", rich_help_panel=BUDGET_PANEL
    ),
    min_agreement: float = typer.Option(
        99.0,
        "--min-agreement",
        min=0,
        max=99.999,
        help="Per cent of the answers that must be PyTorch's.",
        rich_help_panel=BUDGET_PANEL,
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="List the candidates and build nothing.", rich_help_panel=WHAT),
    output: Path = output_option(ENGINES, "Where best/ goes, with optimize.json and optimize.html beside it."),
    json_file: Optional[Path] = json_option("everything measured"),
    force: bool = FORCE,
) -> None:
    """Find the fastest engine that is still right: build and measure all that run on this machine.

    An engine is right if, on faces that chose nothing, top-1 drops by at most --max-drop points and at least --min-agreement
    per cent of the answers stay PyTorch's, both shown at a confidence of 95 %. Without --backend, all that run here compete.
    """
    from ampnet_opt.benchmarks.noninferiority import Margin
    from ampnet_opt.core.console import console
    from ampnet_opt.core.processor import available_cores
    from ampnet_opt.optimize.contest import Request
    from ampnet_opt.optimize.result import missed, render_result
    from ampnet_opt.optimize.run import BEST, PAGE
    from ampnet_opt.optimize.run import optimize as find_best
    from ampnet_opt.optimize.speed import GOALS

    if max_latency is not None and goal is not GoalName.latency:
        raise MisuseError(f"--max-latency is for --goal latency, not {goal.value}")
    request = Request(
        goal=GOALS[goal.value],
        margin=Margin(max_drop, min_agreement / 100),
        batch=batch,
        threads=threads or available_cores(),
        seconds=seconds,
        max_value=max_latency,
    )
    with ExitStack() as stack:
        from ampnet_opt.runtime.bundle import is_bundle

        if source is not None and is_bundle(source):
            late = given(context) & DECIDED
            if late:
                raise MisuseError(f"a bundle carries its faces and graphs: {flags(context, late)} is for checkpoints")
            maker, inputs = _of_bundle(stack, source, backend, request)
        else:
            sets = _face_sets(data, form, (split, held_out, final), faces)
            network = (source, classes, patch_radius, image_input)
            maker, inputs = _of_checkpoint(network, backend, sets, request, data is None)
        if dry_run:
            _say_plan(maker, inputs, request)
            return
        with steps() as step:
            found, earlier = find_best(maker, inputs, request, output, step=step, force=force)
    if earlier:
        remark(f"nothing has changed since {found.environment.date}; these are its figures (--force measures again)")
    if json_file != STDOUT:
        console().print(render_result(found))
        for line in missed(found):
            say(line)
        say(f"{output / BEST}: {found.why}; {output / PAGE} shows all")
    if json_file is not None:
        write_json(json_file, found.to_json())


def _say_plan(maker: Any, inputs: Any, request: Request) -> None:
    """The candidates, and how long all of it takes."""
    from ampnet_opt.core.text import count
    from ampnet_opt.optimize.run import estimated_seconds

    candidates = maker.candidates()
    for candidate in candidates:
        variants = len(maker.variants(candidate)) if candidate.precision == "int8" else 0
        others = f" (and {count(variants, 'other calibration')}, if it is fast enough)" if variants else ""
        say(f"{candidate.name}{others}")
    seconds = estimated_seconds(maker, inputs, request)
    if seconds is not None:
        say(f"about {count(max(1, round(seconds / 60)), 'minute')}, if nothing else runs")


def _face_sets(data: Optional[Path], form: str, splits: Tuple[str, str, str], calibrating: int) -> Tuple[Any, Any, Any]:
    """Faces that calibrate, that choose, and that prove: no face is in two of them."""
    from ampnet_opt.faces.face import ALL, read_faces, read_rows, spread

    names = ("--split", "--held-out", "--final")
    there = None if data is None else {face.split for face in read_rows(data, True)}
    if data is not None and there == {""}:
        sets = dealt(f"{data} has no splits", read_faces(data, ALL, True, form), names)
    elif there is not None and splits[2] not in there and splits[1] in there:
        half = dealt(f"{data} has no split {splits[2]}", faces_of(data, splits[1], form), names[1:])
        sets = [faces_of(data, splits[0], form), *half]
    else:
        sets = [faces_of(data, split, form) for split in splits]
    calibration, choosing, proving = apart(sets, names)
    return spread(calibration, calibrating), choosing, proving


def _of_checkpoint(
    network: Tuple[Optional[Path], Optional[str], Optional[int], ImageInput],
    backend: Optional[str],
    sets: Tuple[Any, Any, Any],
    request: Request,
    drawn: bool,
) -> Tuple[Any, Any]:
    from ampnet_opt.core.labels import label_indices, parse_classes
    from ampnet_opt.optimize.candidates import Faces, runnable
    from ampnet_opt.optimize.run import Inputs
    from ampnet_opt.shipped import CHECKPOINT

    path, classes, patch_radius, image_input = network
    able, problems = runnable([backend] if backend else [])
    checkpoint = read_checkpoint(path or CHECKPOINT, classes, patch_radius)
    from ampnet_opt.optimize.from_checkpoint import CheckpointMaker, NetworkFile

    calibrating, choosing, final = (
        Faces(faces, label_indices(checkpoint.classes, [face.label for face in faces])) for faces in sets
    )
    maker = CheckpointMaker(
        checkpoint,
        NetworkFile(path or CHECKPOINT, None if classes is None else tuple(parse_classes(classes)), patch_radius),
        able,
        image_input=image_input.value,
        calibrating=calibrating.faces,
        choosing=choosing,
        compiling=_compiling(request.batch),
        threads=request.threads,
    )
    name = "the checkpoint of the package" if path is None else shown_path(path)
    return maker, Inputs(name, choosing, final, drawn=drawn, passed_over=problems)


def _of_bundle(stack: ExitStack, path: Path, backend: Optional[str], request: Request) -> Tuple[Any, Any]:
    from ampnet_opt.bundling.carried_faces import NAME, open_carried
    from ampnet_opt.core.errors import AmpnetError
    from ampnet_opt.core.labels import label_indices
    from ampnet_opt.optimize.candidates import Faces, runnable
    from ampnet_opt.optimize.from_bundle import BundleMaker
    from ampnet_opt.optimize.run import Inputs
    from ampnet_opt.runtime.bundle import open_bundle

    bundle = stack.enter_context(open_bundle(path))
    if backend not in {None, bundle.contents.backend}:
        raise MisuseError(f"bundle {path} is for the backend {bundle.contents.backend}, not {backend}")
    ((name, precisions),), _ = runnable([bundle.contents.backend])
    maker = BundleMaker(bundle, name, precisions, _compiling(request.batch))
    if NAME not in bundle.contents.members:
        raise MisuseError(f"bundle {path} carries no faces to choose by: make it of two precisions or more, or --with-faces")
    try:
        faces, logits = stack.enter_context(open_carried(bundle.read(NAME), len(maker.classes)))
    except ValueError as error:
        raise AmpnetError(f"bundle {path} is damaged ({error}); copy it again, or make another") from error
    labels = label_indices(maker.classes, [face.label for face in faces])
    return maker, Inputs(shown_path(path), None, Faces(faces, labels), logits, drawn=bool(bundle.contents.drawn_faces))


def _compiling(batch: int) -> Any:
    from ampnet_opt.runtime.compile_options import CompileOptions
    from ampnet_opt.runtime.sidecar import BatchRange

    return CompileOptions(BatchRange(1, batch, max(batch, BatchRange().max)))
