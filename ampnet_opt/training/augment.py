"""Random views of a face: rotation, scale, shift, flip and colour, the landmarks moved exactly along."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ampnet_opt.core.graph_interface import IMAGE_SIDE

# After a flip the eye on the image's left is the one that was on its right; likewise the mouth corners.
FLIPPED = [1, 0, 2, 4, 3]


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random view, each drawn evenly from -value to value.

    degrees: rotation. shift: share of the side. scale: relative change of size. flip: probability. brightness: share of
    full white that is added. contrast, saturation: relative change.
    """

    degrees: float = 15.0
    shift: float = 0.06
    scale: float = 0.12
    flip: float = 0.5
    brightness: float = 0.15
    contrast: float = 0.3
    saturation: float = 0.3

    def __call__(self, image: Tensor, landmarks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """image float32 [N, 3, 224, 224] in [0, 1], landmarks float32 [N, 5, 2] in pixels -> the same of the views."""

        def uniform(limit: float) -> Tensor:
            return (torch.rand(len(image), generator=generator) * 2 - 1) * limit

        angle, zoom = uniform(math.radians(self.degrees)), 1 + uniform(self.scale)
        shift = torch.stack([uniform(self.shift), uniform(self.shift)], 1) * IMAGE_SIDE
        flipped = torch.rand(len(image), generator=generator) < self.flip
        image, landmarks = view(image, landmarks, angle=angle, zoom=zoom, shift=shift, flipped=flipped)
        image = recolour(image, uniform(self.brightness), 1 + uniform(self.contrast), 1 + uniform(self.saturation))
        return image, landmarks


def view(
    image: Tensor, landmarks: Tensor, *, angle: Tensor, zoom: Tensor, shift: Tensor, flipped: Tensor
) -> tuple[Tensor, Tensor]:
    """Rotate by `angle` (radians, clockwise as seen), scale by `zoom` about the centre, move by `shift` pixels, then flip.

    angle, zoom [N]; shift [N, 2] (x, y); flipped bool [N]. What comes from outside the picture is black.
    """
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    mirror = 1 - 2 * flipped.to(cos.dtype)
    # Where a point of the picture goes, in pixels from the centre: p -> M p + t.
    matrix = torch.stack([torch.stack([mirror * cos, mirror * -sin], 1), torch.stack([sin, cos], 1)], 1)
    offset = shift * torch.stack([mirror, torch.ones_like(mirror)], 1)
    centre = IMAGE_SIDE / 2
    moved = torch.einsum("nij,nkj->nki", matrix, landmarks - centre) + offset[:, None] + centre
    moved = torch.where(flipped[:, None, None], moved[:, FLIPPED], moved)

    # grid_sample wants the inverse: where in the picture each pixel of the view comes from, in units of half a side.
    inverse = torch.linalg.inv(matrix)
    back = -torch.einsum("nij,nj->ni", inverse, offset) / centre
    grid = F.affine_grid(torch.cat([inverse, back[:, :, None]], 2), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False), moved


def recolour(image: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Saturation about each pixel's luma (ITU-R BT.601), contrast about each picture's mean, then brightness; clipped."""
    luma = (image * image.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    image = torch.lerp(luma, image, saturation[:, None, None, None])
    mean = luma.mean((2, 3), keepdim=True)
    return (torch.lerp(mean, image, contrast[:, None, None, None]) + brightness[:, None, None, None]).clamp(0, 1)
