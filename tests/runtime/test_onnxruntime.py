"""The backend onnxruntime, added as docs/explanations/architecture.md says: the seam between backends holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ampnet_opt.benchmarks.bench_layers import layer_times
from ampnet_opt.convert.build import Options, build
from ampnet_opt.convert.export import export
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.core.onnx_session import graph_logits
from ampnet_opt.network.checkpoint import Checkpoint, init_checkpoint, read_checkpoint
from ampnet_opt.runtime import Engine
from ampnet_opt.runtime.backend import LoadOptions, find_backend
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.sidecar import BatchRange, read_sidecar

onnxruntime = pytest.importorskip("onnxruntime")


@contextmanager
def quiet(what: str, total: int) -> Iterator[Callable[[float], None]]:
    yield lambda done: None


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("onnxruntime") / "narrow.safetensors"
    init_checkpoint(path, seed=0, width=0.125, classes=PRESETS["rafdb"])
    return read_checkpoint(path)


@pytest.fixture(scope="module")
def engine(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = Options("onnxruntime", ["fp32"], compiling=CompileOptions(BatchRange(1, 1, 4)))
    ((built, not_run),) = build(checkpoint, options, tmp_path_factory.mktemp("engines"), quiet).items()
    assert not_run == ""
    return built


def faces(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    points = np.array([[80, 90], [144, 90], [112, 120], [88, 155], [136, 155]], np.float32)
    return rng.integers(0, 256, (count, 224, 224, 3), np.uint8), np.repeat(points[None], count, 0)


def test_an_engine_answers_as_its_graph_does(engine: Path, checkpoint: Checkpoint) -> None:
    images, landmarks = faces(6)
    with Engine.load(engine) as loaded:
        logits = loaded.infer(images, landmarks)
        each = np.stack(list(loaded.infer_each(zip(images, landmarks))))
    expected = graph_logits(export(checkpoint, "uint8"), [(images, landmarks)])
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(each, logits, atol=1e-5 * np.abs(expected).max())


def test_every_convolution_and_product_is_listed_as_float32(engine: Path) -> None:
    record = read_sidecar(engine).layers
    assert record is not None and record["precision"] == "fp32"
    assert record["as_asked"]["convolution"] > 90 and record["as_asked"]["matrix product"] >= 1
    assert not record["downgraded"] and not record["untold"]


def test_threads_get_the_same_bits(engine: Path) -> None:
    images, landmarks = faces(4)
    with Engine.load(engine, threads=1) as loaded, ThreadPoolExecutor(4) as pool:
        alone = loaded.infer(images, landmarks)
        together = list(pool.map(lambda _: loaded.infer(images, landmarks), range(16)))
    assert all((found == alone).all() for found in together)


def test_the_time_of_each_layer_is_measured(engine: Path) -> None:
    rows = layer_times(engine, 2, threads=1, runs=3)
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert any(row.kernel in {"Conv", "FusedConv"} for row in rows)


@pytest.mark.parametrize("precision", ["int8", "fp16", "bf16"])
def test_another_precision_is_refused_before_any_work(precision: str) -> None:
    with pytest.raises(MisuseError, match=f"^{precision} is not for the backend onnxruntime, which takes fp32$"):
        find_backend("onnxruntime").require_possible(CompileOptions(), [precision])


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_provider_that_is_not_installed_is_refused_and_not_replaced(name: str, engine: Path) -> None:
    backend = find_backend(name)
    if backend.availability().builds:
        pytest.skip(f"this ONNX Runtime has the provider of {name}")
    found = backend.availability()
    assert not found.runs and "put onnxruntime-gpu in place of onnxruntime" in found.problem
    with pytest.raises(AmpnetError, match=f"which the {name} backend needs"):
        backend.check(replace(read_sidecar(engine), backend=name))


def test_an_engine_of_a_newer_library_is_refused(engine: Path) -> None:
    with pytest.raises(AmpnetError, match=r"built with ONNX Runtime 99.0, but .* is installed, which is older"):
        find_backend("onnxruntime").check(replace(read_sidecar(engine), backend_version="99.0"))


def test_contexts_are_refused(engine: Path) -> None:
    with pytest.raises(MisuseError, match="contexts are for TensorRT engines"):
        find_backend("onnxruntime").open(engine, read_sidecar(engine), LoadOptions(contexts=2))


def test_a_changed_graph_is_refused(engine: Path, tmp_path: Path) -> None:
    with Engine.load(engine):
        pass
    copy = tmp_path / "engine"
    copy.mkdir()
    for file in engine.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "engine.onnx").write_bytes((copy / "engine.onnx").read_bytes()[:-1])
    with pytest.raises(AmpnetError, match=r"engine\.onnx"):
        Engine.load(copy)


def test_a_sidecar_with_other_classes_than_the_graph_has_outputs_is_refused(engine: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(engine, tmp_path / "engine"))
    replace(read_sidecar(directory), classes=["a", "b"]).write(directory)
    with pytest.raises(AmpnetError, match=r"is damaged \(it names 2 classes, its network has 7 outputs\); build the engine"):
        Engine.load(directory)


def test_a_file_that_says_no_number_of_outputs_is_left_to_the_library(engine: Path, tmp_path: Path) -> None:
    whole = (engine / "engine.onnx").read_bytes()
    backend = find_backend("onnxruntime")
    assert backend.outputs(engine) == 7 and backend.outputs(tmp_path) is None
    for content in (b"", b"no graph", whole[: len(whole) // 2]):
        (tmp_path / "engine.onnx").write_bytes(content)
        assert backend.outputs(tmp_path) is None
