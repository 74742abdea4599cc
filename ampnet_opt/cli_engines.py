"""The command that looks into an engine, from what its directory holds: no backend, no GPU."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, List, Tuple

import typer

from ampnet_opt.errors import AmpnetError
from ampnet_opt.runtime.layers import count, sentence
from ampnet_opt.runtime.sidecar import INPUTS, NAME, OUTPUT, UNCHANGED, Sidecar, file_states, parse_sidecar, rebuild_command

SHAPES = {"uint8": [224, 224, 3], "float32": [3, 224, 224]}


def inspect(
    engine: Path = typer.Argument(..., metavar="ENGINE", help="An engine directory."),
    layers: bool = typer.Option(False, "--layers", help="Every layer, not one line for each kind and precision."),
    as_json: bool = typer.Option(False, "--json", help="Everything as one JSON object, with every layer."),
) -> None:
    """What an engine is: inputs, batches, target, files, and the layers that the backend made, with precision and size."""
    sidecar = parse_sidecar(engine)
    files = {
        name: {"sha256": sidecar.files[name], "state": state, "bytes": _size(engine / name)}
        for name, state in file_states(engine, sidecar).items()
    }
    if as_json:
        content = {"engine": str(engine), "tensors": tensors(sidecar), **asdict(sidecar), "files": files}
        typer.echo(json.dumps({**content, "rebuild": rebuild_command(sidecar)}, indent=2))
    else:
        try:
            _print(engine, sidecar, files, layers)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AmpnetError(f"{engine / NAME} is damaged ({error!r}); build the engine again") from error
    changed = [name for name, file in files.items() if file["state"] != UNCHANGED]
    if changed:
        raise AmpnetError(f"engine {engine} is not as it was built: {', '.join(changed)}")


def say_layers(engine: Path) -> None:
    """After a build: what the layers are computed in, in one line, and a warning for each that is not as the graph asks."""
    record = parse_sidecar(engine).layers
    if record is None:
        return
    typer.echo(f"{engine}: {sentence(record)}")
    for warning in warnings(record):
        typer.echo(f"warning: {warning}", err=True)


def warnings(record: Dict[str, Any]) -> List[str]:
    """A sentence for each layer of a record that is not in the precision that the graph asks for, or may not be."""
    wanted = str(record.get("precision", "")).upper()
    found = [f"{node} is computed in {name.upper()}, not in {wanted}" for node, name in record.get("downgraded", {}).items()]
    return found + [f"nothing tells whether {node} is computed in {wanted}" for node in record.get("untold", [])]


def tensors(sidecar: Sidecar) -> List[Dict[str, Any]]:
    """Inputs and output: name, dtype and shape; the batch is the dimension None."""
    image = sidecar.image_input
    return [
        {"name": INPUTS[0], "dtype": image, "shape": [None, *SHAPES[image]]},
        {"name": INPUTS[1], "dtype": "float32", "shape": [None, 5, 2]},
        {"name": OUTPUT, "dtype": "float32", "shape": [None, len(sidecar.classes)]},
    ]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _print(engine: Path, sidecar: Sidecar, files: Dict[str, Dict[str, Any]], layers: bool) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(_summary(engine, sidecar, files))
    record = sidecar.layers
    if record is not None and "list" in record:
        console.print()
        console.print(_every_layer(record["list"]) if layers else _by_kind(record["list"]))
        for warning in warnings(record):
            console.print(f"warning: {warning}", markup=False)


def _summary(engine: Path, sidecar: Sidecar, files: Dict[str, Dict[str, Any]]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    batch = sidecar.batch
    rows = [
        ("engine", str(engine)),
        ("backend", f"{sidecar.backend} {sidecar.backend_version}"),
        ("precision", sidecar.precision),
        *((tensor["name"], f"{tensor['dtype']} {_shape(tensor['shape'])}") for tensor in tensors(sidecar)),
        ("batches", f"{batch.min} to {batch.max}, fastest at {batch.opt}"),
        ("classes", ", ".join(sidecar.classes)),
        *((name.replace("_", " "), _words(value)) for name, value in sidecar.target.items()),
        ("weights", "trained" if sidecar.trained else "seeded, untrained"),
        ("checkpoint", f"SHA-256 {sidecar.checkpoint_sha256}"),
        ("graph", f"SHA-256 {sidecar.graph_sha256}"),
        ("built", f"{sidecar.built} in {sidecar.build_seconds} s by ampnet-opt {sidecar.ampnet_opt_version}"),
        *((name, f"{_bytes(file['bytes'])}, {file['state']}, SHA-256 {file['sha256']}") for name, file in files.items()),
        ("layers", "of this engine nothing was kept" if sidecar.layers is None else sentence(sidecar.layers)),
        ("build again", rebuild_command(sidecar)),
    ]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(escape(name), escape(text))
    return table


def _by_kind(rows: List[Tuple[str, str, Any, str]]) -> Any:
    """One line for each kind and precision, those with the largest weights first."""
    from rich.markup import escape
    from rich.table import Table

    numbers: Counter[Tuple[str, str]] = Counter((kind, precision) for kind, precision, _, _ in rows)
    sizes: Counter[Tuple[str, str]] = Counter()
    for kind, precision, size, _ in rows:
        sizes[kind, precision] += size or 0
    table = Table("kind", "precision")
    table.add_column("layers", justify="right")
    table.add_column("weights", justify="right")
    for key in sorted(numbers, key=lambda key: (-sizes[key], -numbers[key], key)):
        table.add_row(escape(key[0]), escape(key[1]), str(numbers[key]), _bytes(sizes[key]) if sizes[key] else "")
    return table


def _every_layer(rows: List[Tuple[str, str, Any, str]]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table("layer", "kind", "precision")
    table.add_column("weights", justify="right")
    for kind, precision, size, name in rows:
        table.add_row(escape(name), escape(kind), escape(precision), "" if size is None else _bytes(size))
    return table


def _shape(shape: List[Any]) -> str:
    return f"[{', '.join('N' if size is None else str(size) for size in shape)}]"


def _words(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return ", ".join(map(str, value)) if len(value) <= 8 else count(len(value), "name")


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
