"""A run that was killed goes on where it stood: everything that an epoch starts from, in one safetensors file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ampnet_opt.errors import AmpnetError, MisuseError
from ampnet_opt.files import new_file


@dataclass
class Progress:
    """epoch: the next to run. rows: metrics of those done. best: score of the weights kept so far."""

    epoch: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    best: float = -1.0


def save_state(
    path: Path, run: str, progress: Progress, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer
) -> None:
    """Write the modules' tensors, the optimizer's momentum and the progress of the run that is called `run`."""
    tensors = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    tensors |= {f"momentum/{i}": value for i, value in enumerate(_momentum(optimizer))}
    metadata = {"run": run, "progress": json.dumps(vars(progress))}
    with new_file(path) as temporary:
        try:
            safetensors.torch.save_file(
                {key: value.cpu().contiguous() for key, value in tensors.items()}, temporary, metadata
            )
        except safetensors.SafetensorError as error:  # how its writer reports a full disk
            raise OSError(str(error)) from error


def load_state(path: Path, run: str, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> Progress:
    """Fill modules and optimizer from `path`. Raises MisuseError when it is the state of a run other than `run`."""
    try:
        with safetensors.safe_open(path, "pt") as stream:
            metadata = stream.metadata() or {}
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (not a dict)
    except safetensors.SafetensorError as error:
        raise AmpnetError(f"{path} is damaged ({error}); pass --force to start over") from error
    if metadata.get("run") != run:
        raise MisuseError(f"{path} is of a run with another recipe or other faces; pass --force to start over")
    for name, module in modules.items():
        module.load_state_dict(_under(name, tensors))
    for i, parameter in enumerate(_parameters(optimizer)):
        optimizer.state[parameter]["momentum_buffer"] = tensors[f"momentum/{i}"].to(parameter.device)
    return Progress(**json.loads(metadata["progress"]))


def _under(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.partition("/")[2]: value for key, value in tensors.items() if key.startswith(f"{name}/")}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _momentum(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [optimizer.state[parameter]["momentum_buffer"] for parameter in _parameters(optimizer)]
