"""The command that looks into an engine, from what its directory holds: no backend, no GPU."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer

from ampnet_opt.cli.messages import remark, say
from ampnet_opt.core.errors import AmpnetError


def inspect(
    engine: Path = typer.Argument(..., metavar="ENGINE", help="An engine directory."),
    layers: bool = typer.Option(False, "--layers", help="Every layer, not one line for each kind and precision."),
    as_json: bool = typer.Option(False, "--json", help="Everything as one JSON object, with every layer."),
) -> None:
    """What an engine is: inputs, batches, target, files, and the layers that the backend made, with precision and size."""
    from ampnet_opt.cli.inspection import show, tensors
    from ampnet_opt.core.console import console
    from ampnet_opt.core.files import size_on_disk
    from ampnet_opt.runtime.sidecar import NAME, UNCHANGED, file_states, parse_sidecar, rebuild_command

    sidecar = parse_sidecar(engine)
    files = {
        name: {"sha256": sidecar.files[name], "state": state, "bytes": size_on_disk(engine / name)}
        for name, state in file_states(engine, sidecar).items()
    }
    if as_json:
        content = {"engine": str(engine), "tensors": tensors(sidecar), **asdict(sidecar), "files": files}
        typer.echo(json.dumps({**content, "rebuild": rebuild_command(sidecar)}, indent=2))
    else:
        try:
            show(console(highlight=False), engine, sidecar, files, layers)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AmpnetError(f"{engine / NAME} is damaged ({error!r}); build the engine again") from error
    changed = [name for name, file in files.items() if file["state"] != UNCHANGED]
    if changed:
        raise AmpnetError(f"engine {engine} is not as it was built: {', '.join(changed)}")


def say_engine(engine: Path, not_run: str) -> None:
    """What `build` says of an engine that it made. not_run: why it was not compared with its graph, or ""."""
    from ampnet_opt.core.files import size_on_disk
    from ampnet_opt.runtime.sidecar import parse_sidecar

    note = "" if parse_sidecar(engine).trained else " (untrained weights)"
    say(f"{engine}: {size_on_disk(engine) / 1e6:.1f} MB{note}")
    _say_layers(engine)
    if not_run:
        remark(f"{engine} was not run here, nor compared with its graph: {not_run}")


def _say_layers(engine: Path) -> None:
    """After a build: what INT8 does to the answers, which layers a search kept in floating point, what the layers are
    computed in, and a warning for each that is not as the graph asks.
    """
    from ampnet_opt.cli.inspection import choice, measured, warnings
    from ampnet_opt.runtime.accuracy import doubts
    from ampnet_opt.runtime.layers import sentence
    from ampnet_opt.runtime.sidecar import accuracies, parse_sidecar

    sidecar = parse_sidecar(engine)
    if sidecar.mixed_precision is not None:
        say(f"{engine}: {choice(sidecar.mixed_precision)}")
    if sidecar.accuracy:
        say(f"{engine}: {measured(sidecar)}")
        for doubt in doubts(accuracies(sidecar), sidecar.trained):
            remark(f"warning: {doubt}")
    record = sidecar.layers
    if record is None:
        return
    say(f"{engine}: {sentence(record)}")
    for warning in warnings(record):
        remark(f"warning: {warning}")
