"""`ampnet-opt benchmark`: how fast, and is that faster? Needs the runtime alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional

import typer

from ampnet_opt.cli.options import (
    DETECTOR,
    DETECTOR_BACKEND,
    DETECTOR_PRECISION,
    EVERY,
    FORCE,
    FRAMES,
    INFERENCE_PANEL,
    LARGEST_BATCH,
    MIN_FACE,
    OUTPUT_PANEL,
    PIPELINE_PANEL,
    STDOUT,
    THREADS,
    flags,
    given,
    json_option,
    picture_option,
    runs_option,
    write_json,
)
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.progress import stages

if TYPE_CHECKING:
    from ampnet_opt.benchmarks.pipeline_passes import PipelineRequest

FEWEST_RUNS = 30  # with fewer nothing can be said about noise
# Options of the engines alone, and of the pipeline round them.
ALONE = {"batches", "runs", "many", "layers", "picture", "against", "accuracy"}
WITH_PIPELINE = {"detector", "detector_backend", "detector_precision", "min_face", "every", "frames", "undrawn"}


def benchmark(
    context: typer.Context,
    engines: List[Path] = typer.Argument(..., metavar="ENGINES...", help="Engine directories."),
    batches: str = typer.Option(
        "1", "--batches", help="Batch sizes to time, separated by commas: 1,8,16.", rich_help_panel=INFERENCE_PANEL
    ),
    threads: Optional[int] = THREADS,
    runs: int = runs_option(FEWEST_RUNS, "Timed runs of each engine and batch, at least."),
    seconds: float = typer.Option(
        3.0,
        "--seconds",
        min=0,
        max=86_400,
        help="Time all engines together for at least so many seconds for each batch.",
        rich_help_panel=INFERENCE_PANEL,
    ),
    many: bool = typer.Option(
        False,
        "--many",
        help="Also measure the rate of many faces in a row, as `run` takes a folder.",
        rich_help_panel=INFERENCE_PANEL,
    ),
    layers: bool = typer.Option(
        False,
        "--layers",
        help="Show each engine's slowest layers, at the first batch.",
        rich_help_panel=INFERENCE_PANEL,
    ),
    pipeline: Optional[str] = typer.Option(
        None,
        "--pipeline",
        metavar="SOURCE",
        help="Time `run` on this video, picture or folder instead of the engines alone: where the time of a frame goes.",
        rich_help_panel=PIPELINE_PANEL,
    ),
    detector: Optional[Path] = DETECTOR,
    detector_backend: Optional[str] = DETECTOR_BACKEND,
    detector_precision: Optional[str] = DETECTOR_PRECISION,
    min_face: int = MIN_FACE,
    every: int = EVERY,
    frames: Optional[int] = FRAMES,
    undrawn: bool = typer.Option(
        False,
        "--undrawn",
        help="With --pipeline: leave out drawing and encoding, like run without -o.",
        rich_help_panel=PIPELINE_PANEL,
    ),
    json_file: Optional[Path] = json_option("everything measured"),
    picture: Optional[Path] = picture_option("latency against batch, and of accuracy"),
    against: Optional[Path] = typer.Option(
        None, "--against", help="An older --json file: show what became slower.", rich_help_panel=OUTPUT_PANEL
    ),
    accuracy: Optional[Path] = typer.Option(
        None, "--accuracy", help="File of compare --json: top-1 beside latency.", rich_help_panel=OUTPUT_PANEL
    ),
    force: bool = FORCE,
) -> None:
    """Measure latency, throughput, memory and energy of engines, and tell which differences are more than noise."""
    _require_one_kind(context, pipeline is not None)
    if pipeline is not None:
        from ampnet_opt.benchmarks.pipeline_passes import PipelineRequest

        request = PipelineRequest(
            pipeline,
            threads,
            detector=detector,
            detector_backend=detector_backend,
            detector_precision=detector_precision,
            min_face=min_face,
            every=every,
            frames=frames,
            drawn=not undrawn,
        )
        return _benchmark_pipeline(engines, request, seconds, json_file, force)
    from ampnet_opt.benchmarks.bench import benchmark as measure_engines
    from ampnet_opt.benchmarks.bench_layers import layer_times
    from ampnet_opt.benchmarks.bench_report import draw_benchmark, render_benchmark, render_changes, require_matplotlib
    from ampnet_opt.benchmarks.regression import changes, read_accuracy, read_benchmark
    from ampnet_opt.core.console import console
    from ampnet_opt.core.files import new_file, require_apart, require_new_file

    if against is not None and json_file == STDOUT:
        raise MisuseError("--against adds a table, which --json - leaves out; name a file with --json")
    sizes = _sizes(batches)
    for file in (json_file, picture):
        if file is not None and file != STDOUT:
            require_new_file(file, force)
    if picture is not None:
        require_matplotlib()
    require_apart({"--json": json_file, "--picture": picture}, [*engines, accuracy])
    before = None if against is None else read_benchmark(against)
    scores = {} if accuracy is None else read_accuracy(accuracy, engines)
    with stages() as progress:
        found = measure_engines(engines, sizes, threads=threads, runs=runs, seconds=seconds, many=many, progress=progress)
        profiles: Dict[str, Any] = {}
        for number, (engine, measured) in enumerate(zip(engines, found.engines if layers else [])):
            progress("profiling", number, len(engines))
            profiles[measured.name] = layer_times(engine, sizes[0], threads)
    found = replace(found, accuracy=scores, layers=profiles)
    if json_file != STDOUT:
        terminal = console()
        terminal.print(render_benchmark(found))
        if before is not None:
            terminal.print(render_changes(*changes(before, found), str(against)))
    if json_file is not None:
        write_json(json_file, found.to_json())
    if picture is not None:
        with new_file(picture) as temporary:
            draw_benchmark(temporary, found)


def _require_one_kind(context: typer.Context, whole: bool) -> None:
    """MisuseError for options of the engines alone beside --pipeline, and for those of the pipeline without it."""
    late = given(context) & (ALONE if whole else WITH_PIPELINE)
    if late:
        raise MisuseError(f"{flags(context, late)} {'goes without' if whole else 'needs'} --pipeline")


def _benchmark_pipeline(
    engines: List[Path], request: PipelineRequest, seconds: float, json_file: Optional[Path], force: bool
) -> None:
    from ampnet_opt.benchmarks.bench_pipeline import benchmark_pipeline
    from ampnet_opt.benchmarks.bench_report import render_pipeline
    from ampnet_opt.core.console import console
    from ampnet_opt.core.files import require_apart, require_new_file

    if json_file is not None and json_file != STDOUT:
        require_new_file(json_file, force)
    require_apart({"--json": json_file}, [*engines, request.source, request.detector])
    with stages() as progress:
        found = benchmark_pipeline(engines, request, seconds=seconds, progress=progress)
    if json_file != STDOUT:
        console().print(render_pipeline(found))
    if json_file is not None:
        write_json(json_file, found.to_json())


def _sizes(text: str) -> List[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise MisuseError(f"--batches takes whole numbers separated by commas (1,8,16), not {text!r}") from None
    if len(set(found)) < len(found) or min(found) < 1 or max(found) > LARGEST_BATCH:
        raise MisuseError(
            f"--batches takes numbers of at least 1, at most {LARGEST_BATCH}, none of them twice, not {text!r}"
        )
    return found
