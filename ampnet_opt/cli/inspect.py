"""`ampnet-opt inspect`: what is this engine? From what its directory holds: no backend, no GPU."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Optional

import typer

from ampnet_opt.cli.options import STDOUT, json_option, write_json
from ampnet_opt.core.errors import AmpnetError


def inspect(
    engine: Path = typer.Argument(..., metavar="ENGINE", help="An engine directory."),
    layers: bool = typer.Option(False, "--layers", help="List every layer instead of one line for each kind and precision."),
    json_file: Optional[Path] = json_option("everything, with every layer, as one JSON object"),
) -> None:
    """What an engine is: inputs, batches, target, files, and its layers with precision and size."""
    from ampnet_opt.cli.inspection import show, tensors
    from ampnet_opt.core.console import console
    from ampnet_opt.core.files import size_on_disk
    from ampnet_opt.runtime.sidecar import NAME, UNCHANGED, file_states, parse_sidecar, rebuild_command

    sidecar = parse_sidecar(engine)
    files = {
        name: {"sha256": sidecar.files[name], "state": state, "bytes": size_on_disk(engine / name)}
        for name, state in file_states(engine, sidecar).items()
    }
    if json_file is not None:
        content = {"engine": str(engine), "tensors": tensors(sidecar), **asdict(sidecar), "files": files}
        write_json(json_file, json.dumps({**content, "rebuild": rebuild_command(sidecar)}, indent=2) + "\n")
    if json_file != STDOUT:
        try:
            show(console(highlight=False), engine, sidecar, files, layers)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AmpnetError(f"{engine / NAME} is damaged ({error!r}); build the engine again") from error
    changed = [name for name, file in files.items() if file["state"] != UNCHANGED]
    if changed:
        raise AmpnetError(f"engine {engine} was changed after it was built: {', '.join(changed)}")
