"""Labelled faces as a data set of torch, and batches as the network takes them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.labels import label_indices
from ampnet_opt.faces.face import Face, load_face

Sample = tuple[Tensor, Tensor, int]


class LabelledFaces(Dataset["Sample | AmpnetError"]):
    """Faces with the index of their label in `classes`. Raises MisuseError for a label that is not among them."""

    def __init__(self, faces: Sequence[Face], classes: Sequence[str]) -> None:
        self.faces = list(faces)
        self.labels = label_indices(classes, [face.label for face in faces])

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> Sample | AmpnetError:
        """A face; or what is wrong with it, since an exception of a worker process would arrive as its traceback."""
        try:
            image, landmarks = load_face(self.faces[index])
        except AmpnetError as error:
            return error
        return torch.from_numpy(np.array(image)), torch.from_numpy(landmarks), self.labels[index]


def batches(faces: LabelledFaces, order: Sequence[int], size: int, workers: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """uint8 [n, 224, 224, 3], float32 [n, 5, 2], int64 [n] of the faces in `order`, `size` at a time.

    Raises MisuseError for a face that cannot be read.
    """
    # fork, wherever it is safe: a process begun in another way imports from the working directory first.
    method = "fork" if workers and sys.platform.startswith("linux") else None
    loader = DataLoader(
        faces, size, sampler=list(order), num_workers=workers, collate_fn=_collate, multiprocessing_context=method
    )
    for batch in loader:
        if isinstance(batch, AmpnetError):
            raise batch
        yield batch


def _collate(samples: list[Sample | AmpnetError]) -> tuple[Tensor, Tensor, Tensor] | AmpnetError:
    wrong = next((sample for sample in samples if isinstance(sample, AmpnetError)), None)
    return default_collate(samples) if wrong is None else wrong


def as_input(image: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in [0, 1]."""
    return image.permute(0, 3, 1, 2).float() / 255
