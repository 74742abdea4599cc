"""From five facial landmarks to patches of the trunk's feature map, as tensor operations.

Everything here is exact in float32: after the first rounding all values are integers of at most two digits. Selection is
a product with one-hot rows and columns, so the patches follow the landmarks in a traced graph, for any batch, and padding
with zeros is a row of zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ampnet_opt.core.graph_interface import IMAGE_SIDE

GRID_SIDE = 28
LOCAL_SIDE = 14
LOCAL_PATCHES = 4
EYE_LEFT, EYE_RIGHT, NOSE, MOUTH_LEFT, MOUTH_RIGHT = range(5)


class Windows(NamedTuple):
    """Square windows on the grid: `start` (x, y) of the full-size window, and the part of it that is kept.

    Each field is a float32 tensor [N, K, 2] of integers, last axis (x, y); cells outside [low, high) read as zero.
    """

    start: Tensor
    low: Tensor
    high: Tensor


def to_grid(landmarks: Tensor) -> Tensor:
    """Landmarks float32 [N, 5, 2] in pixels -> the same, clipped to the image and rounded half to even to grid cells."""
    return (landmarks.clamp(0, IMAGE_SIDE) * (GRID_SIDE / IMAGE_SIDE)).round()


def _midpoint(grid: Tensor, first: int, second: int) -> Tensor:
    return ((grid[:, first] + grid[:, second]) * 0.5).floor()


def _pair_sides(height: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Sides of the left and right patch that meet at `column`, with `height` rows to share (all of one shape)."""
    right_room = GRID_SIDE - column
    smallest = torch.minimum(height, torch.minimum(column, right_room))
    free_left = torch.minimum(height, column).clamp(max=LOCAL_SIDE)
    free_right = torch.minimum(height, right_room).clamp(max=LOCAL_SIDE)
    # Only when the patch would be narrower than a third of the grid, and the width is what limits it, does the
    # other side of the pair grow past it.
    narrow = smallest < GRID_SIDE / 3
    left_limits = narrow & (column == smallest) & (height != smallest)
    right_limits = narrow & (right_room == smallest) & (height != smallest) & (column != smallest)
    return torch.where(right_limits, free_left, smallest), torch.where(left_limits, free_right, smallest)


def local_windows(grid: Tensor) -> Windows:
    """Four 14 x 14 windows (top-left, top-right, bottom-left, bottom-right) that meet between the eyes and mouth corners."""
    row = grid[:, NOSE, 1:]
    columns = torch.cat([_midpoint(grid, EYE_LEFT, EYE_RIGHT)[:, :1], _midpoint(grid, MOUTH_LEFT, MOUTH_RIGHT)[:, :1]], 1)
    left, right = _pair_sides(torch.cat([row, GRID_SIDE - row], 1), columns)  # [N, 2] each: upper pair, lower pair

    upper, lower = (torch.cat([columns[:, i : i + 1], row], 1) for i in range(2))
    corner = torch.stack([upper, upper, lower, lower], 1)
    side = torch.stack([left, right], 2).reshape(-1, LOCAL_PATCHES, 1)
    before = corner.new_tensor([[1, 1], [0, 1], [1, 0], [0, 0]])  # 1 where the window ends at the corner, (x, y)
    return Windows(corner - LOCAL_SIDE * before, corner - side * before, corner + side * (1 - before))


def attention_windows(grid: Tensor, radius: int) -> Windows:
    """Five windows of side 2 * radius around the eyes, the point between them and the mouth corners."""
    centre = torch.stack(
        [
            grid[:, EYE_LEFT],
            grid[:, EYE_RIGHT],
            _midpoint(grid, EYE_LEFT, EYE_RIGHT),
            grid[:, MOUTH_LEFT],
            grid[:, MOUTH_RIGHT],
        ],
        1,
    ).clamp(radius, GRID_SIDE - radius)
    return Windows(centre - radius, centre - radius, centre + radius)


def one_hot(windows: Windows, side: int) -> Tensor:
    """Selectors [N, K, 2, side, 28] (axis 2: columns, rows): 1 where window cell i reads grid cell j, else 0."""
    cell = windows.start.unsqueeze(3) + torch.arange(side, dtype=torch.float32, device=windows.start.device)
    low, high = windows.low.unsqueeze(3), windows.high.unsqueeze(3)
    outside = (low - cell).clamp(0, 1) + (cell + 1 - high).clamp(0, 1)
    grid = torch.arange(GRID_SIDE, dtype=torch.float32, device=cell.device)
    # For integers max(0, 1 - |i - j|) is a one-hot; a cell outside its window is pushed off the grid instead.
    return (1 - (cell - 2 * GRID_SIDE * outside).unsqueeze(4).sub(grid).abs()).clamp(min=0)


def crop(features: Tensor, groups: Sequence[tuple[Windows, int]]) -> list[Tensor]:
    """Patches [N, C, side, side] of `features` [N, C, 28, 28], zero outside each window: K for each (windows, side)."""
    rows, columns, sides = [], [], []
    for windows, side in groups:
        selectors = one_hot(windows, side).to(features.dtype)
        count = selectors.shape[1]
        rows.append(selectors[:, :, 1].reshape(-1, count * side, GRID_SIDE))
        columns += [selectors[:, k, :1].transpose(2, 3) for k in range(count)]  # [N, 1, 28, side]
        sides += [side] * count
    # One product for the rows of all patches: the map is read once.
    bands = torch.matmul(torch.cat(rows, 1).unsqueeze(1), features).split(sides, 2)
    return [torch.matmul(band, column) for band, column in zip(bands, columns, strict=True)]
