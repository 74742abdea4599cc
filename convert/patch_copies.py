"""Patches by copying cells of the feature map, in place of products with one-hot selectors.

A product is what every TensorRT runs, in any type. A processor copies whole cells, of one byte per channel in INT8, in a
tenth of the time. Both are exact, so the graph's results do not change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from ampnet_opt.convert.graph import GraphIndex, NewNodes, attribute, exchange_nodes
from ampnet_opt.convert.placement import patch_source
from ampnet_opt.network.patches import GRID_SIDE

CELLS = GRID_SIDE**2  # also the number of the cell of zeros that is put behind them
# Taken from the position of a selected cell on each axis and given back to all, so that where a selector is empty, and the
# sum over it zero, the number of the cell is over CELLS. Integers to 2 * AWAY: exact in float32, not in half precisions.
AWAY = 1000


@dataclass(frozen=True)
class _Windows:
    """selectors: float32 [N, count, 2, side, 28], axis 2: columns, rows."""

    selectors: str
    count: int
    side: int


def gather_crops(graph: onnx.GraphProto) -> None:
    """Replace the crops of an exported graph, float or Q/DQ; a graph without them stays as it is."""
    index = GraphIndex(graph)
    patches = [node for node in graph.node if node.op_type == "MatMul" and patch_source(node.output[0], index)]
    groups = _windows(patches, index)
    if not groups:
        return
    source = index.producers[index.producers[patches[0].input[0]].input[0]].input[1]
    stored = index.maker(source, "DequantizeLinear")

    new = NewNodes(graph, "crop")
    cells = new.add("Transpose", [source if stored is None else stored.input[0]], "channels_last", perm=[0, 2, 3, 1])
    cells = new.add("Reshape", [cells, new.constant("cells_shape", [0, CELLS, -1])], "cells")
    cells = new.add("Pad", [cells, new.constant("one_cell", [0, 0, 0, 0, 1, 0])], "padded")
    numbers = new.add("Concat", [_numbers(new, windows, i) for i, windows in enumerate(groups)], "numbers", axis=1)
    numbers = new.add("Cast", [numbers], "indices", to=onnx.TensorProto.INT64)
    cells = new.add("GatherND", [cells, numbers], "gathered", batch_dims=1)
    if stored is not None:
        cells = new.add("DequantizeLinear", [cells, *stored.input[1:]], "dequantized")
    sides = [windows.side for windows in groups for _ in range(windows.count)]
    flat = [f"crop/patch_{k}" for k in range(len(sides))]
    new.add_named("Split", [cells, new.constant("sizes", [side**2 for side in sides])], flat, axis=1)

    replaced = {node.name for node in patches}
    for k, (patch, cut, side) in enumerate(zip(patches, flat, sides, strict=True)):
        shape = new.constant(f"shape_{k}", [0, side, side, -1])
        pair = [] if stored is None else _needless_pair(patch.output[0], stored, index)
        replaced.update(node.name for node in pair)
        output = pair[-1].output[0] if pair else patch.output[0]
        new.add_named("Transpose", [new.add("Reshape", [cut, shape], f"square_{k}")], [output], perm=[0, 3, 1, 2])
    exchange_nodes(graph, replaced, new.nodes)


def _windows(patches: list[onnx.NodeProto], index: GraphIndex) -> list[_Windows]:
    """Where the patches lie, in their order; [] when these are not the crops of `ampnet_opt.network.patches`."""
    split = index.maker(patches[0].input[0], "Split") if patches else None
    bands = split and index.maker(split.input[0], "MatMul")
    rows = bands and index.maker(bands.input[0], "Unsqueeze", "Concat")
    if split is None or rows is None or list(split.output) != [node.input[0] for node in patches]:
        return []
    if split.input[-1] not in index.constants:
        return []
    columns = [index.maker(node.input[1], "Transpose", "Slice", "Gather") for node in patches]
    sides = list(index.array(split.input[-1]))
    found, first = [], 0
    for tensor in rows.input:
        picked = index.maker(tensor, "Reshape", "Gather")
        if picked is None or not _picks(picked, 2, 1, index):
            return []
        last = first
        while last < len(columns) and _is_column(columns[last], picked.input[0], last - first, index):
            last += 1
        if first == last or len({*sides[first:last]}) != 1:
            return []
        found.append(_Windows(picked.input[0], last - first, int(sides[first])))
        first = last
    return found if first == len(columns) else []


def _is_column(node: onnx.NodeProto | None, selectors: str, k: int, index: GraphIndex) -> bool:
    """Whether `node` picks window `k` of `selectors`."""
    return node is not None and node.input[0] == selectors and _picks(node, 1, k, index)


def _picks(gather: onnx.NodeProto, axis: int, k: int, index: GraphIndex) -> bool:
    constant = gather.input[1] in index.constants
    return constant and attribute(gather, "axis", 0) == axis and np.array_equal(index.array(gather.input[1]), k)


def _numbers(new: NewNodes, windows: _Windows, i: int) -> str:
    """Numbers of the cells of all windows, float32 [N, count * side * side, 1]: 28 * row + column, CELLS for none."""
    position = np.arange(GRID_SIDE, dtype=np.float32)
    weights = np.stack([position - AWAY, GRID_SIDE * position - AWAY]).reshape(1, 1, 2, 1, GRID_SIDE)
    weighted = new.add("Mul", [windows.selectors, new.constant(f"weights_{i}", weights)], f"weighted_{i}")
    summed = new.add("ReduceSum", [weighted, new.constant(f"last_axis_{i}", [4])], f"positions_{i}", keepdims=0)
    column, row = new.add_named("Split", [summed], [f"crop/column_{i}", f"crop/row_{i}"], axis=2)  # [N, count, 1, side]
    both = new.add("Add", [new.add("Transpose", [row], f"down_{i}", perm=[0, 1, 3, 2]), column], f"sum_{i}")
    back = new.add("Add", [both, new.constant(f"back_{i}", np.float32(2 * AWAY))], f"number_{i}")
    inside = new.add("Min", [back, new.constant(f"zero_cell_{i}", np.float32(CELLS))], f"inside_{i}")
    return new.add("Reshape", [inside, new.constant(f"list_{i}", [0, -1, 1])], f"numbers_{i}")


def _needless_pair(patch: str, stored: onnx.NodeProto, index: GraphIndex) -> list[onnx.NodeProto]:
    """Q and DQ that give a patch the type and scale that its cells come with already; [] when there are none."""
    pair = index.followers(patch, "QuantizeLinear", "DequantizeLinear")
    if not pair:
        return []
    arrays = [[index.array(name) for name in node.input[1:] if name in index.constants] for node in (pair[0], stored)]
    same = [a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(*arrays, strict=False)]
    return pair if len(same) == 2 and all(same) else []
