"""Tensors and their metadata in a safetensors file that is whole or not there."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors
import safetensors.torch
from torch import Tensor

from ampnet_opt.files import PathLike, new_file


def write_tensors(path: PathLike, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Raises MisuseError or AmpnetError as `new_file` does."""
    with new_file(path) as temporary:
        try:
            safetensors.torch.save_file(
                {key: value.cpu().contiguous() for key, value in tensors.items()}, temporary, metadata
            )
        except safetensors.SafetensorError as error:  # how its writer reports a full disk
            raise OSError(str(error)) from error


def read_tensors(path: PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata. Raises safetensors.SafetensorError for a file that is none of its kind, or damaged."""
    with safetensors.safe_open(path, "pt") as stream:
        return {key: stream.get_tensor(key) for key in stream.keys()}, stream.metadata() or {}  # noqa: SIM118 (not a dict)
