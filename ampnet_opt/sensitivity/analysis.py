"""Every unit's share in what INT8 costs: quantised alone, or spared alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Literal

import numpy as np
import onnx

from ampnet_opt.convert.export import module_path
from ampnet_opt.convert.placement import Placement, place
from ampnet_opt.convert.source import Int8
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.field_types import require_types
from ampnet_opt.core.files import PathLike, write_json
from ampnet_opt.core.json_files import read_json
from ampnet_opt.core.text import one_line
from ampnet_opt.sensitivity.effect import Effect, effect
from ampnet_opt.sensitivity.variants import Network

Kind = Literal["layer", "block"]


@dataclass(frozen=True)
class Unit:
    """name: of a module, as in the checkpoint. layers: its nodes of the graph."""

    name: str
    layers: tuple[str, ...]


def units(layers: Sequence[str], kind: Kind) -> list[Unit]:
    """The layers one by one, or together with those of their block (the module around them), in the graph's order."""
    found: dict[str, list[str]] = {}
    for layer in layers:
        name = name_of(layer)
        found.setdefault(name if kind == "layer" else _block(name), []).append(layer)
    return [Unit(name, tuple(members)) for name, members in found.items()]


def _block(module: str) -> str:
    """The residual block or aggregation stage (whose chain is a list named layers) around a module, or itself."""
    stage, chain, _ = module.partition(".layers.")
    return stage if chain else module.rpartition(".")[0] or module


def name_of(layer: str) -> str:
    """The module of a layer, a convolution and its batch norm being one: "trunk.0.1.first", "stages.0.layers.1"."""
    return module_path(layer).removesuffix(".conv").removesuffix(".conv_norm")


FORMAT = "ampnet-opt-sensitivity/1"
Mode = Literal["only", "all-but"]
# Types of what a file holds, but for the figures, which `Effect.of` reads.
ROW = {"name": str, "kind": str, "layers": List[str], "tensors": List[str]}
SCALARS = {
    **dict.fromkeys(("checkpoint_sha256", "graph_sha256", "data_fingerprint", "method", "mode"), str),
    "faces": int,
    "reference_top1": float,
}
Batches = Sequence[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Row:
    """A unit, its layers in the graph, the activations that are quantised for it alone, and what it does (see `Mode`)."""

    name: str
    kind: Kind
    layers: tuple[str, ...]
    tensors: tuple[str, ...]
    effect: Effect


@dataclass(frozen=True)
class Sensitivity:
    """rows: the worst first. mode: "only" a unit in INT8, or INT8 in "all-but" it. method, graph, data: of the calibration,
    whose faces are those of the analysis. reference_top1: of the float network; int8: with every layer in INT8."""

    checkpoint_sha256: str
    graph_sha256: str
    data_fingerprint: str
    faces: int
    method: str
    mode: Mode
    reference_top1: float
    int8: Effect
    rows: list[Row]

    def write(self, path: PathLike) -> None:
        rows = [_flat(row) for row in self.rows]
        write_json(path, {"format": FORMAT, **asdict(self), "int8": self.int8.record(), "rows": rows})


def read_sensitivity(path: PathLike) -> Sensitivity:
    """Raises MisuseError when there is no file, AmpnetError when it is no sensitivity analysis."""
    file = Path(path)
    try:
        content = read_json(file, "sensitivity analysis")
        if content.pop("format") != FORMAT:
            raise AmpnetError(f"{file} is a sensitivity analysis of another format than {FORMAT}")
        rows, int8 = [_row(row) for row in content.pop("rows")], Effect.of(content.pop("int8"))
        found = Sensitivity(**content, int8=int8, rows=rows)
        for name, hint in SCALARS.items():
            require_types(getattr(found, name), hint, name)
        return found
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AmpnetError(f"{file} is not a sensitivity analysis: {one_line(error, 120)}") from error


def analyse(
    graph: onnx.ModelProto,
    int8: Int8,
    *,
    checkpoint_sha256: str,
    batches: Batches,
    labels: np.ndarray,
    kind: Kind,
    mode: Mode,
    state: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sensitivity:
    """Measure every unit of a float graph on the faces that `int8` was calibrated on.

    batches: (image, landmarks) as the graph takes them; labels: int64 [N]. state: a file that keeps what is done, so that a
    run that was stopped goes on; whoever has written the result removes it. progress: called with units done and all units.
    """
    table, full = int8.table, place(graph)
    todo = units(full.layers, kind)
    measured = {"scales": None, "corrections": None, "seen": None}  # they follow from the faces, the graph and the method
    key = {**asdict(table), **measured, "kind": kind, "mode": mode, "checkpoint": checkpoint_sha256}
    key["labels"] = labels.tolist()
    done = _load_state(state, key)
    float_network = Network(graph, int8, Placement(), batches)
    reference = float_network.logits
    everywhere = effect(float_network.run(full), reference, labels)
    network = float_network if mode == "only" else Network(graph, int8, full, batches)
    for i, unit in enumerate(todo):
        progress(i, len(todo))
        if unit.name in done:
            continue
        alone = place(graph, kept=set(full.layers) - set(unit.layers))
        variant = alone if mode == "only" else place(graph, kept=unit.layers)
        found = effect(network.run(variant), reference, labels)
        done[unit.name] = Row(unit.name, kind, unit.layers, tuple(alone.tensors), found)
        write_json(state, {"key": key, "rows": [_flat(row) for row in done.values()]})
    progress(len(todo), len(todo))
    return Sensitivity(
        checkpoint_sha256,
        table.graph_sha256,
        table.data_fingerprint,
        len(labels),
        table.method,
        mode,
        float((reference.argmax(1) == labels).mean()),
        everywhere,
        ranked([done[unit.name] for unit in todo], mode),
    )


def ranked(rows: Sequence[Row], mode: Mode) -> list[Row]:
    """The unit that INT8 costs most first: most divergence where it alone is INT8, least left where it alone is not."""
    return sorted(rows, key=lambda row: row.effect.kl, reverse=mode == "only")


def _flat(row: Row) -> dict[str, Any]:
    content = asdict(row)
    del content["effect"]
    return {**content, **row.effect.record()}


def _row(content: dict[str, Any]) -> Row:
    require_types(content, Dict[str, Any], "a row")
    for name, hint in ROW.items():
        require_types(content[name], hint, name)
    return Row(content["name"], content["kind"], tuple(content["layers"]), tuple(content["tensors"]), Effect.of(content))


def _load_state(state: Path, key: dict[str, Any]) -> dict[str, Row]:
    """The rows of a run with this key that was stopped; none where the file is of another run, or damaged."""
    try:
        content = read_json(state, "state")
        return {row["name"]: _row(row) for row in content["rows"]} if content["key"] == key else {}
    except (AmpnetError, ValueError, KeyError, TypeError):
        return {}
