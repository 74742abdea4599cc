"""The command that times engines against each other; needs the runtime alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional

import typer

from ampnet_opt.cli.terminal import FORCE, THREADS, stages
from ampnet_opt.core.errors import MisuseError


def benchmark(
    engines: List[Path] = typer.Argument(..., metavar="ENGINES...", help="Engine directories."),
    batch: str = typer.Option("1", "--batch", help="Batches to time, by commas: 1,8,16."),
    threads: Optional[int] = THREADS,
    runs: int = typer.Option(50, "--runs", min=1, max=1_000_000, help="Timed runs of each engine and batch, at least."),
    seconds: float = typer.Option(
        3.0, "--seconds", min=0, max=86_400, help="Seconds for all engines of a batch together, at least."
    ),
    many: bool = typer.Option(False, "--many", help="Also the rate of many faces in a row, as `run` takes a folder."),
    json_file: Optional[Path] = typer.Option(None, "--json", help="Write everything measured to this file."),
    picture: Optional[Path] = typer.Option(None, "--picture", help="PNG of latency against batch, and of accuracy."),
    against: Optional[Path] = typer.Option(None, "--against", help="An older --json file: show what became slower."),
    layers: bool = typer.Option(False, "--layers", help="Each engine's slowest layers, at the first batch."),
    accuracy: Optional[Path] = typer.Option(None, "--accuracy", help="File of compare --json: top-1 beside latency."),
    force: bool = FORCE,
) -> None:
    """Latency, throughput, memory and energy of engines, in one interleaved run, with what noise lets one say."""
    from ampnet_opt.benchmarks.bench import benchmark as measure
    from ampnet_opt.benchmarks.bench_accuracy import read_accuracy
    from ampnet_opt.benchmarks.bench_layers import layer_times
    from ampnet_opt.benchmarks.bench_picture import draw_benchmark, require_matplotlib
    from ampnet_opt.benchmarks.bench_report import render, render_changes
    from ampnet_opt.benchmarks.regression import changes, read_benchmark
    from ampnet_opt.core.console import console
    from ampnet_opt.core.files import new_file, require_new_file, write_text

    batches = _batches(batch)
    for file in (json_file, picture):
        if file is not None:
            require_new_file(file, force)
    if picture is not None:
        require_matplotlib()
        if json_file is not None and picture.resolve() == json_file.resolve():
            raise MisuseError("--json and --picture name the same file")
    before = None if against is None else read_benchmark(against)
    scores = {} if accuracy is None else read_accuracy(accuracy, engines)
    with stages() as progress:
        found = measure(engines, batches, threads=threads, runs=runs, seconds=seconds, many=many, progress=progress)
        profiles: Dict[str, Any] = {}
        for number, (engine, measured) in enumerate(zip(engines, found.engines if layers else [])):
            progress("profiling", number, len(engines))
            profiles[measured.name] = layer_times(engine, batches[0], threads)
    found = replace(found, accuracy=scores, layers=profiles)
    terminal = console()
    terminal.print(render(found))
    if before is not None:
        terminal.print(render_changes(*changes(before, found), str(against)))
    if json_file is not None:
        write_text(json_file, found.to_json())
    if picture is not None:
        with new_file(picture) as temporary:
            draw_benchmark(temporary, found)


def _batches(text: str) -> List[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise MisuseError(f"--batch takes whole numbers by commas, 1,8,16 say, not {text!r}") from None
    if len(set(found)) < len(found) or min(found) < 1:
        raise MisuseError(f"--batch takes numbers of at least 1, none of them twice, not {text!r}")
    return found
