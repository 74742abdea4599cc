"""The command line: options in, one function call, results out. A command imports what it needs when it runs."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import typer
from typer.core import TyperGroup

from ampnet_opt import __version__
from ampnet_opt.errors import AmpnetError, MisuseError


class _Commands(TyperGroup):
    """Ctrl-C is answered here: further out, typer ends the program in silence."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("stopped; nothing was left half-written", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="ampnet-opt",
    cls=_Commands,
    help="AMP-Net facial expressions: from a PyTorch checkpoint to the fastest engine that is still right.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

CKPT = typer.Argument(..., metavar="CKPT", help="Checkpoint: the authors' .pth, or our .safetensors.")
CLASSES = typer.Option(
    None, "--classes", help="A preset (rafdb, affectnet7, affectnet8, fer2013, ferplus) or names, by commas."
)
RADIUS = typer.Option(None, "--patch-radius", help="Of the authors' files, which do not carry it (published: 5).")
FORCE = typer.Option(False, "--force", help="Replace what stands there.")
THREADS = typer.Option(None, "--threads", min=1, help="CPU threads (default: one per core).")


@app.callback(invoke_without_command=True)
def _options(version: bool = typer.Option(False, "--version", help="Show the version.")) -> None:
    if version:
        typer.echo(f"ampnet-opt {__version__}")
        raise typer.Exit()


@app.command()
def init(
    checkpoint: Path = CKPT,
    seed: int = typer.Option(0, help="Of the random weights."),
    width: float = typer.Option(1.0, help="Factor on every channel count."),
    classes: str = typer.Option("rafdb", "--classes", help="A preset or names, by commas."),
    force: bool = FORCE,
) -> None:
    """Write a seeded, untrained checkpoint, to try every command without one of your own."""
    from ampnet_opt.checkpoint import init_checkpoint
    from ampnet_opt.files import require_new
    from ampnet_opt.labels import parse_classes

    model = init_checkpoint(require_new(checkpoint, force), seed, width, parse_classes(classes))
    count = sum(parameter.numel() for parameter in model.parameters())
    typer.echo(f"{checkpoint}: {count / 1e6:.1f} M parameters, seed {seed}, untrained: its answers mean nothing")


@app.command()
def export(
    checkpoint: Path = CKPT,
    output: Path = typer.Option(..., "-o", "--output", help="The ONNX file."),
    image_input: str = typer.Option("uint8", "--input", help="uint8 [N, 224, 224, 3] or float32 [N, 3, 224, 224]."),
    classes: Optional[str] = CLASSES,
    patch_radius: Optional[int] = RADIUS,
    force: bool = FORCE,
) -> None:
    """Write the network as one ONNX graph: image and landmarks in, logits out, any batch."""
    from ampnet_opt.files import new_file, require_new

    _one_of("--input", image_input, ("uint8", "float32"))
    require_new(output, force)
    loaded = _read_checkpoint(checkpoint, classes, patch_radius)
    from ampnet_opt.convert.export import OPSET
    from ampnet_opt.convert.export import export as export_graph

    with _steps() as step:
        with step("exporting the graph", 0):
            graph = export_graph(loaded, image_input)  # type: ignore[arg-type]
        with new_file(output) as temporary:
            temporary.write_bytes(graph.SerializeToString())
    nodes, size = len(graph.graph.node), output.stat().st_size
    typer.echo(f"{output}: opset {OPSET}, {nodes} nodes, {size / 1e6:.1f} MB, equal to PyTorch in ONNX Runtime")


@app.command()
def build(
    checkpoint: Path = CKPT,
    output: Path = typer.Option(..., "-o", "--output", help="Where the engine directories go."),
    int8: bool = typer.Option(False, "--int8", help="INT8 by Q/DQ; needs --data."),
    fp16: bool = typer.Option(False, "--fp16", help="FP16."),
    bf16: bool = typer.Option(False, "--bf16", help="BF16 (cpu backend)."),
    fp32: bool = typer.Option(False, "--fp32", help="FP32."),
    backend: Optional[str] = typer.Option(None, "--backend", help="cpu, tensorrt or tensorrt-rtx (default: see doctor)."),
    data: Optional[Path] = typer.Option(None, "--data", help="CSV of faces, images/ beside it."),
    split: str = typer.Option("train", "--split", help="Rows of the CSV that calibrate."),
    faces: int = typer.Option(256, "--faces", min=1, help="How many of them, spread evenly."),
    method: str = typer.Option("entropy", "--calibration", help="entropy or minmax."),
    image_input: str = typer.Option("uint8", "--input", help="uint8 [N, 224, 224, 3] or float32 [N, 3, 224, 224]."),
    min_batch: int = typer.Option(1, help="Smallest batch of the profile."),
    opt_batch: int = typer.Option(1, help="Batch that the engine is tuned for."),
    max_batch: int = typer.Option(16, help="Largest batch; more images are split."),
    capabilities: Optional[List[str]] = typer.Option(
        None, "--compute-capability", help="GPUs of a tensorrt-rtx engine, 8.9 say; repeatable (default: all from 8.0)."
    ),
    classes: Optional[str] = CLASSES,
    patch_radius: Optional[int] = RADIUS,
    force: bool = FORCE,
) -> None:
    """Build engines from a checkpoint: one directory for each precision that is asked for."""
    from ampnet_opt.doctor import default_backend
    from ampnet_opt.faces import read_faces
    from ampnet_opt.files import size_on_disk
    from ampnet_opt.runtime.engine import BACKENDS
    from ampnet_opt.runtime.sidecar import BatchRange

    asked = {"fp32": fp32, "fp16": fp16, "bf16": bf16, "int8": int8}
    precisions = [name for name, wanted in asked.items() if wanted]
    if not precisions:
        raise MisuseError("say what to build: --int8, --fp16, --bf16 or --fp32 (several make several engines)")
    _one_of("--input", image_input, ("uint8", "float32"))
    _one_of("--calibration", method, ("entropy", "minmax"))
    batch = BatchRange(min_batch, opt_batch, max_batch)
    if backend is None:
        backend = default_backend()
        typer.echo(f"backend: {backend} (this machine's default; --backend takes another)", err=True)
    _one_of("--backend", backend, tuple(BACKENDS))
    if capabilities and backend != "tensorrt-rtx":
        raise MisuseError("--compute-capability is for the backend tensorrt-rtx; others build for this machine")
    chosen = _spread(read_faces(data, split), faces) if data is not None else []
    loaded = _read_checkpoint(checkpoint, classes, patch_radius)
    from ampnet_opt.convert.build import Options
    from ampnet_opt.convert.build import build as build_engines

    options = Options(
        backend,  # type: ignore[arg-type]
        precisions,  # type: ignore[arg-type]
        image_input,  # type: ignore[arg-type]
        batch,
        chosen,
        method,
        tuple(capabilities or ()),
    )
    with _steps() as step:
        engines = build_engines(loaded, options, output, step, force)
    for engine in engines:
        note = "" if loaded.trained else " (untrained weights)"
        typer.echo(f"{engine}: {size_on_disk(engine) / 1e6:.1f} MB{note}")


@app.command()
def run(
    engine: Path = typer.Argument(..., metavar="ENGINE", help="An engine directory."),
    images: List[Path] = typer.Argument(..., metavar="IMAGES", help="Pictures, or folders of them."),
    landmarks: Path = typer.Option(..., "--landmarks", help="CSV with file and the five landmarks, in pixels."),
    threads: Optional[int] = THREADS,
    as_json: bool = typer.Option(False, "--json", help="One JSON object a line."),
) -> None:
    """Classify faces: the expression and its probability for every picture."""
    from ampnet_opt.classify import classify, find_faces

    found = find_faces(images, landmarks)
    from ampnet_opt.runtime import Engine

    failures = 0
    with Engine.load(engine, threads) as loaded:
        if not loaded.sidecar.trained:
            typer.echo("untrained weights: these answers mean nothing", err=True)
        for result in classify(loaded, found):
            if result.error is not None:
                failures += 1
                typer.echo(f"error: {result.error}", err=True)
            elif as_json:
                typer.echo(json.dumps(result.as_dict()))
            else:
                typer.echo(f"{result.file}  {result.label}  {result.probabilities[result.label]:.1%}")
    if failures:
        raise AmpnetError(f"{failures} of {len(found)} pictures could not be classified")


@app.command()
def compare(
    checkpoint: Path = CKPT,
    engines: List[Path] = typer.Argument(..., metavar="ENGINES", help="Engine directories."),
    data: Path = typer.Option(..., "--data", help="CSV of labelled faces, images/ beside it."),
    split: str = typer.Option("test", "--split", help="Rows of the CSV to score on."),
    limit: Optional[int] = typer.Option(None, "--limit", min=1, help="Only so many faces, spread evenly."),
    batch: int = typer.Option(1, "--batch", min=1, help="Batch that is timed."),
    threads: Optional[int] = THREADS,
    runs: int = typer.Option(50, "--runs", min=1, help="Timed runs of each engine."),
    json_file: Optional[Path] = typer.Option(None, "--json", help="Write everything measured to this file."),
    classes: Optional[str] = CLASSES,
    patch_radius: Optional[int] = RADIUS,
) -> None:
    """Accuracy and latency of engines against the PyTorch checkpoint, measured in one run."""
    from rich.console import Console

    from ampnet_opt.faces import read_faces
    from ampnet_opt.labels import parse_classes

    faces = read_faces(data, split)
    chosen = faces if limit is None else _spread(faces, limit)
    _require_extra()
    from ampnet_opt.benchmarks.compare import compare as measure
    from ampnet_opt.benchmarks.report import render
    from ampnet_opt.files import write_text

    names = None if classes is None else parse_classes(classes)
    with _stages() as progress:
        report = measure(
            checkpoint,
            engines,
            chosen,
            classes=names,
            patch_radius=patch_radius,
            batch=batch,
            threads=threads,
            runs=runs,
            progress=progress,
        )
    Console().print(render(report))
    if json_file is not None:
        write_text(json_file, report.to_json())


@app.command()
def doctor(as_json: bool = typer.Option(False, "--json", help="As one JSON object.")) -> None:
    """What this machine can do, and for what it cannot, why and what to do."""
    from ampnet_opt.doctor import examine, render

    findings = examine()
    if as_json:
        typer.echo(json.dumps(findings, indent=2))
        return
    from rich.console import Console

    Console().print(render(findings))


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise MisuseError(f"{option} takes {', '.join(allowed)}, not {value!r}")


def _spread(faces: list[Any], count: int) -> list[Any]:
    """`count` of the faces, evenly spread over the file, all of them when there are fewer."""
    return [faces[i * len(faces) // count] for i in range(count)] if count < len(faces) else faces


def _require_extra() -> None:
    """MisuseError where what `[convert]` installs is missing."""
    try:
        import onnxruntime  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise AmpnetError(
            f"this command needs more than the runtime ({error}): pip install 'ampnet-opt[convert]'"
        ) from error


def _read_checkpoint(path: Path, classes: Optional[str], patch_radius: Optional[int]) -> Any:
    from ampnet_opt.files import require_file
    from ampnet_opt.labels import parse_classes

    require_file(path, "checkpoint")
    _require_extra()
    from ampnet_opt.checkpoint import read_checkpoint

    loaded = read_checkpoint(path, None if classes is None else parse_classes(classes), patch_radius)
    if loaded.dropped:
        typer.echo(f"{path}: {len(loaded.dropped)} weights are not used by the network and were left out", err=True)
    return loaded


@contextmanager
def _progress(**columns: Any) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*parts, console=Console(stderr=True), **columns) as bar:
        yield bar


@contextmanager
def _steps() -> Iterator[Callable[[str, int], Any]]:
    """Steps of a build, each with a bar on stderr."""
    with _progress() as bar:

        @contextmanager
        def step(name: str, total: int) -> Iterator[Callable[[float], None]]:
            task = bar.add_task(name, total=total or None)
            yield lambda done: bar.update(task, completed=done)
            bar.update(task, total=total or 1, completed=total or 1)

        yield step


@contextmanager
def _stages() -> Iterator[Callable[[str, int, int], None]]:
    """Stages of a measurement, named by the calls themselves."""
    with _progress() as bar:
        tasks: Dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield report
        for task in bar.tasks:
            bar.update(task.id, completed=task.total)


def main() -> None:
    """Entry point of the console script: errors become one sentence and an exit code."""
    try:
        app()
    except AmpnetError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except MemoryError:
        typer.echo("error: this machine's memory is not enough for this", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output went away: not an error of ours, and no more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        place = "" if error.filename is None else f" ({error.filename})"
        typer.echo(f"error: the system refused a file: {error.strerror or error}{place}", err=True)
        sys.exit(1)
