"""The command line: options in, one function call, results out. A command imports what it needs when it runs."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import List, Optional

import typer

from ampnet_opt import __version__
from ampnet_opt.cli_accuracy import compare, report, sensitivity
from ampnet_opt.cli_benchmark import benchmark
from ampnet_opt.cli_bundle import build_from, bundle, conversion
from ampnet_opt.cli_engines import inspect, say_engine
from ampnet_opt.cli_faces import prepare, train
from ampnet_opt.commands import Commands, verbose_first
from ampnet_opt.errors import AmpnetError, MisuseError
from ampnet_opt.messages import fail, remark, say, set_verbose, speak_safely
from ampnet_opt.terminal import (
    BF16,
    CALIBRATING,
    CKPT,
    CLASSES,
    DATA,
    DLA,
    ENGINES,
    FACES,
    FORCE,
    FP16,
    HARDWARE_COMPATIBLE,
    HELD_OUT,
    INPUT,
    INPUTS,
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
    THREADS,
    TIMING_CACHE,
    VERSION_COMPATIBLE,
    WORKSPACE,
    one_of,
    read_checkpoint,
    require_extra,
    steps,
)

app = typer.Typer(
    name="ampnet-opt",
    cls=Commands,
    help="AMP-Net facial expressions: from a PyTorch checkpoint to the fastest engine that is still right.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _options(
    version: bool = typer.Option(False, "--version", help="Show the version."),
    verbose: bool = typer.Option(
        False,
        "--verbose",
        help="Show messages in full, and where in the program an error occurred. Before or after the command.",
    ),
) -> None:
    set_verbose(verbose)
    if version:
        say(f"ampnet-opt {__version__}")
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
    require_extra()
    from ampnet_opt.checkpoint import init_checkpoint
    from ampnet_opt.files import require_new_file
    from ampnet_opt.labels import parse_classes

    model = init_checkpoint(require_new_file(checkpoint, force), seed, width, parse_classes(classes))
    count = sum(parameter.numel() for parameter in model.parameters())
    say(f"{checkpoint}: {count / 1e6:.1f} M parameters, seed {seed}, untrained: its answers mean nothing")


@app.command()
def export(
    checkpoint: Path = CKPT,
    output: Path = typer.Option(..., "-o", "--output", help="The ONNX file."),
    image_input: str = INPUT,
    classes: Optional[str] = CLASSES,
    patch_radius: Optional[int] = RADIUS,
    force: bool = FORCE,
) -> None:
    """Write the network as one ONNX graph: image and landmarks in, logits out, any batch."""
    from ampnet_opt.files import new_file, require_new_file

    one_of("--input", image_input, INPUTS)
    require_new_file(output, force)
    loaded = read_checkpoint(checkpoint, classes, patch_radius)
    from ampnet_opt.convert.export import OPSET
    from ampnet_opt.convert.export import export as export_graph

    with steps() as step:
        with step("exporting the graph", 0):
            graph = export_graph(loaded, image_input)  # type: ignore[arg-type]
        with new_file(output) as temporary:
            temporary.write_bytes(graph.SerializeToString())
    nodes, size = len(graph.graph.node), output.stat().st_size
    say(f"{output}: opset {OPSET}, {nodes} nodes, {size / 1e6:.1f} MB, equal to PyTorch in ONNX Runtime")


@app.command()
def build(
    context: typer.Context,
    checkpoint: Optional[Path] = typer.Argument(
        None,
        metavar="[CKPT_OR_BUNDLE]",
        help="Checkpoint, or a tar of ampnet-opt bundle (default: the package's checkpoint).",
    ),
    output: Path = typer.Option(ENGINES, "-o", "--output", help="Where the engine directories go."),
    int8: bool = INT8,
    fp16: bool = FP16,
    bf16: bool = BF16,
    fp32: bool = typer.Option(False, "--fp32", help="FP32."),
    backend: Optional[str] = typer.Option(None, "--backend", help="cpu, tensorrt or tensorrt-rtx (default: see doctor)."),
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
    min_batch: int = typer.Option(1, help="Smallest batch of the profile."),
    opt_batch: int = typer.Option(1, help="Batch that the engine is tuned for."),
    max_batch: int = typer.Option(16, help="Largest batch; more images are split."),
    capabilities: Optional[List[str]] = typer.Option(
        None, "--compute-capability", help="GPUs of a tensorrt-rtx engine, 8.9 say; repeatable (default: all from 8.0)."
    ),
    workspace: Optional[int] = WORKSPACE,
    optimization_level: Optional[int] = OPTIMIZATION,
    timing_cache: Optional[Path] = TIMING_CACHE,
    version_compatible: bool = VERSION_COMPATIBLE,
    hardware_compatible: str = HARDWARE_COMPATIBLE,
    dla: Optional[int] = DLA,
    log: Optional[Path] = LOG,
    classes: Optional[str] = CLASSES,
    patch_radius: Optional[int] = RADIUS,
    force: bool = FORCE,
) -> None:
    """Build engines from a checkpoint or a bundle: one directory for each precision that is asked for."""
    from ampnet_opt.runtime.builder_options import BuilderOptions, require_options
    from ampnet_opt.runtime.bundle import is_bundle
    from ampnet_opt.runtime.sidecar import BatchRange

    asked = {"fp32": fp32, "fp16": fp16, "bf16": bf16, "int8": int8}
    precisions = [name for name, wanted in asked.items() if wanted]
    batch, gpus = BatchRange(min_batch, opt_batch, max_batch), tuple(capabilities or ())
    kept = (version_compatible, hardware_compatible, dla, log)
    builder = BuilderOptions(workspace, timing_cache, optimization_level, *kept)
    if checkpoint is not None and is_bundle(checkpoint):
        machine = {"batch": batch, "compute_capabilities": gpus, "options": builder}
        build_from(context, checkpoint, output, precisions, backend, force, **machine)
        return
    from ampnet_opt.doctor import default_backend
    from ampnet_opt.runtime.engine import BACKENDS

    if not precisions:
        raise MisuseError("say what to build: --int8, --fp16, --bf16 or --fp32 (several make several engines)")
    if backend is None:
        backend = default_backend()
        remark(f"backend: {backend} (this machine's default; --backend takes another)")
    one_of("--backend", backend, tuple(BACKENDS))
    if gpus and backend != "tensorrt-rtx":
        raise MisuseError("--compute-capability is for the backend tensorrt-rtx; others build for this machine")
    require_options(backend, builder, precisions, batch)
    kept_float = (max_drop, min_sqnr, min_agreement, held_out, ranking)
    recipe = (image_input, data, form, split, faces, method, scales, *kept_float, classes, patch_radius)
    loaded, options = conversion(context, checkpoint, backend, precisions, *recipe)
    from ampnet_opt.convert.build import build as build_engines

    options = replace(options, batch=batch, compute_capabilities=gpus, builder=builder)
    with steps() as step:
        engines = build_engines(loaded, options, output, step, force)
    for engine, not_run in engines.items():
        say_engine(engine, not_run)


@app.command()
def run(
    engine: Path = typer.Argument(..., metavar="ENGINE", help="An engine directory."),
    images: List[Path] = typer.Argument(..., metavar="IMAGES", help="Pictures, or folders of them."),
    landmarks: Path = typer.Option(..., "--landmarks", help="Table with file and the five landmarks, or its folder."),
    form: str = LANDMARKS_FORMAT,
    threads: Optional[int] = THREADS,
    trusted: bool = typer.Option(False, "--trusted", help="Run an engine whose files were changed after it was built."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a line."),
) -> None:
    """Classify faces: the expression and its probability for every picture."""
    from ampnet_opt.classify import classify, find_faces, left_out, name_unread
    from ampnet_opt.text import count

    found = find_faces(images, landmarks, form)
    others = left_out(images)
    if others:
        remark(f"note: {count(len(others), 'picture')} left out, of formats not read here: {name_unread(others)}")
    from ampnet_opt.runtime import Engine

    failures = 0
    with Engine.load(engine, threads, trusted=trusted) as loaded:
        if not loaded.sidecar.trained:
            remark("untrained weights: these answers mean nothing")
        for result in classify(loaded, found, threads):
            if result.error is not None:
                failures += 1
                remark(f"error: {result.error}")
            elif as_json:
                typer.echo(json.dumps(result.as_dict()))
            else:
                say(f"{result.file}  {result.label}  {result.probabilities[result.label]:.1%}")
    if failures:
        raise AmpnetError(f"{failures} of {len(found)} pictures could not be classified")


app.command()(compare)
app.command()(benchmark)


@app.command()
def doctor(as_json: bool = typer.Option(False, "--json", help="As one JSON object.")) -> None:
    """What this machine can do, and for what it cannot, why and what to do."""
    from ampnet_opt.doctor import examine, render

    findings = examine()
    if as_json:
        typer.echo(json.dumps(findings, indent=2))
        return
    from ampnet_opt.console import console

    console().print(render(findings))


app.command()(inspect)
app.command()(bundle)
app.command()(prepare)
app.command()(train)
app.command()(sensitivity)
app.command()(report)


def main() -> None:
    """Entry point of the console script: errors become one sentence and an exit code."""
    speak_safely()
    try:
        try:
            app(verbose_first(sys.argv[1:]))
        finally:
            sys.stdout.flush()  # while a full disk can still be told of
    except BrokenPipeError:
        # The reader of our output went away: not an error of ours, and no more can be said.
        _forget_output()
        sys.exit(1)
    except Exception as error:
        code = fail(error)
        _forget_output()
        sys.exit(code)


def _forget_output() -> None:
    """Keep Python from writing once more, at its end, what stdout did not take."""
    with contextlib.suppress(OSError, ValueError):  # closed, or no file of the system's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
