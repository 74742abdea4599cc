"""Checkpoints in and out: the authors' pickled layout, and our own safetensors file. No pickle is ever executed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.files import PathLike, require_file, sha256
from ampnet_opt.core.json_files import parse_json
from ampnet_opt.core.labels import assumption, class_names, warn_once
from ampnet_opt.core.text import listed, one_line
from ampnet_opt.network.model import AMPNet, Config
from ampnet_opt.network.tensors import Weights, as_float, read_tensors, write_tensors

log = logging.getLogger(__name__)

FORMAT = "ampnet-opt/1"
STATISTICS_COUNTER = "num_batches_tracked"
NAMED = 3  # keys that a sentence names; the others are counted


@dataclass(frozen=True)
class Checkpoint:
    """A network in eval mode and where it came from.

    Attributes:
        model: the network.
        classes: names in the order of the outputs.
        trained: False for seeded weights.
        dropped: keys of the file that the network has no use for.
        sha256: of the file.
        assumed: what was assumed about it for want of better, a sentence, or "".
    """

    model: AMPNet
    classes: tuple[str, ...]
    trained: bool
    dropped: tuple[str, ...]
    sha256: str
    assumed: str = ""


def read_checkpoint(path: PathLike, classes: Sequence[str] | None = None, patch_radius: int | None = None) -> Checkpoint:
    """Read the authors' layout, however it is wrapped (see `wrapped.choose`), or our safetensors file.

    Args:
        path: of the file.
        classes: names of the outputs, for the authors' files, which carry none: by default RAF-DB's seven, with a warning.
            A file of ours has its own, and others are refused.
        patch_radius: of the authors' files; None is the published 5.

    Raises:
        MisuseError: there is no such file, or the classes or the radius do not fit.
        AmpnetError: it is no AMP-Net checkpoint; its `whole` names every missing or misshapen key.
    """
    file = require_file(path, "checkpoint")
    try:
        if file.stat().st_size == 0:
            raise AmpnetError(f"checkpoint {file} is empty")
        own = _read_own(file)
        if own is not None:
            tensors, config, stored, trained = own
            if patch_radius not in (None, config.patch_radius):
                raise MisuseError(f"{file} was made with patch radius {config.patch_radius}; it cannot be {patch_radius}")
            names, assumed = class_names(file, config.num_classes, stored, classes), ""
            model, dropped = _fill(file, config, Weights(tensors, as_float(tensors)), lambda key: key)
        else:
            from ampnet_opt.network.published_files import config_of, is_needless, opened
            from ampnet_opt.network.published_keys import published_key

            with opened(file) as published:
                config = config_of(file, published, 5 if patch_radius is None else patch_radius)
                names, trained = class_names(file, config.num_classes, None, classes), True
                model, dropped = _fill(file, config, published, published_key, is_needless)
            assumed = assumption(file) if classes is None else ""
        if assumed:
            warn_once(assumed)
        return Checkpoint(model.eval(), names, trained, tuple(dropped), sha256(file), assumed)
    except OSError as error:
        raise AmpnetError(f"checkpoint {file} cannot be read: {error.strerror or error}") from error


def save_checkpoint(
    path: PathLike,
    model: AMPNet,
    classes: Sequence[str],
    trained: bool = True,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write our safetensors file, with classes, configuration and `trained` as metadata.

    Args:
        path: of the file.
        model: the network.
        classes: names in the order of the outputs.
        trained: False for seeded weights.
        dtype: of the weights in the file.

    Raises:
        AmpnetError: `dtype` cannot hold a weight, which may be rounded, not lost.
    """
    metadata = {
        "format": FORMAT,
        "classes": json.dumps(list(classes)),
        "config": json.dumps(asdict(model.config)),
        "trained": json.dumps(trained),
    }
    state = {k: v.to(dtype) for k, v in model.state_dict().items() if not k.endswith(STATISTICS_COUNTER)}
    lost = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if lost:
        raise AmpnetError(f"{dtype} cannot hold {', '.join(lost)}")
    write_tensors(path, state, metadata)


def _fill(
    file: Path,
    config: Config,
    weights: Weights,
    name_of: Callable[[str], str],
    is_needless: Callable[[str], bool] = lambda key: False,
) -> tuple[AMPNet, list[str]]:
    """The network of `config` with its weights, found under `name_of(our key)`; keys left over are returned as dropped.

    is_needless: says of a key left over that such files have it and the network needs it not; others are warned of.
    """
    with torch.device("meta"):  # shapes alone: no memory, and no draw from the global random generator
        model = AMPNet(**asdict(config))
    state: dict[str, Tensor] = {}
    missing, misshapen, used = [], [], set()
    for key, expected in model.state_dict().items():
        name = name_of(key)
        used.add(name)
        if key.endswith(STATISTICS_COUNTER):
            state[key] = torch.zeros((), dtype=torch.int64)  # counts training steps; has no part in inference
            continue
        found = weights.found.get(name)
        if found is None:
            missing.append(name)
        elif tuple(found.shape) != tuple(expected.shape):
            misshapen.append(f"{name} is {list(found.shape)}, expected {list(expected.shape)}")
        elif not found.dtype.is_floating_point:
            misshapen.append(f"{name} is {str(found.dtype).removeprefix('torch.')}, expected floating point")
        else:
            tensor = weights.read(name)
            if not torch.isfinite(tensor).all():  # after the conversion, which may overflow
                misshapen.append(f"{name} holds NaN or infinity")
            # A view of fewer numbers than it shows, or of more, stays one: it takes no more memory than the file.
            elif tensor.ndim < 2 or tensor.untyped_storage().nbytes() == tensor.nbytes:
                tensor = tensor.contiguous()
            state[key] = tensor
    if missing or misshapen:
        few, all_of_them = (
            "; ".join([f"missing: {listed(missing, most)}"] * bool(missing) + [listed(misshapen, most)] * bool(misshapen))
            for most in (NAMED, len(missing) + len(misshapen))
        )
        raise AmpnetError(f"{file} does not fit AMP-Net: {few}", f"{file} does not fit AMP-Net: {all_of_them}")
    model.load_state_dict(state, assign=True)
    left = sorted({*weights.found, *weights.other} - used)
    unknown = [key for key in left if not is_needless(key)]
    if left:
        log.info("%s: dropped %d keys the network does not use: %s", file, len(left), listed(map(_short, left)))
    if unknown:
        names = listed(map(_short, unknown))
        log.warning("%s: %d keys are not of AMP-Net and were ignored: %s", file, len(unknown), names)
    return model, left


def _short(key: str) -> str:
    return one_line(key, 60)


def _read_own(file: Path) -> tuple[dict[str, Tensor], Config, tuple[str, ...], bool] | None:
    """Contents of our safetensors file, or None when `file` is not a safetensors file at all."""
    try:
        tensors, metadata = read_tensors(file)
    except SafetensorError as error:
        if file.suffix == ".safetensors":
            from ampnet_opt.network.file_kinds import kind_of

            with open(file, "rb") as stream:
                kind = kind_of(stream.read(4096))
            reason = kind or f"is not a readable safetensors file: {one_line(error, 120)}"
            raise AmpnetError(f"{file} {reason}") from error
        return None
    named = metadata.get("format", "")
    if named.startswith(FORMAT.partition("/")[0] + "/") and named != FORMAT:
        raise AmpnetError(f"{file} was written by another version of ampnet-opt ({one_line(named, 40)})")
    if named != FORMAT:
        return None
    try:
        raw, classes, trained = (parse_json(metadata[key]) for key in ("config", "classes", "trained"))
        whole = {field.name: field.type == "int" for field in fields(Config)}
        if set(raw) != set(whole) or not all(isinstance(raw[k], int if whole[k] else (int, float)) for k in raw):
            raise ValueError(f"config is {metadata['config']}")
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise ValueError(f"classes are {metadata['classes']}")
        if len(classes) != raw["num_classes"] or not isinstance(trained, bool):
            raise ValueError(f"{len(classes)} classes are named for {raw['num_classes']} outputs")
        config = Config(**raw)
    except (KeyError, TypeError, ValueError) as error:
        raise AmpnetError(f"{file} has damaged metadata: {error}") from error
    return tensors, config, tuple(classes), trained


def init_checkpoint(path: PathLike, seed: int, width: float, classes: Sequence[str]) -> AMPNet:
    """Write a seeded, untrained network, so that every command can be tried without a checkpoint of one's own.

    Args:
        path: of the file.
        seed: equal seeds give equal weights, the other arguments being equal.
        width: of the layers, relative to the published network's.
        classes: names in the order of the outputs.

    Raises:
        MisuseError: the width is outside (0, 4], there are fewer than 2 classes, or torch has no room for the seed.
    """
    model = seeded(seed, width, len(classes)).eval()
    save_checkpoint(path, model, classes, trained=False)
    return model


def seeded(seed: int, width: float, num_classes: int) -> AMPNet:
    """An untrained network; equal arguments give equal weights. Raises MisuseError as `init_checkpoint` does."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs' generators as well
            return AMPNet(num_classes, width)
    except (ValueError, RuntimeError) as error:
        raise MisuseError(f"no network can be made of seed {seed}, width {width}: {error}") from error
