"""Building engines where something is missing: faces, or room on the disk. Nothing stays behind, one sentence says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from full_disk import no_file_beyond, resource
from small import CLASSES, float_graph

from ampnet_opt.bundling.targets import TARGETS
from ampnet_opt.convert import openvino as cpu
from ampnet_opt.convert.build import Options, build
from ampnet_opt.convert.bundle import bundle_checkpoint
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.files import reserved
from ampnet_opt.core.locks import BusyError
from ampnet_opt.network.checkpoint import Checkpoint, init_checkpoint, read_checkpoint
from ampnet_opt.runtime.sidecar import read_sidecar


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    init_checkpoint(path, seed=5, width=0.125, classes=CLASSES)
    return read_checkpoint(path)


def refusal(checkpoint: Checkpoint, backend: str, output: Path, force: bool = False) -> str:
    """What `build` says when the disk is full from the export's end on, where no more than an engine's files is written."""

    @contextmanager
    def step(what: str, total: int) -> Iterator[Callable[[float], None]]:
        assert what in {"exporting the graph", f"building {backend}-fp32"}
        with no_file_beyond(300_000 if what.startswith("building") else resource.RLIM_INFINITY):
            yield lambda done: None

    with pytest.raises(AmpnetError) as caught:
        build(checkpoint, Options(backend, ["fp32"]), output, step, force)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(f"cannot write {output / f'{backend}-fp32'}: ")
    assert said.endswith("; nothing was changed there")
    return said


@pytest.mark.parametrize(
    ("backend", "module", "words"),
    [("cpu", "openvino", "full disk"), ("tensorrt-rtx", "tensorrt_rtx", "File too large")],
)
def test_an_engine_that_does_not_fit_leaves_nothing(
    checkpoint: Checkpoint, tmp_path: Path, backend: str, module: str, words: str
) -> None:
    pytest.importorskip(module)
    assert words in refusal(checkpoint, backend, tmp_path / "new" / "engines")
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_does_not_fit_leaves_the_old_one(checkpoint: Checkpoint, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    old = tmp_path / "cpu-fp32"
    old.mkdir()
    (old / "engine.bin").write_bytes(b"old")
    refusal(checkpoint, "cpu", tmp_path, force=True)
    assert sorted(tmp_path.rglob("*")) == [old, old / "engine.bin"]
    assert (old / "engine.bin").read_bytes() == b"old"


def test_a_disk_that_lacks_one_byte_is_noticed(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    whole, short = tmp_path / "whole", tmp_path / "short"
    whole.mkdir()
    short.mkdir()
    names, _ = cpu.write_ir(float_graph(), "fp32", whole)
    largest = max((whole / name).stat().st_size for name in names)
    with no_file_beyond(largest - 1), pytest.raises(OSError, match="full disk"):
        cpu.write_ir(float_graph(), "fp32", short)


@pytest.mark.parametrize("what", ["build", "bundle"])
def test_what_another_process_is_making_is_refused_before_any_work(
    checkpoint: Checkpoint, tmp_path: Path, what: str
) -> None:
    def step(name: str, total: int) -> object:
        raise AssertionError(f"{name} began")

    options = Options("cpu", ["fp32"])
    target = tmp_path / "new" / ("cpu-fp32" if what == "build" else "a.tar")
    with ThreadPoolExecutor(1) as other, reserved(target), pytest.raises(BusyError, match=f"is writing {target}; wait"):
        if what == "build":
            other.submit(build, checkpoint, options, target.parent, step, True).result()  # type: ignore[arg-type]
        else:
            other.submit(bundle_checkpoint, checkpoint, options, TARGETS["cpu"], target, step).result()  # type: ignore[arg-type]
    assert not list(target.parent.iterdir())


def test_an_engine_says_whether_its_classes_were_assumed(checkpoint: Checkpoint, tmp_path: Path) -> None:
    pytest.importorskip("openvino")

    @contextmanager
    def step(what: str, total: int) -> Iterator[Callable[[float], None]]:
        yield lambda done: None

    for assumed in ("it names no classes", ""):
        (engine,) = build(replace(checkpoint, assumed=assumed), Options("cpu", ["fp32"]), tmp_path, step, force=True)
        assert read_sidecar(engine).classes_assumed == bool(assumed)


def test_int8_without_faces_is_refused_before_any_work(checkpoint: Checkpoint, tmp_path: Path) -> None:
    def step(what: str, total: int) -> object:
        raise AssertionError(f"{what} began")

    with pytest.raises(MisuseError, match="needs faces"):
        build(checkpoint, Options("cpu", ["int8"]), tmp_path, step)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
