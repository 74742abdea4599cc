from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_disk import no_file_beyond
from PIL import Image

from ampnet_opt.convert.build import Options, build
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.graph_interface import IMAGE_SIDE
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.faces.face import Face
from ampnet_opt.network.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from ampnet_opt.network.model import AMPNet
from ampnet_opt.runtime import Engine
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.engine import engine_inputs
from ampnet_opt.runtime.openvino import compiled as cpu
from ampnet_opt.runtime.openvino.backend import precisions as able
from ampnet_opt.runtime.openvino.executor import Executor
from ampnet_opt.runtime.sidecar import MISSING, UNCHANGED, BatchRange, file_states, read_sidecar

openvino = pytest.importorskip("openvino", reason="the engines of these tests run in OpenVINO")
CLASSES = PRESETS["rafdb"]
CELL = 8  # pixels of a cell of the feature map
HEAVY = ["torch", "onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx"]
HEAVY += ["PIL", "rich", "typer", "pandas", "matplotlib"]


@contextmanager
def quiet(name: str, total: int) -> Iterator[Callable[[float], None]]:
    yield lambda done: None


def pictures(count: int) -> np.ndarray:
    """Coarse random patterns, unlike each other as a whole and from patch to patch; uint8 [count, 224, 224, 3]."""
    rng = np.random.default_rng(5)
    blocks = rng.integers(0, 256, (count, 14, 14, 3), np.uint8) // 2 + rng.integers(0, 128, (count, 1, 1, 3), np.uint8)
    return blocks.repeat(IMAGE_SIDE // 14, 1).repeat(IMAGE_SIDE // 14, 2)


def points(count: int) -> np.ndarray:
    """Landmarks anywhere in the image; float32 [count, 5, 2]."""
    return np.random.default_rng(6).uniform(0, IMAGE_SIDE, (count, 5, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A narrow network whose logits answer to the face: the seeded heads hardly do, so they are scaled up."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AMPNet(len(CLASSES), 0.125).eval()
    with torch.no_grad():
        model.patch_head.weight *= 300
        model.global_head.weight *= 300
    path = tmp_path_factory.mktemp("checkpoint") / "narrow.safetensors"
    save_checkpoint(path, model, CLASSES, trained=False)
    return read_checkpoint(path)


@pytest.fixture(scope="module")
def engines(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Engine directories for batches of 1 to 4, by precision: fp32, int8, and what halves this processor computes in."""
    folder = tmp_path_factory.mktemp("engines")
    faces = []
    for number, (image, landmarks) in enumerate(zip(pictures(4), points(4), strict=True)):
        Image.fromarray(image).save(folder / f"{number}.png")
        faces.append(Face(folder / f"{number}.png", landmarks))
    precisions: list[Any] = ["fp32", "int8", *sorted({"bf16", "fp16"} & {*able()})]
    options = Options("cpu", precisions, faces=faces, method="minmax", compiling=CompileOptions(BatchRange(1, 1, 4)))
    return dict(zip(precisions, build(checkpoint, options, folder, quiet), strict=True))


@pytest.fixture(scope="module")
def fp32(engines: dict[str, Path]) -> Iterator[Engine]:
    with Engine.load(engines["fp32"]) as engine:
        yield engine


def test_importing_the_runtime_imports_no_backend_and_nothing_of_the_conversion() -> None:
    script = f"import sys, ampnet_opt.runtime; print(*[name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_importing_the_backend_reports_to_nobody() -> None:
    script = (
        "import sys; from ampnet_opt.runtime.openvino.library import load_openvino; load_openvino()\n"
        "import openvino.tools.ovc\n"
        "print([name for name in sys.modules if 'openvino_telemetry' in name])\n"
        "import multiprocessing; print(multiprocessing.active_children())"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["[]", "[]"]


def test_logits_are_those_of_the_checkpoint_and_answer_to_picture_and_landmarks(
    checkpoint: Checkpoint, fp32: Engine
) -> None:
    images, landmarks = pictures(3), points(3)
    logits = fp32.infer(images, landmarks)
    with torch.no_grad():
        expected = checkpoint.model(torch.from_numpy(images).permute(0, 3, 1, 2) / 255, torch.from_numpy(landmarks))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    # The other tests compare logits: they would prove nothing if all faces had the same ones.
    assert np.abs(logits[0] - logits[1]).max() > 0.1
    assert np.abs(fp32.infer(images, landmarks[::-1]) - logits).max() > 0.1


def test_uint8_and_float_images_agree(fp32: Engine) -> None:
    images, landmarks = pictures(2), points(2)
    as_float = images.transpose(0, 3, 1, 2).astype(np.float64) / 255
    expected = fp32.infer(images, landmarks)
    np.testing.assert_array_equal(fp32.infer(as_float, landmarks), expected)
    np.testing.assert_array_equal(fp32.infer(as_float.astype(np.float16), landmarks.astype(np.float64)), expected)


# One face and several have kernels of their own, whose last bits may put a value into the next of the 8-bit steps.
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("int8", 0.03)])
def test_a_batch_beyond_the_profile_gives_what_the_faces_give_one_by_one(
    engines: dict[str, Path], precision: str, tolerance: float
) -> None:
    images, landmarks = pictures(9), points(9)  # two full batches of 4, and one face
    with Engine.load(engines[precision], threads=1) as engine:
        together = engine.infer(images, landmarks)
        single = np.concatenate([engine.infer(images[i : i + 1], landmarks[i : i + 1]) for i in range(9)])
    assert together.shape == (9, len(CLASSES))
    np.testing.assert_allclose(together, single, atol=tolerance)


class Counting:
    """An executor that notes the batches it is given and hands them on."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.batches = inner, []  # type: Any, list[int]

    def run(self, images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        self.batches.append(len(images))
        return self.inner.run(images, landmarks)


def test_batches_are_kept_within_the_profile(fp32: Engine) -> None:
    counting = Counting(fp32._executor)
    engine = Engine(fp32.directory, replace(fp32.sidecar, batch=BatchRange(3, 3, 4)), counting)
    images, landmarks = pictures(9), points(9)
    logits = engine.infer(images, landmarks)
    assert counting.batches == [4, 4, 3]  # the last face, padded to the smallest batch
    np.testing.assert_allclose(logits, fp32.infer(images, landmarks), atol=1e-4)
    assert engine.infer(images[:2], landmarks[:2]).shape == (2, len(CLASSES))


@pytest.mark.parametrize("names", [["a", "b"], ["a"], [*"abcdefgh"]])
def test_a_sidecar_with_other_classes_than_the_network_has_outputs_is_refused(
    engines: dict[str, Path], names: list[str], tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(engines["fp32"], tmp_path / "engine"))
    replace(read_sidecar(directory), classes=names).write(directory)
    named = f"{len(names)} class{'es' if len(names) > 1 else ''}"
    with pytest.raises(AmpnetError, match=rf"is damaged \(it names {named}, its network has 7 outputs\); build the engine"):
        Engine.load(directory)


def test_no_faces_give_no_logits(fp32: Engine) -> None:
    for images in (np.empty((0, IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8), np.empty((0, 3, IMAGE_SIDE, IMAGE_SIDE), np.float32)):
        logits = fp32.infer(images, np.empty((0, 5, 2), np.float32))
        assert logits.shape == (0, len(CLASSES))
        assert logits.dtype == np.float32


def altered(array: np.ndarray, value: float) -> np.ndarray:
    copy = array.astype(np.float32)
    copy.flat[7] = value
    return copy


IMAGES, LANDMARKS = pictures(2), points(2)
FLOATS = IMAGES.transpose(0, 3, 1, 2).astype(np.float32) / 255
WRONG = {
    "one picture without a batch": (IMAGES[0], LANDMARKS[:1], "images must be"),
    "another size": (IMAGES[:, :200], LANDMARKS, "images must be"),
    "uint8 with channels first": (IMAGES.transpose(0, 3, 1, 2), LANDMARKS, "images must be"),
    "floats with channels last": (FLOATS.transpose(0, 2, 3, 1), LANDMARKS, "images must be"),
    "int32 pictures": (IMAGES.astype(np.int32), LANDMARKS, "images must be"),
    "floats up to 255": (FLOATS * 255, LANDMARKS, "within"),
    "a pixel of NaN": (altered(FLOATS, np.nan), LANDMARKS, "within"),
    "a pixel below 0": (altered(FLOATS, -0.01), LANDMARKS, "within"),
    "fewer landmarks than pictures": (IMAGES, LANDMARKS[:1], "landmarks must be"),
    "four points": (IMAGES, LANDMARKS[:, :4], "landmarks must be"),
    "ten numbers in a row": (IMAGES, LANDMARKS.reshape(2, 10), "landmarks must be"),
    "a landmark of NaN": (IMAGES, altered(LANDMARKS, np.nan), "finite"),
    "a landmark of infinity": (IMAGES, altered(LANDMARKS, -np.inf), "finite"),
    "shares of the image": (IMAGES, LANDMARKS / IMAGE_SIDE, r"within \[-1, 1\]"),
    "a face that was not found": (IMAGES, np.stack([LANDMARKS[0], np.full((5, 2), -1)]), r"within \[-1, 1\]"),
    "landmarks of text": (IMAGES, LANDMARKS.astype(str), "finite"),
    "complex landmarks": (IMAGES, LANDMARKS.astype(np.complex64), "finite"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_face_is_misuse(fp32: Engine, name: str) -> None:
    images, landmarks, message = WRONG[name]
    with pytest.raises(MisuseError, match=message):
        fp32.infer(images, landmarks)


def test_landmarks_outside_the_image_count_as_on_its_border(fp32: Engine) -> None:
    outside = np.random.default_rng(8).uniform(-IMAGE_SIDE, 2 * IMAGE_SIDE, (4, 5, 2)).astype(np.float32)
    assert ((outside < 0) | (outside > IMAGE_SIDE)).any((1, 2)).all()
    expected = fp32.infer(pictures(4), outside.clip(0, IMAGE_SIDE))
    np.testing.assert_array_equal(fp32.infer(pictures(4), outside), expected)
    assert np.abs(fp32.infer(pictures(4), points(4)) - expected).max() > 0.1


def test_an_engine_is_freed_at_the_end_of_its_block_and_may_be_closed_twice(engines: dict[str, Path]) -> None:
    with Engine.load(engines["fp32"]) as engine:
        engine.infer(pictures(1), points(1))
        assert engine.classes == list(CLASSES)
    assert not engine._executor._requests
    engine.close()


@pytest.mark.parametrize(("half", "factor"), [("bf16", 2), ("fp16", 4)])
def test_half_precision_follows_landmarks_exactly(engines: dict[str, Path], fp32: Engine, half: str, factor: float) -> None:
    """Landmarks that float32 puts beside the middle between two cells, nearer than half precision can tell."""
    if half not in engines:
        pytest.skip(f"this processor does not compute in {half} (OpenVINO's OPTIMIZATION_CAPABILITIES)")
    rng = np.random.default_rng(9)
    middle = (rng.integers(4, 24, (4, 5, 2)) + 0.5) * CELL
    # Half precision rounds each onto the middle, and from there half to even: for every other one to the other cell.
    near = (middle + rng.choice([-1e-3, 1e-3], middle.shape)).astype(np.float32)
    images = pictures(4)
    expected = fp32.infer(images, near)
    moved = fp32.infer(images, near.astype(np.float16))
    with Engine.load(engines[half]) as engine:
        logits = engine.infer(images, near)
    assert (np.abs(logits - expected).max(1) < np.abs(moved - expected).max(1) / factor).all()


def test_the_batch_that_a_profile_is_made_for_has_fixed_shapes(engines: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(engines["fp32"], tmp_path / "engine")
    sidecar = replace(read_sidecar(tmp_path / "engine"), batch=BatchRange(1, 3, 4))
    sidecar.write(tmp_path / "engine")
    inputs = pictures(4), points(4)
    with Engine.load(tmp_path / "engine") as engine:
        logits = [engine.infer(*(value[:n] for value in inputs)) for n in (1, 2, 3, 4)]
        assert sorted(engine._executor._requests) == [(-1, 1), (1, 1), (3, 1)]
    for n in (1, 2, 3):
        np.testing.assert_allclose(logits[n - 1], logits[3][:n], atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_without_dynamic_shapes_other_batches_are_taken_apart(engines: dict[str, Path], precision: str) -> None:
    images, landmarks = engine_inputs(pictures(4), points(4), "uint8")
    path = engines[precision] / "engine.xml"
    with closing(Executor(path, precision, None, {1, 3}, dynamic=False)) as apart:
        found = [apart.run(images[:n], landmarks[:n]) for n in (1, 2, 3, 4)]
        assert sorted(apart._requests) == [(1, 1), (3, 1)]
    with closing(Executor(path, precision, None, {1, 2, 3, 4})) as whole:
        expected = [whole.run(images[:n], landmarks[:n]) for n in (1, 2, 3, 4)]
    for logits, right in zip(found, expected, strict=True):
        assert logits.shape == right.shape
        np.testing.assert_allclose(logits, right, atol=1e-3 * np.abs(right).max())


@pytest.mark.parametrize("rest", [0, 5000, 1_000_000])
def test_a_compiled_model_comes_from_the_cache_and_a_broken_one_is_compiled_again(
    engines: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: int
) -> None:
    monkeypatch.setenv("AMPNET_OPT_CACHE", str(tmp_path))
    images, landmarks = pictures(1), points(1)

    def answer() -> np.ndarray:
        with Engine.load(engines["int8"]) as engine:
            return engine.infer(images, landmarks)

    first = answer()
    (kept,) = (tmp_path / "openvino").glob("*.blob")
    made = kept.stat().st_mtime_ns
    np.testing.assert_array_equal(answer(), first)
    assert kept.stat().st_mtime_ns == made  # read, not written
    content = kept.read_bytes()[:rest]
    kept.unlink()
    kept.write_bytes(content)
    np.testing.assert_array_equal(answer(), first)


def test_a_changed_engine_that_is_trusted_is_not_taken_for_what_it_was(
    engines: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMPNET_OPT_CACHE", str(tmp_path / "cache"))
    shutil.copytree(engines["fp32"], tmp_path / "engine")
    inputs = pictures(1), points(1)

    def answer(directory: Path, trusted: bool) -> np.ndarray:
        with Engine.load(directory, trusted=trusted) as engine:
            return engine.infer(*inputs)

    before = answer(tmp_path / "engine", False)
    for name in ("engine.xml", "engine.bin"):
        shutil.copy(engines["int8"] / name, tmp_path / "engine" / name)
    after = answer(tmp_path / "engine", True)
    np.testing.assert_array_equal(after, answer(engines["int8"], False))
    assert (after != before).any()


def test_a_file_whose_name_is_too_long_for_the_system_is_missing(engines: dict[str, Path], tmp_path: Path) -> None:
    sidecar = read_sidecar(engines["fp32"])
    states = file_states(engines["fp32"], replace(sidecar, files={**sidecar.files, "x" * 5000: "ab" * 32}))
    assert states["x" * 5000] == MISSING and states["engine.xml"] == UNCHANGED


def test_a_broken_engine_that_is_trusted_is_refused_in_words(engines: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(engines["fp32"], tmp_path / "engine")
    model = tmp_path / "engine" / "engine.xml"
    model.write_bytes(model.read_bytes()[:3000])
    with Engine.load(tmp_path / "engine", trusted=True) as engine, pytest.raises(AmpnetError, match="cannot load"):
        engine.infer(pictures(1), points(1))


def test_the_cache_of_compiled_models_keeps_the_newest(
    engines: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMPNET_OPT_CACHE", str(tmp_path))
    (tmp_path / "openvino").mkdir()
    monkeypatch.setattr(cpu, "LARGEST_CACHE", 1)
    for age in range(15):
        blob = tmp_path / "openvino" / f"{age}.blob"
        blob.write_bytes(b"x")
        os.utime(blob, (1000 - age, 1000 - age))
    with Engine.load(engines["fp32"]) as engine:
        engine.infer(pictures(1), points(1))
    left = {blob.name for blob in (tmp_path / "openvino").glob("*.blob")}
    assert {name for name in left if name in {f"{age}.blob" for age in range(15)}} == {f"{age}.blob" for age in range(11)}
    assert len(left) == 12


@pytest.mark.parametrize("on_stream", [False, True])
def test_warming_up_compiles_what_the_first_faces_need(
    on_stream: bool, engines: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMPNET_OPT_CACHE", str(tmp_path))
    with Engine.load(engines["fp32"], threads=2) as engine:
        engine.warm_up(on_stream=on_stream)
        batch = engine.sidecar.batch
        compiled = {*(tmp_path / "openvino").iterdir()}
        assert len(compiled) == len({batch.min, batch.opt})
        infer = engine.infer_on_stream if on_stream else engine.infer
        infer(pictures(batch.opt), points(batch.opt))
        assert {*(tmp_path / "openvino").iterdir()} == compiled
        other = engine.infer if on_stream else engine.infer_on_stream
        other(pictures(batch.opt), points(batch.opt))
        assert {*(tmp_path / "openvino").iterdir()} > compiled
    with pytest.raises(AmpnetError, match="closed"):
        engine.warm_up(on_stream=on_stream)


def test_the_process_that_compiles_answers_as_the_next_one_and_binds_no_thread_to_a_core(
    engines: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMPNET_OPT_CACHE", str(tmp_path))
    answers = []
    for _ in range(2):
        with Engine.load(engines["int8"], threads=2) as engine:
            answers.append([engine.infer(pictures(1), points(1)), engine.infer_on_stream(pictures(1), points(1))])
            for pool in engine._executor._requests.values():
                with pool.made.borrow() as request:
                    assert not request._native.get_compiled_model().get_property("ENABLE_CPU_PINNING")
    np.testing.assert_array_equal(answers[0], answers[1])


def test_an_engine_runs_where_no_cache_can_be_written(
    engines: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("AMPNET_OPT_CACHE", str(tmp_path / "file"))
    with Engine.load(engines["int8"]) as engine:
        assert np.isfinite(engine.infer(pictures(1), points(1))).all()


def test_nothing_half_written_is_kept_where_the_disk_is_full(
    engines: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMPNET_OPT_CACHE", str(tmp_path))
    with Engine.load(engines["int8"]) as engine, no_file_beyond(100_000):
        logits = engine.infer(pictures(1), points(1))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    with Engine.load(engines["int8"]) as engine:
        np.testing.assert_array_equal(engine.infer(pictures(1), points(1)), logits)
    assert len(list(tmp_path.rglob("*.blob"))) == 1
