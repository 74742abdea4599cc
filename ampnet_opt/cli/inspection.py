"""An engine's sidecar as tables and sentences: no backend, no GPU."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Tuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ampnet_opt.core.graph_interface import IMAGE_SHAPES, INPUTS, OUTPUT
from ampnet_opt.core.text import count, listed
from ampnet_opt.runtime.layers import sentence
from ampnet_opt.runtime.sidecar import Sidecar, accuracies, rebuild_command

ASSUMED = " (assumed: the checkpoint names none)"


def warnings(record: Dict[str, Any]) -> List[str]:
    """What a record says of layers that are not in the precision that the graph asks for, or may not be: a line for each
    precision that they are in."""
    wanted = str(record.get("precision", "")).upper()
    others: Dict[str, List[str]] = {}
    for node, name in record.get("downgraded", {}).items():
        others.setdefault(name.upper(), []).append(node)
    found = [f"{count(len(nodes), 'layer')} in {name}, not in {wanted}: {listed(nodes)}" for name, nodes in others.items()]
    untold = record.get("untold", [])
    if untold:
        found.append(
            f"the precision of {count(len(untold), 'layer')} that should be in {wanted} is unlisted: {listed(untold)}"
        )
    return found


def choice(record: Dict[str, Any]) -> str:
    """Of a sidecar's mixed_precision: the layers in floating point, and what was measured with them on held-out faces."""
    names = [row["name"] for row in record["float_layers"]]
    which = f"{count(len(names), 'layer')} kept in floating point" + (f" ({', '.join(names)})" if names else "")
    sqnr = "" if record["sqnr_db"] is None else f", SQNR {record['sqnr_db']:.1f} dB"
    return (
        f"{which}: top-1 {record['top1']:.1%} (float: {record['float_top1']:.1%}), same top-1 {record['agreement']:.1%}"
        f"{sqnr}, on {count(record['held_out_faces'], 'held-out face')}"
    )


def measured(sidecar: Sidecar) -> str:
    """How far INT8's answers are from the float network's, on each kind of faces."""
    found = accuracies(sidecar)
    where = "" if all(accuracy.engine for accuracy in found) else " (its graph in ONNX Runtime)"
    return f"beside the float network{where}: {'; '.join(map(str, found))}"


def tensors(sidecar: Sidecar) -> List[Dict[str, Any]]:
    """Inputs and output: name, dtype and shape; the batch is the dimension None."""
    image = sidecar.image_input
    return [
        {"name": INPUTS[0], "dtype": image, "shape": [None, *IMAGE_SHAPES[image]]},
        {"name": INPUTS[1], "dtype": "float32", "shape": [None, 5, 2]},
        {"name": OUTPUT, "dtype": "float32", "shape": [None, len(sidecar.classes)]},
    ]


def show(console: Console, engine: Path, sidecar: Sidecar, files: Dict[str, Dict[str, Any]], layers: bool) -> None:
    console.print(_summary(engine, sidecar, files))
    record = sidecar.layers
    if record is not None and "list" in record:
        console.print()
        console.print(_every_layer(record["list"]) if layers else _by_kind(record["list"]))
        for warning in warnings(record):
            console.print(Text(f"warning: {warning}"))


def _summary(engine: Path, sidecar: Sidecar, files: Dict[str, Dict[str, Any]]) -> Table:
    batch = sidecar.batch
    rows = [
        ("engine", str(engine)),
        ("backend", f"{sidecar.backend} {sidecar.backend_version}"),
        ("precision", sidecar.precision),
        *((tensor["name"], f"{tensor['dtype']} {_shape(tensor['shape'])}") for tensor in tensors(sidecar)),
        ("batches", f"{batch.min} to {batch.max}, fastest at {batch.opt}"),
        ("classes", ", ".join(sidecar.classes) + (ASSUMED if sidecar.classes_assumed else "")),
        *((name.replace("_", " "), _words(value)) for name, value in sidecar.target.items()),
        ("weights", "trained" if sidecar.trained else "seeded, untrained"),
        ("checkpoint", f"SHA-256 {sidecar.checkpoint_sha256}"),
        ("graph", f"SHA-256 {sidecar.graph_sha256}"),
        ("built", f"{sidecar.built} in {sidecar.build_seconds} s by ampnet-opt {sidecar.ampnet_opt_version}"),
        *((name, f"{_bytes(file['bytes'])}, {file['state']}, SHA-256 {file['sha256']}") for name, file in files.items()),
        ("layers", "of this engine nothing was kept" if sidecar.layers is None else sentence(sidecar.layers)),
        *([("accuracy", measured(sidecar))] if sidecar.accuracy else []),
        *([] if sidecar.mixed_precision is None else [("choice", choice(sidecar.mixed_precision))]),
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
