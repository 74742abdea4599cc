"""Which of the tables of tensors in a file is AMP-Net, whatever training code wrapped around it.

People save `state_dict`, `model_state_dict`, `net` or `ema` tables, one in another, and DataParallel, torch.compile,
Lightning and the like write `module.`, `_orig_mod.` or `model.` before each key. So no name is looked for: a table counts
when some prefix of its keys leaves a head of AMP-Net.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ampnet_opt.core.text import listed, one_line
from ampnet_opt.network.published_keys import HEADS, PUBLISHED

MOST_TABLES, DEEPEST = 10_000, 8
MOST_PREFIXES = 20
# Names of moving averages of the weights: model_ema, ema_state_dict, swa_model, averaged.
AVERAGE = re.compile(r"(^|[^a-z])(ema|swa|polyak|averaged?|shadow)([^a-z]|$)", re.IGNORECASE)


class UnwrapError(Exception):
    """Why no network was chosen, as the rest of a sentence that begins with the file's name."""


@dataclass(frozen=True)
class Table:
    """Tensors by name. path: keys that lead to them from the top of the file."""

    path: tuple[str, ...]
    tensors: Mapping[str, Any]


@dataclass(frozen=True)
class Network:
    """A table's part under one prefix, which is taken off its keys. other: keys of the table without that prefix."""

    path: tuple[str, ...]
    prefix: str
    tensors: Mapping[str, Any]
    other: tuple[str, ...]

    @property
    def name(self) -> str:
        """Where it lies, for people: "ema" or "state_dict/model.*"."""
        return one_line("/".join([*self.path, f"{self.prefix}*" * bool(self.prefix)]).strip("/"), 60) or "its top"

    @property
    def average(self) -> bool:
        return any(AVERAGE.search(part) for part in (*self.path, *self.prefix.split(".")))


def tables_in(content: Any, kind: type) -> list[Table]:
    """The dicts of `content` that hold values of `kind`, each once, the outermost first."""
    found: list[Table] = []
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    seen = {id(content)}
    for path, value in waiting:  # which grows while it is walked
        inner: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, dict):
            tensors = {key: item for key, item in value.items() if isinstance(item, kind)}
            if tensors:
                found.append(Table(path, tensors))
            inner = value.items()
        elif isinstance(value, (list, tuple)):
            inner = enumerate(value)
        for key, item in inner if len(path) < DEEPEST else ():
            if isinstance(item, (dict, list, tuple)) and id(item) not in seen and len(seen) < MOST_TABLES:
                seen.add(id(item))
                waiting.append(((*path, str(key)), item))
    return found


def choose(tables: list[Table]) -> tuple[Network, list[Network]]:
    """The network, and the moving averages beside it that were not taken. Raises UnwrapError for none or several.

    The weights as they were trained are taken before a moving average of them; when there is only the average, that is.
    """
    networks = [network for table in tables for network in _networks(table)]
    most = max((len(network.tensors.keys() & PUBLISHED) for network in networks), default=0)
    networks = _distinct([network for network in networks if 2 * len(network.tensors.keys() & PUBLISHED) >= most])
    plain = [network for network in networks if not network.average]
    chosen = plain or networks
    if not chosen:
        raise UnwrapError("is not an AMP-Net checkpoint: " + _found(tables))
    if len(chosen) > 1:
        raise UnwrapError(
            f"holds {len(chosen)} networks ({listed(network.name for network in chosen)}): save the one you mean alone, "
            "with torch.save"
        )
    return chosen[0], [network for network in networks if network is not chosen[0]]


def _networks(table: Table) -> Iterator[Network]:
    keys = table.tensors
    prefixes = {key[: -len(head)] for head in HEADS for key in keys if key.endswith(head)}
    for prefix in sorted(p for p in prefixes if not p or p.endswith("."))[:MOST_PREFIXES]:
        inside = {key[len(prefix) :]: value for key, value in keys.items() if key.startswith(prefix)}
        yield Network(table.path, prefix, inside, tuple(key for key in keys if not key.startswith(prefix)))


def _distinct(networks: list[Network]) -> list[Network]:
    """Without those that are the same tensors again, under another name."""
    found: dict[Any, Network] = {}
    for network in networks:
        places = frozenset((key, getattr(value, "place", id(value))) for key, value in network.tensors.items())
        known = found.get(places)
        if known is None or (known.average and not network.average):
            found[places] = network
    return list(found.values())


def _found(tables: list[Table]) -> str:
    """What a file holds that has no network in it."""
    keys = [key for table in tables for key in table.tensors]
    if not keys:
        return "it holds no table of tensors"
    if any(re.search(r"(^|\.)patch_head\.weight$", key) for key in keys):
        return (
            "it has the keys of ampnet-opt's own network without its configuration; write it with "
            "ampnet_opt.checkpoint.save_checkpoint"
        )
    if all(table.path and ("optim" in table.path[0] or table.path[0] == "state") for table in tables):
        return "it holds the state of an optimizer, and no weights; save model.state_dict()"
    largest = max(tables, key=lambda table: len(table.tensors))
    names = [one_line(key, 40) for key in largest.tensors]
    place = f" in {one_line('/'.join(largest.path), 40)}" if largest.path else ""
    heads = " and ".join(HEADS)
    return f"it holds the tensors {listed(names)}{place}, but neither of the heads {heads}"


def profile_counter(key: str) -> bool:
    """Whether a key is one of the counters that thop hangs on each module."""
    return key.rpartition(".")[2] in {"total_ops", "total_params"}
