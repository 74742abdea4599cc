"""Bundles of the small network for the tests: calibrated once per session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from small import CLASSES, scales

from ampnet_opt.bundling.targets import TARGETS
from ampnet_opt.calibration.table import CalibrationTable
from ampnet_opt.convert.build import Options, Recipe, recipe_of
from ampnet_opt.convert.bundle import bundle_recipe
from ampnet_opt.network.checkpoint import Checkpoint, init_checkpoint, read_checkpoint
from ampnet_opt.runtime.backend import TYPED, UNSIGNED, WEAK


@contextmanager
def quiet(name: str, total: int) -> Iterator[Callable[[float], None]]:
    yield lambda done: None


@cache
def checkpoint() -> Checkpoint:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "small.safetensors"
        init_checkpoint(path, seed=5, width=0.125, classes=CLASSES)
        return read_checkpoint(path)


def options(backend: str, precisions: Sequence[str]) -> Options:
    """INT8 with scales that were measured before, as by --scales."""
    table = CalibrationTable("minmax", 4, "ab" * 32, "cd" * 32, scales(), checkpoint().sha256)
    return Options(backend, precisions, table=table)  # type: ignore[arg-type]


@cache
def recipe() -> Recipe:
    return recipe_of(checkpoint(), options("tensorrt", ["fp16", "bf16", "fp32", "int8"]), [TYPED, WEAK, UNSIGNED], quiet)


def make_bundle(path: Path, target: str, precisions: Sequence[str]) -> Path:
    return bundle_recipe(recipe(), precisions, TARGETS[target], path, quiet)
