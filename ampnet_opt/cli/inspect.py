"""`ampnet-opt inspect`: what is this engine? From its sidecar, as tables and sentences: no backend, no GPU."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import typer

from ampnet_opt.cli.options import STDOUT, json_option, write_json
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.graph_interface import IMAGE_SHAPES, INPUTS, OUTPUT
from ampnet_opt.core.text import count

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ampnet_opt.runtime.sidecar import Sidecar

ASSUMED = " (assumed: the checkpoint names none)"


def inspect(
    engine: Path = typer.Argument(..., metavar="ENGINE", help="An engine directory."),
    layers: bool = typer.Option(False, "--layers", help="List every layer instead of one line for each kind and precision."),
    json_file: Optional[Path] = json_option("everything, with every layer, as one JSON object"),
) -> None:
    """Show what an engine is: inputs, batches, target, files, and its layers with precision and size."""
    from ampnet_opt.core.console import console
    from ampnet_opt.core.files import size_on_disk
    from ampnet_opt.runtime.sidecar import NAME, UNCHANGED, file_states, parse_sidecar, rebuild_command

    sidecar = parse_sidecar(engine)
    files = {
        name: {"sha256": sidecar.files[name], "state": state, "bytes": size_on_disk(engine / name)}
        for name, state in file_states(engine, sidecar).items()
    }
    if json_file is not None:
        content = {"engine": str(engine), "tensors": _tensors(sidecar), **asdict(sidecar), "files": files}
        write_json(json_file, json.dumps({**content, "rebuild": rebuild_command(sidecar)}, indent=2) + "\n")
    if json_file != STDOUT:
        try:
            _show(console(highlight=False), engine, sidecar, files, layers)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AmpnetError(f"{engine / NAME} is damaged ({error!r}); build the engine again") from error
    changed = [name for name, file in files.items() if file["state"] != UNCHANGED]
    if changed:
        raise AmpnetError(f"engine {engine} was changed after it was built: {', '.join(changed)}")


def _tensors(sidecar: Sidecar) -> List[Dict[str, Any]]:
    """Inputs and output: name, dtype and shape; the batch is the dimension None."""
    image = sidecar.image_input
    return [
        {"name": INPUTS[0], "dtype": image, "shape": [None, *IMAGE_SHAPES[image]]},
        {"name": INPUTS[1], "dtype": "float32", "shape": [None, 5, 2]},
        {"name": OUTPUT, "dtype": "float32", "shape": [None, len(sidecar.classes)]},
    ]


def _show(console: Console, engine: Path, sidecar: Sidecar, files: Dict[str, Dict[str, Any]], layers: bool) -> None:
    from rich.text import Text

    from ampnet_opt.runtime.layers import layer_warnings

    console.print(_summary(engine, sidecar, files))
    record = sidecar.layers
    if record is not None and "list" in record:
        console.print()
        console.print(_every_layer(record["list"]) if layers else _by_kind(record["list"]))
        for warning in layer_warnings(record):
            console.print(Text(f"warning: {warning}"))


def _summary(engine: Path, sidecar: Sidecar, files: Dict[str, Dict[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from ampnet_opt.runtime.layers import sentence
    from ampnet_opt.runtime.sidecar import describe_accuracy, describe_choice, rebuild_command

    batch = sidecar.batch
    rows = [
        ("engine", str(engine)),
        ("backend", f"{sidecar.backend} {sidecar.backend_version}"),
        ("precision", sidecar.precision),
        *((tensor["name"], f"{tensor['dtype']} {_shape(tensor['shape'])}") for tensor in _tensors(sidecar)),
        ("batches", f"{batch.min} to {batch.max}, fastest at {batch.opt}"),
        ("classes", ", ".join(sidecar.classes) + (ASSUMED if sidecar.classes_assumed else "")),
        *((name.replace("_", " "), _words(value)) for name, value in sidecar.target.items()),
        ("weights", "trained" if sidecar.trained else "seeded, untrained"),
        ("checkpoint", f"SHA-256 {sidecar.checkpoint_sha256}"),
        ("graph", f"SHA-256 {sidecar.graph_sha256}"),
        ("built", f"{sidecar.built} in {sidecar.build_seconds} s by ampnet-opt {sidecar.ampnet_opt_version}"),
        *((name, f"{_bytes(file['bytes'])}, {file['state']}, SHA-256 {file['sha256']}") for name, file in files.items()),
        ("layers", "of this engine nothing was kept" if sidecar.layers is None else sentence(sidecar.layers)),
        *([("accuracy", describe_accuracy(sidecar))] if sidecar.accuracy else []),
        *([] if sidecar.mixed_precision is None else [("choice", describe_choice(sidecar.mixed_precision))]),
        *([] if sidecar.optimized is None else [("chosen because", sidecar.optimized["why"])]),
        ("build again", rebuild_command(sidecar)),
    ]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(Text(name), Text(text))
    return table


def _by_kind(rows: List[Tuple[str, str, Any, str]]) -> Table:
    """One line for each kind and precision, those with the largest weights first."""
    from rich.table import Table
    from rich.text import Text

    numbers: Counter[Tuple[str, str]] = Counter((kind, precision) for kind, precision, _, _ in rows)
    sizes: Counter[Tuple[str, str]] = Counter()
    for kind, precision, size, _ in rows:
        sizes[kind, precision] += size or 0
    table = Table("kind", "precision")
    table.add_column("layers", justify="right")
    table.add_column("weights", justify="right")
    for key in sorted(numbers, key=lambda key: (-sizes[key], -numbers[key], key)):
        table.add_row(Text(key[0]), Text(key[1]), str(numbers[key]), _bytes(sizes[key]) if sizes[key] else "")
    return table


def _every_layer(rows: List[Tuple[str, str, Any, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("layer", "kind", "precision")
    table.add_column("weights", justify="right")
    for kind, precision, size, name in rows:
        table.add_row(Text(name), Text(kind), Text(precision), "" if size is None else _bytes(size))
    return table


def _shape(shape: List[Any]) -> str:
    return f"[{', '.join('N' if size is None else str(size) for size in shape)}]"


def _words(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return ", ".join(map(str, value)) if len(value) <= 8 else count(len(value), "name")


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
