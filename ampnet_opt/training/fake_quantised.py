"""The network as its exported INT8 graph computes it, in PyTorch and with gradients.

The quantised layers take the places of the network's own, with the same parameters under the same names: checkpoints, the
optimizer and averaged weights know no difference. Batch norms are folded from their running statistics, which stay as they
are, because a weight is quantised after its norm was folded into it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ampnet_opt.convert.export import module_path
from ampnet_opt.convert.graph import GraphIndex
from ampnet_opt.convert.placement import Placement
from ampnet_opt.convert.quantize import quantize_weight
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.network.model import AMPNet, ConvNorm

LOW, HIGH = -128, 127  # where QuantizeLinear saturates
# The exporter moves the division of a uint8 image by 255 into the stem's weights.
IMAGE_UNITS = 255


class _RoundAndClip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        steps = x / scale
        ctx.save_for_backward((steps >= LOW) & (steps <= HIGH))
        return steps.round_().clamp_(LOW, HIGH).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None


def fake_quantise(x: Tensor, scale: float) -> Tensor:
    """scale * clip(round(x / scale), -128, 127), half to even: a QuantizeLinear and its DequantizeLinear.

    The gradient is that of the clipping alone, the straight-through estimator of Bengio et al. 2013, arXiv:1308.3432: 1
    where x / scale is within the range, else 0.
    """
    return cast(Tensor, _RoundAndClip.apply(x, scale))  # type: ignore[no-untyped-call]


def fake_quantise_weight(weight: Tensor) -> Tensor:
    """The values of `weight` [outputs, ...] in the exported graph; the gradient passes as if they were its own."""
    values, scale = quantize_weight(weight.detach().cpu().numpy())
    column = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return torch.from_numpy(values * column).to(weight.device) + (weight - weight.detach())


class FakeQuantise(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return fake_quantise(x, self.scale)

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}"


class FoldedConvNorm(nn.Module):
    """A `ConvNorm` as one convolution, by its running statistics in training as well; in float until `quantise`.

    output: what is done to the result; units: how many of the graph's units are one of the input's.
    """

    def __init__(self, layer: ConvNorm, units: float = 1) -> None:
        super().__init__()
        self.conv, self.norm = layer.conv, layer.norm
        self.units = units
        self.input: FakeQuantise | None = None
        self.output: nn.Module = nn.Identity()

    def quantise(self, scale: float) -> None:
        """Compute in INT8, from an input of this scale in the graph."""
        self.input = FakeQuantise(scale / self.units)

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = cast(Tensor, self.norm.running_mean), cast(Tensor, self.norm.running_var)
        factor = self.norm.weight * torch.rsqrt(variance + self.norm.eps)
        weight, bias = self.conv.weight * factor[:, None, None, None], self.norm.bias - mean * factor
        if self.input is not None:
            x, weight = self.input(x), fake_quantise_weight(weight / self.units) * self.units
        return self.output(F.conv2d(x, weight, bias, self.conv.stride, self.conv.padding))


class QuantisedLinear(nn.Module):
    def __init__(self, layer: nn.Linear, scale: float) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.input = FakeQuantise(scale)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.input(x), fake_quantise_weight(self.weight), self.bias)


def insert_pairs(model: AMPNet, graph: onnx.ModelProto, placement: Placement, scales: Mapping[str, float]) -> None:
    """Make `model` compute what `quantize(graph, placement, scales)` does; graph: its float graph, for uint8 images.

    Each pair is put where its tensor is read: at the input of a layer, or in the shortcut of a residual block. Behind what
    only moves values a pair of the same scale changes nothing. Raises AmpnetError for a pair that has no such place.
    """
    index = GraphIndex(graph.graph)
    for path, module in list(model.named_modules()):
        if isinstance(module, ConvNorm):
            model.set_submodule(path, FoldedConvNorm(module, IMAGE_UNITS if path == "stem" else 1))
    for tensor, group in placement.tensors.items():
        for reader, place in _readers(tensor, index):
            if reader.name in placement.layers:
                _quantise_layer(model, module_path(reader.name), scales[tensor])
            elif reader.op_type == "Add" and place == 1:  # x of F(x) + x
                _quantise_shortcut(model, module_path(reader.name), scales[tensor])
            elif placement.tensors.get(reader.output[0]) != group and reader.op_type != "MatMul":  # a product crops
                raise AmpnetError(f"the network has no place to quantise {tensor} as {reader.name} reads it")


@torch.no_grad()
def add_to_biases(model: AMPNet, corrections: Mapping[str, np.ndarray]) -> None:
    """What `quantize` does with `corrections`, to a network with its pairs: float32 [outputs] by the names of layers."""
    for node, correction in corrections.items():
        layer = _layer(model, module_path(node))
        bias = layer.norm.bias if isinstance(layer, FoldedConvNorm) else cast(QuantisedLinear, layer).bias
        bias.add_(torch.from_numpy(correction).to(bias.device))


def _readers(tensor: str, index: GraphIndex) -> Iterator[tuple[onnx.NodeProto, int]]:
    """Nodes that read `tensor`, and as which input; also through a pool, as a maximum keeps quantised values."""
    for node, place in index.consumers.get(tensor, []):
        if node.op_type == "MaxPool":
            yield from _readers(node.output[0], index)
        else:
            yield node, place


def _layer(model: AMPNet, path: str) -> nn.Module:
    """The module that is one layer in the graph: of a convolution the one that holds its norm as well."""
    return model.get_submodule(path.removesuffix(".conv"))


def _quantise_layer(model: AMPNet, path: str, scale: float) -> None:
    layer = _layer(model, path)
    if isinstance(layer, nn.Linear):
        model.set_submodule(path, QuantisedLinear(layer, scale))
    else:
        cast(FoldedConvNorm, layer).quantise(scale)


def _quantise_shortcut(model: AMPNet, path: str, scale: float) -> None:
    shortcut = model.get_submodule(f"{path}.shortcut")
    if isinstance(shortcut, FoldedConvNorm):
        shortcut.output = FakeQuantise(scale)
    else:
        model.set_submodule(f"{path}.shortcut", FakeQuantise(scale))
