"""Folders of pictures: read ahead, computed in parallel, and answered as one by one."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from engines import save_engine
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ampnet_opt.convert.export import export
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.faces.face import Face
from ampnet_opt.network.checkpoint import read_checkpoint
from ampnet_opt.pipeline.classify import classify
from ampnet_opt.pipeline.stages import begun_ahead
from ampnet_opt.runtime import Engine
from ampnet_opt.runtime.sidecar import BatchRange, read_sidecar
from ampnet_opt.shipped import CHECKPOINT

pytest.importorskip("openvino", reason="the engines of these tests run in OpenVINO")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    # The checkpoint that comes with the package: a seeded one answers every face alike.
    checkpoint = read_checkpoint(CHECKPOINT)
    folder = save_engine(export(checkpoint), checkpoint.sha256, tmp_path_factory.mktemp("classify") / "engine")
    replace(read_sidecar(folder), classes=list(checkpoint.classes)).write(folder)
    with Engine.load(folder) as loaded:
        yield loaded


def faces_of(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    blocks = rng.integers(0, 256, (count, 7, 7, 3), np.uint8)
    return blocks.repeat(32, 1).repeat(32, 2), rng.uniform(0, 224, (count, 5, 2)).astype(np.float32)


def one_by_one(engine: Engine, images: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.concatenate([engine.infer(images[i : i + 1], points[i : i + 1]) for i in range(len(images))])


# None; one that runs as infer does; one full batch; more batches than are computed at once, and a rest.
@pytest.mark.parametrize("count", [0, 1, 4, 43])
def test_each_face_gets_its_own_logits_in_order(engine: Engine, count: int) -> None:
    images, points = faces_of(count)
    found = list(engine.infer_each(zip(images, points, strict=True)))
    assert len(found) == count
    if count:
        expected = one_by_one(engine, images, points)
        assert count == 1 or np.abs(expected[0] - expected[-1]).max() > 0.1  # else any order would do
        np.testing.assert_allclose(np.stack(found), expected, atol=1e-3)


def test_floating_point_images_are_taken_too(engine: Engine) -> None:
    images, points = faces_of(9)
    as_float = images.transpose(0, 3, 1, 2) / 255
    given_bytes = list(engine.infer_each(zip(images, points, strict=True)))
    np.testing.assert_array_equal(list(engine.infer_each(zip(as_float, points, strict=True))), given_bytes)


def test_a_stream_that_is_left_or_fails_leaves_the_engine_usable(engine: Engine) -> None:
    images, points = faces_of(40)
    expected = engine.infer(images[:2], points[:2])

    def failing() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield from zip(images[:20], points[:20], strict=True)
        raise OSError("the camera is gone")

    results = engine.infer_each(zip(images, points, strict=True))
    next(results)
    results.close()
    with pytest.raises(OSError, match="camera"):
        list(engine.infer_each(failing()))
    with pytest.raises(MisuseError, match="finite"):
        list(engine.infer_each(zip(images, np.full_like(points, np.nan), strict=True)))
    np.testing.assert_array_equal(engine.infer(images[:2], points[:2]), expected)


@pytest.mark.parametrize("profile", [BatchRange(1, 1, 2), BatchRange(1, 1, 16), BatchRange(8, 8, 16)])
def test_batches_are_within_the_profile(engine: Engine, profile: BatchRange, monkeypatch: pytest.MonkeyPatch) -> None:
    images, points = faces_of(11)
    seen: list[int] = []
    run_many = engine._executor.run_many

    def watched(batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        def counted() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for batch in batches:
                seen.append(len(batch[0]))
                yield batch

        return run_many(counted())

    monkeypatch.setattr(engine._executor, "run_many", watched)
    monkeypatch.setattr(engine, "sidecar", replace(engine.sidecar, batch=profile))
    list(engine.infer_each(zip(images, points, strict=True)))
    assert sum(seen) == 11
    assert all(profile.min <= size <= profile.max for size in seen[:-1])


@pytest.mark.parametrize("damaged", [(), (0,), (0, 1, 2), (5, 11), (11,), tuple(range(12))])
def test_pictures_that_fail_are_answered_in_their_place(engine: Engine, damaged: tuple[int, ...], tmp_path: Path) -> None:
    images, points = faces_of(12)
    faces = [Face(tmp_path / f"{i}.png", points[i]) for i in range(12)]
    for i, face in enumerate(faces):
        if i in damaged:
            face.file.write_bytes(b"no picture")
        else:
            Image.fromarray(images[i]).save(face.file)
    expected = one_by_one(engine, images, points)
    found = list(classify(engine, faces))
    assert [result.file for result in found] == [face.file for face in faces]
    for i, result in enumerate(found):
        if i in damaged:
            assert f"{i}.png cannot be read" in str(result.error) and not result.label
        else:
            shares = np.exp(expected[i]) / np.exp(expected[i]).sum()
            np.testing.assert_allclose([result.probabilities[name] for name in engine.classes], shares, atol=1e-3)
            assert result.error is None and result.label == engine.classes[int(shares.argmax())]


@pytest.mark.skipif(sys.platform == "win32", reason="raises a signal")
def test_ctrl_c_after_engines_were_closed_is_heard(engine: Engine) -> None:
    """OpenVINO ends the process at the first signal after two of its Cores were freed."""
    script = (
        "import signal, sys; import numpy as np; from ampnet_opt.runtime import Engine\n"
        "for _ in range(2):\n"
        "    with Engine.load(sys.argv[1], threads=1) as engine:\n"
        "        engine.infer(np.zeros((1, 224, 224, 3), np.uint8), np.full((1, 5, 2), 100, np.float32))\n"
        "try:\n    signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt:\n    print('heard')"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(engine.directory)], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (0, "heard\n")


@settings(max_examples=30)
@given(items=st.lists(st.integers(), max_size=30), count=st.integers(1, 8), readers=st.integers(1, 4))
def test_reading_ahead_keeps_the_order_and_its_bound(items: list[int], count: int, readers: int) -> None:
    lock, begun, taken = threading.Lock(), [0], 0

    def work(item: int) -> int:
        with lock:
            begun[0] += 1
        return item * 2

    with ThreadPoolExecutor(readers) as pool:
        results = []
        for result in begun_ahead(partial(pool.submit, work), items, count):
            taken += 1
            assert begun[0] < taken + count
            results.append(result)
    assert results == [item * 2 for item in items]
