"""Files of the authors' layout: AMP-Net's tensors in them, however training code wrapped these, and its configuration."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.text import listed, one_line
from ampnet_opt.core.unpickle import Inert
from ampnet_opt.network.model import Config
from ampnet_opt.network.pickles import SAVE_WEIGHTS, Pickled, StoredTensor, Tensors, pickled
from ampnet_opt.network.published_keys import DEAD, HEADS
from ampnet_opt.network.tensors import Weights, as_float, read_tensors
from ampnet_opt.network.wrapped import Network, Table, UnwrapError, choose, profile_counter, tables_in

log = logging.getLogger(__name__)

MOST_CLASSES = 1000


@contextmanager
def opened(file: Path) -> Iterator[Weights]:
    """The tensors of a file of the authors' keys, without the prefixes that training code put before them."""
    try:
        tensors, _ = read_tensors(file)
    except SafetensorError:
        with pickled(file) as content:
            network = _choose(file, tables_in(content.content, StoredTensor), content)
            weights = Tensors(content, network.tensors)
            yield Weights(network.tensors, lambda key: weights.read(key, torch.float32), network.other)
    else:
        network = _choose(file, [Table((), tensors)])
        yield Weights(network.tensors, as_float(network.tensors), network.other)


def _choose(file: Path, tables: list[Table], content: Pickled | None = None) -> Network:
    """The network among the tables of a file; a moving average beside it is spoken of."""
    try:
        network, averages = choose(tables)
    except UnwrapError as error:
        whole = None if content is None or any(table.path == () for table in tables) else _whole_object(content)
        if whole is not None:
            raise AmpnetError(
                f"{file} holds a whole pickled object ({one_line(whole, 60)}), which only its own code can load: where it "
                f"was trained, {SAVE_WEIGHTS}"
            ) from error
        raise AmpnetError(f"{file} {error}") from error
    if averages:
        log.warning(
            "%s: %s is taken; the moving average in %s is not (to use it, save it alone with torch.save)",
            file,
            network.name,
            listed(average.name for average in averages),
        )
    elif network.average:
        log.warning("%s: it holds a moving average of the weights alone, which is taken: %s", file, network.name)
    return network


def _whole_object(content: Pickled) -> str | None:
    """The class of an object, of no library's kind, that is all of a file or lies at its top; None when there is none."""
    top = content.content
    values = list(top.values()) if isinstance(top, dict) else [top]
    return next((value.kind for value in values if isinstance(value, Inert) and value.kind in content.kinds), None)


def config_of(file: Path, tensors: Weights, patch_radius: int) -> Config:
    """The configuration of a file of the authors' layout: as many classes as either head has outputs."""
    for head in HEADS:
        if head in tensors.found and len(tensors.found[head].shape) == 2:
            outputs = tensors.found[head].shape[0]
            if outputs > MOST_CLASSES:
                raise AmpnetError(f"{file} is not an AMP-Net checkpoint: {head} has {outputs} outputs")
            try:
                return Config(outputs, patch_radius=patch_radius)
            except ValueError as error:
                raise MisuseError(f"{file} cannot be loaded: {error}") from error
    raise AmpnetError(f"{file} is not an AMP-Net checkpoint: {' and '.join(HEADS)} are no matrices")


def is_needless(key: str) -> bool:
    """Whether a tensor is one that files of the authors' layout have and the network has no use for."""
    return bool(DEAD.match(key) or profile_counter(key))
