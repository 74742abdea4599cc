"""What the commands share: options of one meaning, progress on stderr, checkpoints read with what was given for them."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import typer

from ampnet_opt.cli.messages import remark
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.text import command, printable

ENGINES = Path("engines")
CKPT = typer.Argument(..., metavar="CKPT", help="Checkpoint: the authors' .pth, or our .safetensors.")
SHIPPED = typer.Argument(None, metavar="[CKPT]", help="Checkpoint (default: the one that comes with the package).")
CLASSES = typer.Option(
    None, "--classes", help="A preset (rafdb, affectnet7, affectnet8, fer2013, ferplus) or names, by commas."
)
RADIUS = typer.Option(None, "--patch-radius", help="Of the authors' files, which do not carry it (published: 5).")
# The default is calibration.ranges.DEFAULT, which a test holds it to.
METHOD = typer.Option("entropy", "--calibration", help="Of int8: entropy, percentile, mse or minmax.")
FORCE = typer.Option(False, "--force", help="Replace what stands there.")
INPUTS = ("uint8", "float32")
INPUT = typer.Option("uint8", "--input", help="uint8 [N, 224, 224, 3] or float32 [N, 3, 224, 224].")
INT8 = typer.Option(False, "--int8", help="INT8 by Q/DQ, calibrated on --data.")
FP16 = typer.Option(False, "--fp16", help="FP16.")
BF16 = typer.Option(False, "--bf16", help="BF16 (cpu backend).")
DATA = typer.Option(None, "--data", help="Table of faces, images/ beside it, or its folder (default: drawn faces).")
LANDMARKS_FORMAT = typer.Option(
    "auto",
    "--landmarks-format",
    metavar="FORMAT",
    help="Of the landmarks given: auto (pixels; what looks like another form is refused), or by commas one of pixels, "
    "normalised (0 to 1), signed (-1 to 1), percent, of-224 (pixels of the picture scaled to 224 x 224), unrotated (before "
    "its EXIF orientation), and any of five-x-five-y, yx (y before x), nose-first, nose-last, mouth-first, subject (left "
    "and right of the person), y-up (y from the bottom).",
)
CALIBRATING = typer.Option("train", "--split", help="Rows of the table that calibrate; all: every row.")
FACES = typer.Option(256, "--faces", min=1, help="How many of them, spread evenly.")
SCALES = typer.Option(None, "--scales", help="A calibration table, taken as it is: no calibration.")
MAX_DROP = typer.Option(
    None, "--max-drop", min=0, help="Points of top-1 that int8 may lose; layers stay in floating point until it holds."
)
MIN_SQNR = typer.Option(
    None, "--min-sqnr", help="dB of SQNR that int8's logits have to keep; layers stay in floating point until it holds."
)
MIN_AGREEMENT = typer.Option(
    99.0, "--min-agreement", min=0, max=100, help="With either: per cent of answers that have to stay the same."
)
HELD_OUT = typer.Option("val", "--held-out", help="With either: rows of the table that prove it.")
RANKING = typer.Option(None, "--sensitivity", help="With either: file of ampnet-opt sensitivity (default: measured now).")
# Of TensorRT's builder; what they mean and who has them is in runtime.builder_options.
_BUILDER = "Builder of tensorrt and tensorrt-rtx"
WORKSPACE = typer.Option(None, "--workspace", help="MiB of GPU memory that a layer may use.", rich_help_panel=_BUILDER)
OPTIMIZATION = typer.Option(
    None,
    "--optimization-level",
    help="0 (built fast) to 5 (runs fast); the library's default is 3.",
    rich_help_panel=_BUILDER,
)
TIMING_CACHE = typer.Option(
    None, "--timing-cache", help="File of kernel times (default: one per GPU and version).", rich_help_panel=_BUILDER
)
VERSION_COMPATIBLE = typer.Option(
    False, "--version-compatible", "--lean", help="For later versions too, and tensorrt_lean.", rich_help_panel=_BUILDER
)
HARDWARE_COMPATIBLE = typer.Option(
    "none", "--hardware-compatible", help="none, ampere+ or same-compute-capability.", rich_help_panel=_BUILDER
)
DLA = typer.Option(None, "--dla", help="DLA core of a Jetson, from 0; for --fp16, one batch size.", rich_help_panel=_BUILDER)
LOG = typer.Option(None, "--log", help="File that all messages of the library go to.", rich_help_panel=_BUILDER)
THREADS = typer.Option(None, "--threads", min=1, max=4096, help="CPU threads (default: one per core).")


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise MisuseError(f"{option} takes {', '.join(allowed)}, not {value!r}")


def require_extra() -> None:
    """AmpnetError where what `[convert]` installs is missing."""
    try:
        import onnxruntime  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        if sys.version_info < (3, 10):
            raise AmpnetError("this command needs Python 3.10 or newer; engines and bundles work with this one") from error
        raise AmpnetError(
            f"this command needs more than the runtime ({error}): pip install 'ampnet-opt[convert]'"
        ) from error


def read_checkpoint(path: Path, classes: Optional[str], patch_radius: Optional[int]) -> Any:
    from ampnet_opt.core.files import require_file
    from ampnet_opt.core.labels import parse_classes
    from ampnet_opt.runtime.bundle import is_bundle

    if is_bundle(path):
        build = command("ampnet-opt", "build", path)
        raise MisuseError(f"{path} is a bundle, not a checkpoint: build its engines with {build}")
    require_file(path, "checkpoint")
    require_extra()
    from ampnet_opt.network.checkpoint import read_checkpoint

    loaded = read_checkpoint(path, None if classes is None else parse_classes(classes), patch_radius)
    if loaded.dropped:
        remark(f"{path}: {len(loaded.dropped)} weights are not used by the network and were left out")
    return loaded


@contextmanager
def progress() -> Iterator[Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ampnet_opt.core.console import console

    parts = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*parts, console=console(stderr=True)) as bar:
        yield bar


@contextmanager
def steps() -> Iterator[Callable[[str, int], Any]]:
    """Steps of a build, each with a bar on stderr."""
    with progress() as bar:

        @contextmanager
        def step(name: str, total: int) -> Iterator[Callable[[float], None]]:
            task = bar.add_task(printable(name), total=total or None)
            yield lambda done: bar.update(task, completed=done)
            bar.update(task, total=total or 1, completed=total or 1)

        yield step


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Stages of a measurement, named by the calls themselves."""
    with progress() as bar:
        tasks: Dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(printable(stage), total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield report
        for task in bar.tasks:
            bar.update(task.id, completed=task.total)


@contextmanager
def counter(name: str, total: int) -> Iterator[Callable[[float, str], None]]:
    """One long job: call with the units done and what is being done."""
    with progress() as bar:
        task = bar.add_task(printable(name), total=total)
        yield lambda done, text: bar.update(task, completed=done, description=printable(text))


def faces_of(table: Optional[Path], split: str, form: str = "auto", labelled: bool = True) -> List[Any]:
    """The faces of a split of a table, or of the default data, about which a line on stderr says what they are.

    split: "all" is every row; of a table without splits, every row is taken, and that is said. form: of the landmarks.
    """
    from ampnet_opt.faces.face import ALL, read_faces
    from ampnet_opt.faces.landmark_formats import parse_form

    parse_form(form)
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


def apart(calibrating: List[Any], proving: List[Any]) -> tuple[List[Any], List[Any]]:
    """Faces that calibrate, and faces that prove what they gave: what calibrates cannot prove.

    Where both are all faces of data without splits, every other face of each class proves. Raises MisuseError where the
    splits that were asked for share faces.
    """
    shared = {face.file for face in calibrating} & {face.file for face in proving}
    if not shared:
        return calibrating, proving
    if any(face.split for face in [*calibrating, *proving]):
        raise MisuseError(f"{len(shared)} faces would both calibrate and prove: --held-out takes another split than --split")
    turn: Dict[str, int] = {}
    halves: tuple[List[Any], List[Any]] = ([], [])
    for face in calibrating:
        turn[face.label] = turn.get(face.label, -1) + 1
        halves[turn[face.label] % 2].append(face)
    if not halves[1]:
        raise MisuseError("the data has no splits, and no class has two faces: one to calibrate on, one to prove it on")
    remark(f"data: {len(halves[0])} of the faces calibrate, the {len(halves[1])} others prove it")
    return halves


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
