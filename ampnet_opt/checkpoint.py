"""Checkpoints in and out: the authors' pickled layout, and our own safetensors file. No pickle is ever executed."""

from __future__ import annotations

import json
import logging
import pickletools
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ampnet_opt.errors import AmpnetError, MisuseError
from ampnet_opt.files import PathLike, new_file, require_file, sha256
from ampnet_opt.labels import class_names
from ampnet_opt.model import AMPNet, Config
from ampnet_opt.published import DEAD, published_key

log = logging.getLogger(__name__)

FORMAT = "ampnet-opt/1"
STATISTICS_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Checkpoint:
    """A network in eval mode and where it came from.

    classes: names in the order of the outputs. trained: False for seeded weights. dropped: keys of the file that the
    network has no use for. sha256: of the file.
    """

    model: AMPNet
    classes: tuple[str, ...]
    trained: bool
    dropped: tuple[str, ...]
    sha256: str


def load_checkpoint(path: PathLike, classes: Sequence[str] | None = None, patch_radius: int = 5) -> AMPNet:
    """The network alone; see `read_checkpoint`."""
    return read_checkpoint(path, classes, patch_radius).model


def read_checkpoint(path: PathLike, classes: Sequence[str] | None = None, patch_radius: int = 5) -> Checkpoint:
    """Read the authors' layout (a `state_dict` wrapper and `module.` prefixes allowed) or our safetensors file.

    classes: names of the outputs, for files that carry none. patch_radius: likewise, the published value being 5.
    Raises MisuseError when there is no such file or the classes do not fit, AmpnetError when it is no AMP-Net checkpoint;
    the message names every missing or misshapen key.
    """
    file = require_file(path, "checkpoint")
    if file.stat().st_size == 0:
        raise AmpnetError(f"checkpoint {file} is empty")
    own = _read_own(file)
    if own is not None:
        tensors, config, stored, trained = own
        model, dropped = _fill(file, AMPNet(**asdict(config)), tensors, lambda key: key)
        names = class_names(config.num_classes, stored if classes is None else classes)
    else:
        tensors = _strip(_read_pickled(file))
        head = tensors.get("fc_5.weight")
        if head is None or head.ndim != 2:
            raise AmpnetError(f"{file} is not an AMP-Net checkpoint: it has no patch head (fc_5.weight)")
        model, dropped = _fill(file, AMPNet(head.shape[0], patch_radius=patch_radius), tensors, published_key)
        names, trained = class_names(head.shape[0], classes), True
    return Checkpoint(model.eval(), names, trained, tuple(dropped), sha256(file))


def save_checkpoint(path: PathLike, model: AMPNet, classes: Sequence[str], trained: bool = True) -> None:
    """Write our safetensors file: the weights, with classes, configuration and whether they were trained as metadata."""
    metadata = {
        "format": FORMAT,
        "classes": json.dumps(list(classes)),
        "config": json.dumps(asdict(model.config)),
        "trained": json.dumps(trained),
    }
    with new_file(path) as temporary:
        safetensors.torch.save_file({k: v.contiguous() for k, v in model.state_dict().items()}, temporary, metadata)


def _fill(file: Path, model: AMPNet, tensors: Mapping[str, Tensor], name_of: Any) -> tuple[AMPNet, list[str]]:
    """Load `tensors`, found under `name_of(our key)`, into `model`; the keys left over are returned as dropped."""
    state: dict[str, Tensor] = {}
    missing, misshapen, used = [], [], set()
    for key, expected in model.state_dict().items():
        name = name_of(key)
        used.add(name)
        tensor = tensors.get(name)
        if key.endswith(STATISTICS_COUNTER):
            state[key] = expected  # counts training steps; has no part in inference
        elif tensor is None:
            missing.append(name)
        elif tensor.shape != expected.shape:
            misshapen.append(f"{name} is {list(tensor.shape)}, expected {list(expected.shape)}")
        elif not torch.isfinite(tensor).all():
            misshapen.append(f"{name} holds NaN or infinity")
        else:
            state[key] = tensor.float()
    if missing or misshapen:
        parts = [f"missing: {', '.join(missing)}"] * bool(missing) + misshapen
        raise AmpnetError(f"{file} does not fit AMP-Net: {'; '.join(parts)}")
    model.load_state_dict(state)
    left = sorted(set(tensors) - used)
    unknown = [key for key in left if not DEAD.match(key)]
    if left:
        log.info("%s: dropped %d keys the network does not use: %s", file, len(left), ", ".join(left))
    if unknown:
        log.warning("%s: %d keys are not of AMP-Net and were ignored: %s", file, len(unknown), ", ".join(unknown))
    return model, left


def _read_own(file: Path) -> tuple[dict[str, Tensor], Config, tuple[str, ...], bool] | None:
    """Contents of our safetensors file, or None when `file` is not a safetensors file at all."""
    try:
        with safetensors.safe_open(file, "pt") as stream:
            metadata = stream.metadata() or {}
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (not a dict)
    except safetensors.SafetensorError as error:
        if file.suffix == ".safetensors":
            raise AmpnetError(f"{file} is not a readable safetensors file: {error}") from error
        return None
    if metadata.get("format") != FORMAT:
        raise AmpnetError(f"{file} is a safetensors file, but not one of ampnet-opt's (no format {FORMAT} in its metadata)")
    try:
        known = {field.name for field in fields(Config)}
        config = Config(**{k: v for k, v in json.loads(metadata["config"]).items() if k in known})
        classes = tuple(str(name) for name in json.loads(metadata["classes"]))
        trained = bool(json.loads(metadata["trained"]))
    except (KeyError, TypeError, ValueError) as error:
        raise AmpnetError(f"{file} has damaged metadata: {error}") from error
    return tensors, config, classes, trained


# --- pickled files -----------------------------------------------------------------------------------------------


class _Foreign:
    """Takes the place of a training object in a pickle: accepts anything, keeps nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Foreign:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# Standard-library names that harmless training objects are made of; nothing else of the standard library is looked at.
_INERT = {"argparse.Namespace", "collections.defaultdict", "pathlib.PosixPath", "datetime.datetime"}


def _globals(stream: IO[bytes]) -> Iterator[str]:
    """Names ("module.attribute") that the pickles in `stream` would import, without running them."""
    while stream.peek(1) if hasattr(stream, "peek") else False:
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL":
                    yield str(argument).replace(" ", ".")
        except ValueError:  # the tensors' bytes follow the pickles in a file of the old layout
            return


def _foreign_names(file: Path) -> list[str]:
    """Names a checkpoint refers to that are neither torch's nor the standard library's; refuses one that reaches for code."""
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                member = next((n for n in archive.namelist() if n.endswith("data.pkl")), None)
                if member is None:
                    raise AmpnetError(f"{file} is a zip file, but not a PyTorch checkpoint")
                with archive.open(member) as stream:
                    names = set(_globals(stream))
        else:
            with open(file, "rb") as raw:
                names = set(_globals(raw))
    except (zipfile.BadZipFile, EOFError) as error:
        raise AmpnetError(f"{file} is a damaged PyTorch checkpoint: {error}") from error
    foreign = []
    for name in sorted(names):
        top = name.partition(".")[0]
        if name in _INERT or top in {"numpy", "__main__"}:
            foreign.append(name)
        elif top in sys.stdlib_module_names or top in sys.builtin_module_names or top == "__builtin__":
            if name not in {"collections.OrderedDict", "builtins.set", "__builtin__.set"}:
                raise AmpnetError(f"{file} is refused: its pickle asks for {name}, which no checkpoint needs")
        elif top != "torch" or name.startswith(("torch.optim", "torch.cuda.amp", "torch.amp")):
            foreign.append(name)
    return foreign


def _read_pickled(file: Path) -> Mapping[str, Any]:
    foreign: list[Any] = [(_Foreign, name) for name in _foreign_names(file)]
    try:
        with torch.serialization.safe_globals(foreign):
            # mmap keeps optimiser state and dead weights out of memory; only the zip layout has it.
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise AmpnetError(f"{file} cannot be read as a PyTorch checkpoint: {reason}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise AmpnetError(f"{file} is not an AMP-Net checkpoint: it holds no table of tensors")
    return content


def _strip(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors only, without the `module.` prefix that data-parallel training leaves."""
    return {str(key).removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}


def init_checkpoint(path: PathLike, seed: int, width: float, classes: Sequence[str]) -> AMPNet:
    """Write a seeded, untrained network, so that every command can be tried without a checkpoint of one's own."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AMPNet(len(classes), width)
    except ValueError as error:
        raise MisuseError(str(error)) from error
    save_checkpoint(path, model.eval(), classes, trained=False)
    return model
