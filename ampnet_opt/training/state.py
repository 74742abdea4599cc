"""Interrupted runs resume: everything that an epoch starts from, in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, List

import torch
from safetensors import SafetensorError
from torch import nn

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.field_types import require_types
from ampnet_opt.core.json_files import parse_json
from ampnet_opt.core.text import describe
from ampnet_opt.network.tensors import read_tensors, write_tensors

Metrics = dict[str, float]  # of one epoch


def save_state(
    path: Path, run: str, rows: list[Metrics], modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer
) -> None:
    """Write the modules' tensors, the optimizer's momentum and the metrics of every finished epoch of the run `run`."""
    tensors = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for i, parameter in enumerate(_parameters(optimizer)):
        tensors[f"momentum/{i}"] = optimizer.state[parameter]["momentum_buffer"]
    write_tensors(path, tensors, {"run": run, "rows": json.dumps(rows)})


def load_state(path: Path, run: str, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> list[Metrics]:
    """Fill modules and optimizer from `path`; returns the metrics of the epochs that are done.

    Raises MisuseError when it is the state of a run other than `run`, AmpnetError when it is damaged.
    """
    try:
        tensors, metadata = read_tensors(path)
    except SafetensorError as error:
        raise AmpnetError(f"{path} is damaged ({error}); pass --force to start over") from error
    if metadata.get("run") != run:
        raise MisuseError(f"{path} is of a run with another recipe or other faces; pass --force to start over")
    try:
        for name, module in modules.items():
            prefix = f"{name}/"
            module.load_state_dict({key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)})
        for i, parameter in enumerate(_parameters(optimizer)):
            optimizer.state[parameter]["momentum_buffer"] = tensors[f"momentum/{i}"].to(parameter.device)
        rows = parse_json(metadata["rows"])
        require_types(rows, List[Dict[str, float]], "rows")
        if not rows:
            raise ValueError("it has no epoch")
    except (KeyError, ValueError, RuntimeError) as error:  # RuntimeError is torch's, for tensors of other names or shapes
        raise AmpnetError(f"{path} is damaged ({describe(error)}); pass --force to start over") from error
    return rows


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
