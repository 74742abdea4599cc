"""A picture of one colour, where only its being there counts."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def picture(file: Path, side: int = 20) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (200, 100, 50)).save(file)
