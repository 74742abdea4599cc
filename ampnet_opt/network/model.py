"""AMP-Net: the live part of the facial-expression network of Liu et al., IEEE TCSVT 32(9), 2022.

A shared trunk feeds three readers of one 28 x 28 feature map: four patches that meet at the nose (local perception), five
patches around eyes and mouth (attention perception), and the whole map (global perception). The first two make the patch
head, the third the global head; the prediction is `beta * patch + (1 - beta) * global`.

Patches are chosen by tensor operations, from landmarks to windows on the grid, all exact in float32: after the first
rounding all values are integers of at most two digits. Selection is a product with one-hot rows and columns, so that the
patches follow the landmarks in a traced graph, for any batch, and padding with zeros is a row of zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ampnet_opt.core.graph_interface import IMAGE_SIDE

GRID_SIDE = 28
LOCAL_SIDE = 14
LOCAL_PATCHES = 4
EYE_LEFT, EYE_RIGHT, NOSE, MOUTH_LEFT, MOUTH_RIGHT = range(5)
ATTENTION_PATCHES = 5
GATE_REDUCTION = 16


@dataclass(frozen=True)
class Config:
    """What makes one AMP-Net differ from another, beside its weights.

    num_classes: outputs of both heads. width: factor on every channel count. patch_radius: half the side, in cells of the
    28 x 28 grid, of the attention patches (1 to 14). beta: share of the patch head in the prediction (0 to 1).
    """

    num_classes: int
    width: float = 1.0
    patch_radius: int = 5
    beta: float = 0.5

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {self.num_classes}")
        if not 0 < self.width <= 4:
            raise ValueError(f"width must be over 0 and at most 4, got {self.width}")
        if not 1 <= self.patch_radius <= LOCAL_SIDE:
            raise ValueError(f"patch_radius must be 1 to {LOCAL_SIDE}, got {self.patch_radius}")
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta must be 0 to 1, got {self.beta}")

    def channels(self, full: int) -> int:
        """`full` scaled by width, to a multiple of 8 (what tensor cores and VNNI work in), at least 8."""
        return max(8, round(full * self.width / 8) * 8)


class ConvNorm(nn.Sequential):
    """Convolution without bias, then batch norm; the two fold into one when exported."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)


def pointwise(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """A linear layer over the channels of [N, C, H, W]: as a convolution, pooled vectors need no reshaping around it."""
    return F.conv2d(x, weight[:, :, None, None], bias)


class ChannelGate(nn.Module):
    """CBAM's channel gate: one MLP shared by the average- and the max-pooled vector, its two outputs added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // GATE_REDUCTION)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        first, second = cast(nn.Linear, self.mlp[0]), cast(nn.Linear, self.mlp[2])
        mean, peak = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
        hidden = F.relu(pointwise(first.weight, first.bias, mean)) + F.relu(pointwise(first.weight, first.bias, peak))
        # The second layer is linear, so it is applied once, to the sum of the two hidden vectors.
        return x * pointwise(second.weight, 2 * second.bias, hidden).sigmoid()


class SpatialGate(nn.Module):
    """CBAM's spatial gate: one 7 x 7 convolution over the channels' maximum and mean."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = ConvNorm(2, 1, 7)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * self.mix(pooled).sigmoid()


class ScalarGate(nn.Module):
    """One sigmoid per image, from its average-pooled features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * pointwise(self.fc.weight, self.fc.bias, x.mean((2, 3), keepdim=True)).sigmoid()


class ChannelAttention(nn.Module):
    """Effective squeeze-excitation: average pool, 1 x 1 convolution, hard sigmoid relu6(v + 3) / 6."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.fc(x.mean((2, 3), keepdim=True)))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut; `gated` puts CBAM's two gates before the addition."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, gated: bool = False) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, 3, stride)
        self.second = ConvNorm(outputs, outputs, 3)
        self.gates = nn.Sequential(ChannelGate(outputs), SpatialGate()) if gated else nn.Identity()
        reshaped = stride != 1 or inputs != outputs
        self.shortcut = ConvNorm(inputs, outputs, 1, stride) if reshaped else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.gates(self.second(F.relu(self.first(x))))
        return F.relu(y + self.shortcut(x))


def residual_stage(inputs: int, outputs: int, blocks: int, stride: int, gated: bool = False) -> nn.Sequential:
    rest = [ResidualBlock(outputs, outputs, gated=gated) for _ in range(blocks - 1)]
    return nn.Sequential(ResidualBlock(inputs, outputs, stride, gated), *rest)


class GatedConv(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_norm = ConvNorm(inputs, outputs, 3)
        self.gate = ScalarGate(outputs)
        self.relu = nn.ReLU()


class AggregationStage(nn.Module):
    """One-shot aggregation: a chain of gated convolutions, all of whose outputs are joined at once."""

    def __init__(self, inputs: int, inner: int, outputs: int, depth: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(GatedConv(inputs if i == 0 else inner, inner) for i in range(depth))
        self.join = ConvNorm(inputs + depth * inner, outputs, 1)
        self.drop = nn.Dropout2d(0.1)
        self.attention = ChannelAttention(outputs)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        return self.attention(self.drop(F.relu(self.join(torch.cat(outputs, 1)))))


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


class AMPNet(nn.Module):
    """See the module's docstring; arguments as in `Config`."""

    def __init__(self, num_classes: int, width: float = 1.0, patch_radius: int = 5, beta: float = 0.5) -> None:
        super().__init__()
        self.config = config = Config(num_classes, width, patch_radius, beta)
        c64, c128, c256, c384, c512 = (config.channels(c) for c in (64, 128, 256, 384, 512))

        self.stem = ConvNorm(3, c64, 7, 2)
        self.trunk = nn.Sequential(residual_stage(c64, c64, 3, 1), residual_stage(c64, c128, 4, 2))

        def local_branch() -> nn.Sequential:
            return nn.Sequential(*residual_stage(c128, c256, 2, 2, True), *residual_stage(c256, c512, 2, 1, True))

        self.local = nn.ModuleList(local_branch() for _ in range(LOCAL_PATCHES))
        self.local_fc = nn.Linear(LOCAL_PATCHES * c512, c512)
        self.attention = nn.ModuleList(residual_stage(c128, c256, 2, 2, True) for _ in range(ATTENTION_PATCHES))
        self.attention_fc = nn.Linear(ATTENTION_PATCHES * c256, c512)
        self.patch_head = nn.Linear(2 * c512, num_classes)

        inner = [config.channels(c) for c in (128, 144, 160)]
        self.stages = nn.ModuleList(
            AggregationStage(inputs, mid, outputs)
            for inputs, mid, outputs in zip((c128, c256, c384), inner, (c256, c384, c512), strict=True)
        )
        self.global_head = nn.Linear(c512, num_classes)

    def heads(self, image: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        """Logits float32 [N, classes] of the patch head and of the global head; inputs as in `forward`."""
        features = self.trunk(F.max_pool2d(F.relu(self.stem(image)), 3, 2, 1))
        grid = to_grid(landmarks)
        return self._patch_logits(features, grid), self._global_logits(features)

    def _patch_logits(self, features: Tensor, grid: Tensor) -> Tensor:
        radius = self.config.patch_radius
        patches = crop(features, [(local_windows(grid), LOCAL_SIDE), (attention_windows(grid, radius), 2 * radius)])
        local, attention = patches[:LOCAL_PATCHES], patches[LOCAL_PATCHES:]

        def pooled(branches: nn.ModuleList, patches: list[Tensor]) -> Tensor:
            return torch.cat([b(p).mean((2, 3)) for b, p in zip(branches, patches, strict=True)], 1)

        parts = [self.local_fc(pooled(self.local, local)), self.attention_fc(pooled(self.attention, attention))]
        return self.patch_head(torch.cat(parts, 1))

    def _global_logits(self, features: Tensor) -> Tensor:
        x = features
        for i, stage in enumerate(self.stages):
            x = stage(x if i == 0 else F.max_pool2d(x, 3, 2, ceil_mode=True))
        return self.global_head(x.mean((2, 3)))

    def forward(self, image: Tensor, landmarks: Tensor) -> Tensor:
        """image float32 [N, 3, 224, 224] in [0, 1], RGB; landmarks float32 [N, 5, 2], (x, y) in pixels, in the order eye,
        eye, nose, mouth corner, mouth corner, image-left first -> logits float32 [N, classes]."""
        patch, whole = self.heads(image, landmarks)
        return self.config.beta * patch + (1 - self.config.beta) * whole

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v}" for k, v in asdict(self.config).items())
