"""What every graph and every engine of the network takes and gives: names, dtypes and shapes. Standard library only."""

from __future__ import annotations

from typing import Literal

INPUTS = ("image", "landmarks")
OUTPUT = "logits"
ImageInput = Literal["uint8", "float32"]
IMAGE_SIDE = 224  # pixels
# One image, by its dtype: bytes as a camera gives them, or channels first and floats in [0, 1]. RGB. A batch has N of them.
IMAGE_SHAPES = {"uint8": (IMAGE_SIDE, IMAGE_SIDE, 3), "float32": (3, IMAGE_SIDE, IMAGE_SIDE)}
LANDMARKS_SHAPE = (5, 2)  # float32, (x, y) in pixels, of one face
