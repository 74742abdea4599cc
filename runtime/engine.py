"""One class for every backend: load an engine directory, give it faces, get logits."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, List, Optional, Type

import numpy as np

from ampnet_opt.errors import AmpnetError, MisuseError
from ampnet_opt.files import PathLike
from ampnet_opt.runtime.sidecar import Sidecar, read_sidecar

SIDE = 224

# Each module has `check(sidecar)`, which raises AmpnetError when this machine cannot run the engine, and
# `open_executor(directory, sidecar, threads)`, whose result has `run(images, landmarks) -> logits` and `close()`.
BACKENDS = {
    "cpu": "ampnet_opt.runtime.cpu",
    "tensorrt": "ampnet_opt.runtime.trt",
    "tensorrt-rtx": "ampnet_opt.runtime.trt",
}


class Engine:
    """A loaded engine. `Engine.load(directory)` makes one; it is a context manager, and `close` frees what it holds."""

    def __init__(self, directory: Path, sidecar: Sidecar, executor: Any) -> None:
        self.directory = directory
        self.sidecar = sidecar
        self._executor = executor

    @classmethod
    def load(cls, directory: PathLike, threads: Optional[int] = None) -> Engine:
        """Check an engine against its sidecar and this machine, then load it.

        threads: for the cpu backend, how many to run on; by default one per core. Raises MisuseError when there is no
        engine there, AmpnetError when it is damaged or made for another machine or version.
        """
        sidecar = read_sidecar(directory)
        name = BACKENDS.get(sidecar.backend)
        if name is None:
            raise AmpnetError(f"engine {directory} is for backend {sidecar.backend!r}, which this version does not know")
        backend = import_module(name)
        backend.check(sidecar)
        return cls(Path(directory), sidecar, backend.open_executor(Path(directory), sidecar, threads))

    @property
    def classes(self) -> List[str]:
        """Names of the logits, in their order."""
        return list(self.sidecar.classes)

    def infer(self, images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Logits float32 [N, classes] of N faces.

        images: uint8 [N, 224, 224, 3], or floating point [N, 3, 224, 224] in [0, 1]; RGB. An engine that takes uint8
        rounds floating-point images to 1/255. landmarks: [N, 5, 2], (x, y) in pixels, image-left eye, image-right eye,
        nose tip, image-left and image-right mouth corner; points outside the image count as on its border. Any N, 0
        included: more images than the profile's largest batch run in several batches.
        """
        batch = self.sidecar.batch
        pictures, points = prepare(images, landmarks, self.sidecar.image_input)
        logits = np.empty((len(pictures), len(self.sidecar.classes)), np.float32)
        for start in range(0, len(pictures), batch.max):
            part = slice(start, start + batch.max)
            logits[part] = self._run(pictures[part], points[part])
        return logits

    def _run(self, images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        count, missing = len(images), self.sidecar.batch.min - len(images)
        if missing > 0:  # the profile has no smaller batch: repeat the last face, and drop its results
            images = np.concatenate([images, np.repeat(images[-1:], missing, 0)])
            landmarks = np.concatenate([landmarks, np.repeat(landmarks[-1:], missing, 0)])
        return self._executor.run(images, landmarks)[:count]

    def close(self) -> None:
        self._executor.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


def prepare(images: np.ndarray, landmarks: np.ndarray, image_input: str) -> tuple[np.ndarray, np.ndarray]:
    """Contiguous inputs as the graph takes them, or MisuseError when they are not faces; arguments as in `Engine.infer`."""
    images, landmarks = np.asarray(images), np.asarray(landmarks)
    if images.dtype == np.uint8 and images.shape[1:] == (SIDE, SIDE, 3):
        if image_input == "float32":
            images = images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    elif images.dtype.kind == "f" and images.shape[1:] == (3, SIDE, SIDE):
        if not (images.size == 0 or (images.min() >= 0 and images.max() <= 1)):
            raise MisuseError("images of floating point must be within [0, 1] and hold no NaN")
        if image_input == "uint8":
            images = np.rint(images.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    else:
        raise MisuseError(
            f"images must be uint8 [N, {SIDE}, {SIDE}, 3] or floating point [N, 3, {SIDE}, {SIDE}], "
            f"got {images.dtype} {list(images.shape)}"
        )
    if landmarks.shape != (len(images), 5, 2):
        raise MisuseError(f"landmarks must be [{len(images)}, 5, 2] for {len(images)} images, got {list(landmarks.shape)}")
    if landmarks.dtype.kind not in "fiu" or not np.isfinite(landmarks).all():
        raise MisuseError("landmarks must be finite numbers")
    return np.ascontiguousarray(images, np.dtype(image_input)), np.ascontiguousarray(landmarks, np.float32)
