"""Runs engines in every way that `Engine` has, and holds each answer against ONNX Runtime's of the same graph.

python run_engines.py ENGINE... : prints how the last batch of each was launched.
"""

from __future__ import annotations

import ctypes
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import stand_in_tensorrt

from ampnet_opt.runtime import Engine, cuda
from ampnet_opt.runtime.backend import find_backend
from ampnet_opt.runtime.sidecar import read_sidecar
from ampnet_opt.runtime.tensorrt.plan import open_pool


def faces(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 224, 224, 3), np.uint8), rng.uniform(20, 200, (count, 5, 2)).astype(np.float32)


def graph_of(engine: Path) -> bytes:
    plan = (engine / "engine.plan").read_bytes().removeprefix(stand_in_tensorrt.MAGIC)
    return plan.partition(b"\n")[2]


class Expected:
    """The graph's own answers."""

    def __init__(self, engine: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(graph_of(engine), options, providers=["CPUExecutionProvider"])

    def require(self, logits: np.ndarray, images: np.ndarray, landmarks: np.ndarray) -> None:
        (wanted,) = self._session.run(None, {"image": images, "landmarks": landmarks})
        np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-3 * float(np.abs(wanted).max()))


class OnGpu:
    """An array in GPU memory that another library's stream has yet to write when it is handed over.

    stream: its address; 1 is the default stream. named: whether the interface names it, as from version 3 on. dlpack:
    whether it can make a stream wait for it, as PyTorch's can. skip: rows that are left out, so that it is not aligned.
    """

    def __init__(
        self, queue: cuda.Queue, values: np.ndarray, *, stream: int, named: bool, dlpack: bool = False, skip: int = 0
    ) -> None:
        self.stream, self.buffer, self.values = stream, queue.buffer(values.shape, values.dtype.name), values
        self.interface = {"version": 3 if named else 2, "shape": values[skip:].shape, "typestr": values.dtype.str}
        self.interface["data"] = (self.buffer.address + values[:skip].nbytes, False)
        if named:
            self.interface["stream"] = stream
        if dlpack:
            self.__dlpack__ = self._dlpack

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.interface

    def write(self) -> None:
        """Queue what computes it: until it has run, the memory holds NaN or 255."""
        where, values = self.buffer.address, self.values

        def work() -> None:
            stand_in_tensorrt._array(where, values.shape, values.dtype)[:] = values

        stand_in_tensorrt._enqueue(self.stream, work, [(where, values.nbytes, True)])

    def _dlpack(self, stream: int) -> object:
        driver, event = stand_in_tensorrt._cuda, ctypes.c_void_p()
        driver("cuEventCreate", ctypes.byref(event), 0)
        driver("cuEventRecord", event, ctypes.c_void_p(self.stream))
        driver("cuStreamWaitEvent", ctypes.c_void_p(stream), event, 0)
        driver("cuEventDestroy_v2", event)
        return object()


def waits() -> tuple[int, int]:
    """How often threads have waited for a stream and asked again and again, and how often they have slept."""
    driver = stand_in_tensorrt._driver
    return driver.standInWaits(0), driver.standInWaits(1)


def in_host_memory(engine: Engine, expected: Expected) -> None:
    engine.warm_up()
    for count in (1, 3, 4, 4, 4, 4, 1, 1, 1, 9, 0):  # the second of a size is recorded; nine are more than a batch
        images, landmarks = faces(count, count)
        logits = engine.infer(images, landmarks)
        if count:
            expected.require(logits, images, landmarks)
    images, landmarks = faces(7, 70)
    expected.require(np.stack(list(engine.infer_each(zip(images, landmarks, strict=True)))), images, landmarks)


def on_the_gpu(engine: Engine, expected: Expected) -> None:
    images, landmarks = faces(4, 5)
    queue = cuda.open_queue()
    ways: list[dict[str, Any]] = [
        {"stream": queue.handle, "named": True},
        {"stream": 1, "named": True},
        {"stream": queue.handle, "named": False},
        {"stream": queue.handle, "named": False, "dlpack": True},
        {"stream": queue.handle, "named": True, "skip": 1},
    ]
    with queue.current():
        placed = [[OnGpu(queue, values, **way) for values in (images, landmarks)] for way in ways]
    for way, arrays in zip(ways, placed, strict=True):
        skip = way.get("skip", 0)
        for _ in range(3):
            with queue.current():
                for array in arrays:
                    array.write()
            expected.require(engine.infer(*arrays), images[skip:], landmarks[skip:])
        expected.require(engine.infer(arrays[0], landmarks[skip:]), images[skip:], landmarks[skip:])
    with queue.current():
        queue.close()


def by_eight_threads(engine: Engine, expected: Expected) -> None:
    """Two of them do what waits for the whole GPU, or allocates on it, while the others may be recording."""
    batches = [faces(1 + i % 2, 100 + i) for i in range(6)]
    queue = cuda.open_queue()

    def infer(batch: tuple[np.ndarray, np.ndarray]) -> None:
        for _ in range(3):
            expected.require(engine.infer(*batch), *batch)

    def load() -> None:
        with Engine.load(engine.directory) as another:
            expected.require(another.infer(*batches[0]), *batches[0])

    def wait() -> None:
        for _ in range(100):
            with queue.current():
                queue.wait_for_all()

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(load), threads.submit(wait), *(threads.submit(infer, batch) for batch in batches)]:
            done.result()
    with queue.current():
        queue.close()


def beside_a_build(engine: Engine, expected: Expected) -> None:
    """Nothing of an engine waits for a build, in which no graph can be recorded; it is recorded afterwards."""
    batch = faces(3, 6)

    def infer() -> None:
        for _ in range(3):
            expected.require(engine.infer(*batch), *batch)
        with Engine.load(engine.directory) as another:
            expected.require(another.infer(*batch), *batch)

    with cuda.RECORDING.waiting(), ThreadPoolExecutor(1) as thread:
        thread.submit(infer).result(timeout=60)
    infer()


def main(engines: list[str]) -> None:
    launched = {}
    for path in map(Path, engines):
        expected = Expected(path)
        with Engine.load(path, contexts=2) as engine:
            in_host_memory(engine, expected)
            on_the_gpu(engine, expected)
            by_eight_threads(engine, expected)
            beside_a_build(engine, expected)
        with Engine.load(path, blocking_wait=True) as engine:
            before, batch = waits(), faces(2, 0)
            for _ in range(3):
                expected.require(engine.infer(*batch), *batch)
            assert [now - then for now, then in zip(waits(), before, strict=True)] == [0, 3]
        sidecar = read_sidecar(path)
        pool = open_pool(path, sidecar)
        with pool.borrow() as executor:
            assert all(0 < seconds < 10 for seconds in executor.gpu_seconds(*faces(2, 0), runs=4))
            launched[path.name] = executor.graph
        pool.close()
        times = find_backend(sidecar.backend).layer_times(path, sidecar, faces(2, 0), 2, None)
        assert len(times) > 100 and all(seconds > 0 for _, _, seconds in times)
    print(json.dumps(launched))


if __name__ == "__main__":
    main(sys.argv[1:])
