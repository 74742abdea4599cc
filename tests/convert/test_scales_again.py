"""A build from the calibration table of a build is that build again: the same graph and engine, byte for byte."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import CLASSES

from ampnet_opt.bundling.targets import TARGETS
from ampnet_opt.calibration.ranges import METHODS
from ampnet_opt.calibration.table import CalibrationTable, read_table
from ampnet_opt.convert.build import Options, Recipe, build, prepared, recipe_of
from ampnet_opt.convert.bundle import bundle_checkpoint
from ampnet_opt.convert.source import int8_of
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.graph_interface import ImageInput
from ampnet_opt.faces.face import Face, read_faces
from ampnet_opt.network.checkpoint import Checkpoint, read_checkpoint, save_checkpoint, seeded
from ampnet_opt.runtime.backend import PLAIN, RTX, TYPED, UNSIGNED, WEAK
from ampnet_opt.runtime.build import TABLE
from ampnet_opt.shipped import GOLDEN_FACES

FORMS = (PLAIN, UNSIGNED, TYPED, WEAK, RTX)


@contextmanager
def quiet(what: str, total: int) -> Iterator[Callable[[float], None]]:
    yield lambda done: None


@cache
def checkpoint(seed: int = 5, gain: float = 1.0) -> Checkpoint:
    """Of an eighth of the width. gain: of the stem's output."""
    model = seeded(seed, 0.125, len(CLASSES))
    with torch.no_grad():
        cast(torch.Tensor, model.stem.norm.weight).mul_(gain)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "small.safetensors"
        save_checkpoint(path, model, CLASSES)
        return read_checkpoint(path)


@cache
def faces() -> list[Face]:
    return read_faces(GOLDEN_FACES, labelled=False)


def options(table: CalibrationTable | None = None, method: str = "entropy", image_input: ImageInput = "uint8") -> Options:
    """INT8 for cpu: of faces, or of a table."""
    seen = faces() if table is None else ()
    return Options("cpu", ["int8"], image_input=image_input, faces=seen, method=method, table=table)


def written(recipe: Recipe, folder: Path) -> CalibrationTable:
    """The recipe's table, by way of its file."""
    assert recipe.int8 is not None
    recipe.int8.table.write(folder / TABLE)
    return read_table(folder / TABLE)


@cache
def first() -> Recipe:
    return recipe_of(checkpoint(), options(), [UNSIGNED], quiet)


def graphs(recipe: Recipe) -> dict[str, bytes]:
    return {form: prepared(recipe, recipe.model("int8"), "int8", form).graph for form in FORMS}


@pytest.mark.slow
@settings(max_examples=2)
@given(st.integers(0, 1000), st.sampled_from(sorted(METHODS)), st.sampled_from(["uint8", "float32"]))
def test_the_graph_of_every_backend_is_the_same(seed: int, method: str, image_input: ImageInput) -> None:
    made = recipe_of(checkpoint(seed), options(method=method, image_input=image_input), FORMS, quiet)
    with TemporaryDirectory() as folder:
        table = written(made, Path(folder))
    again = recipe_of(checkpoint(seed), options(table, image_input=image_input), FORMS, quiet)
    assert made.int8 is not None and made.int8.corrections is not None
    assert any(values.any() for values in made.int8.corrections.values())
    assert graphs(again) == graphs(made)


def test_the_engine_is_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("openvino")
    (engine,) = build(checkpoint(), options(), tmp_path / "first", quiet)
    caplog.clear()
    (again,) = build(checkpoint(), options(read_table(engine / TABLE)), tmp_path / "again", quiet)
    assert caplog.text == ""
    for name in ("engine.bin", "engine.xml", TABLE):
        assert (again / name).read_bytes() == (engine / name).read_bytes(), name


@pytest.mark.slow
def test_the_graphs_of_a_bundle_are_the_same(tmp_path: Path) -> None:
    def members(path: Path) -> dict[str, bytes]:
        with tarfile.open(path) as tar:
            found = {name: tar.extractfile(name) for name in tar.getnames() if name.endswith(".onnx") or name == TABLE}
            return {name: stream.read() for name, stream in found.items() if stream is not None}

    target, made, again = TARGETS["gpu"], tmp_path / "first.tar", tmp_path / "again.tar"
    bundle_checkpoint(checkpoint(), replace(options(), backend="tensorrt"), target, made, quiet)
    (tmp_path / TABLE).write_bytes(members(made)[TABLE])
    table = read_table(tmp_path / TABLE)
    bundle_checkpoint(checkpoint(), replace(options(table), backend="tensorrt"), target, again, quiet)
    assert len(members(made)) == 1 + len(target.forms)
    assert members(again) == members(made)


@pytest.mark.slow
def test_what_float16_does_not_hold_is_kept_with_the_scales(tmp_path: Path) -> None:
    loud = checkpoint(gain=2e4)
    made = recipe_of(loud, options(), [TYPED], quiet)
    table = written(made, tmp_path)
    assert table.large_tensors and min(table.large_tensors.values()) > 16_376
    again = recipe_of(loud, options(table), [TYPED], quiet)
    one, other = (prepared(recipe, recipe.model("int8"), "int8", TYPED) for recipe in (made, again))
    assert one.graph == other.graph
    quieter = prepared(replace(made, ranges={}), made.model("int8"), "int8", TYPED)
    assert one.float32_layers == other.float32_layers != quieter.float32_layers


def test_a_table_without_corrections_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = first().source
    old = replace(written(first(), tmp_path), corrections=None)
    old.write(tmp_path / "old.json")
    assert "corrections" not in (tmp_path / "old.json").read_text()
    caplog.clear()
    again = int8_of(source, read_table(tmp_path / "old.json"))
    assert [record.getMessage() for record in caplog.records] == [
        "the scales (--scales) come without bias correction, which may cost accuracy: leave out --scales to calibrate "
        "again, unless they are of train --qat"
    ]
    assert again.corrections is None
    assert again.table.to_json() == (tmp_path / "old.json").read_text()
    caplog.clear()
    assert int8_of(source, replace(old, corrections={})).corrections is None  # as of train --qat
    assert caplog.text == ""


def test_corrections_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    table = written(first(), tmp_path)
    found = table.decoded_corrections()
    layer = next(iter(found))
    for spoilt in ({name: v for name, v in found.items() if name != layer}, {**found, layer: found[layer][:-1]}):
        with pytest.raises(MisuseError, match="no bias correction that fits"):
            int8_of(first().source, table.with_corrections(spoilt))


def test_corrections_come_back_exactly() -> None:
    values = {"a": np.array([0.1, -3e-39, 3e38, -0.0], np.float32), "b": np.ones(1, np.float32)}
    table = CalibrationTable("minmax", 4, "ab", "cd", {}).with_corrections(values)
    back = table.decoded_corrections()
    assert {name: array.tobytes() for name, array in back.items()} == {name: a.tobytes() for name, a in values.items()}
