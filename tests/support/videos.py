"""Videos of plain colours: of frame n the red value is 10 n."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ampnet_opt.pipeline.video_writer import VideoWriter


def frame(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    return np.full((height, width, 3), (10 * index, 100, 200), np.uint8)


def write_video(path: Path, times: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4), size: tuple[int, int] = (64, 48)) -> Path:
    writer = VideoWriter(path, size, 10)
    for index, time in enumerate(times):
        writer.write(frame(index, *size), time)
    writer.close()
    return path
