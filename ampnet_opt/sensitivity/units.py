"""What is quantised, or spared, at a time: one layer, or the layers of one block of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ampnet_opt.convert.export import module_path

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
