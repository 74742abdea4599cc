"""What the GPU check does with one subject and one network, in a process of its own: a crash of a library ends only that.

`main` writes a line of JSON to the standard output when a part begins ({"begin": name}) and when it ends (a `CheckedPart`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from ampnet_opt.benchmarks.gpu_check_detector import check_detector
from ampnet_opt.benchmarks.gpu_check_networks import Network, network
from ampnet_opt.benchmarks.gpu_check_others import (
    BATCHES,
    RUNS,
    Figures,
    Skipped,
    Work,
    end_to_end,
    row_of,
    run_onnxruntime,
    some_faces,
    torch_parts,
)
from ampnet_opt.convert.build import Options, Precision, build
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import size_on_disk
from ampnet_opt.core.metrics import accuracy, agreement
from ampnet_opt.runtime import Engine, cuda
from ampnet_opt.runtime.backend import find_backend
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.cuda.device_array import DeviceArray
from ampnet_opt.runtime.golden import relative_error
from ampnet_opt.runtime.sidecar import BatchRange
from ampnet_opt.runtime.tensorrt.plan import open_pool

SUBJECTS = ("tensorrt-rtx", "tensorrt", "pytorch", "onnxruntime")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
# Largest relative error of the logits (root of the mean square over that of the right ones): more is another network.
LIMITS = {"fp32": 0.002, "fp16": 0.05}


@dataclass(frozen=True)
class CheckedPart:
    """outcome: of `name`. detail: why, in one sentence, where it did not pass."""

    name: str
    outcome: Literal["passed", "failed", "skipped"]
    detail: str
    figures: Figures


def parts(subject: str, net: Network, folder: Path, runs: int = RUNS) -> Iterator[Work]:
    """The parts of a subject, in order. runs: that are timed, of each batch."""
    if subject == "pytorch":
        yield from torch_parts(net, runs)
    elif subject == "onnxruntime":
        yield "ONNX Runtime CUDA FP32", partial(run_onnxruntime, net, runs)
    else:
        for precision in PRECISIONS:
            engine = folder / f"{subject}-{precision}"
            yield f"{precision}: build", partial(_build, subject, precision, net, folder)
            yield f"{precision}: right answers", partial(_answers, engine, precision, net)
            if find_backend(subject).device == "gpu":
                yield f"{precision}: inputs on the GPU", partial(_on_the_gpu, engine, net)
                yield f"{precision}: four threads, two contexts", partial(_threads, engine, net)
                yield f"{precision}: latency with CUDA graph", partial(_engine_latency, engine, net, True, runs)
                yield f"{precision}: latency without CUDA graph", partial(_engine_latency, engine, net, False, runs)
        if find_backend(subject).device == "gpu":
            yield "face detector", partial(check_detector, subject, runs)


def run(name: str, work: Callable[[], Figures]) -> CheckedPart:
    """Do a part; whatever goes wrong in it becomes one sentence."""
    try:
        return CheckedPart(name, "passed", "", work())
    except Skipped as reason:
        return CheckedPart(name, "skipped", str(reason), {})
    except Exception as error:
        reason_given = " ".join(str(error).split())
        told = reason_given if isinstance(error, AmpnetError) else f"{type(error).__name__}: {reason_given}"
        return CheckedPart(name, "failed", told, {})


@contextmanager
def _quiet(name: str, total: int) -> Iterator[Callable[[float], None]]:
    yield lambda done: None


def _build(backend: str, precision: Precision, net: Network, folder: Path) -> Figures:
    started = time.monotonic()
    options = Options(backend, [precision], faces=net.calibration, compiling=CompileOptions(BatchRange(1, 8, max(BATCHES))))
    (engine,) = build(net.checkpoint, options, folder, _quiet)
    return {"seconds": round(time.monotonic() - started, 1), "megabytes": round(size_on_disk(engine) / 1e6, 1)}


def _require_built(engine: Path) -> None:
    if not engine.is_dir():
        raise Skipped("its engine was not built")


def _answers(engine: Path, precision: str, net: Network) -> Figures:
    _require_built(engine)
    with Engine.load(engine) as loaded:
        logits = loaded.infer(net.images, net.landmarks)
        single = np.concatenate([loaded.infer(net.images[i : i + 1], net.landmarks[i : i + 1]) for i in range(3)])
    error = relative_error(logits, net.logits)
    alike = agreement(logits, net.logits)
    figures: Figures = {"relative_error": error, "same_top1": alike.same_top1.value, "largest_difference": alike.largest}
    figures["difference_of_batch_1"] = float(np.abs(single - logits[:3]).max())
    if net.labels is not None:
        scores = accuracy(logits, net.labels, net.checkpoint.classes)
        figures["top1"] = scores.top1.value
        figures["top1_of_pytorch"] = float((net.logits.argmax(1) == net.labels).mean())
    limit = LIMITS.get(precision, net.int8_error)
    if not error <= limit:
        raise AmpnetError(f"the logits are off by {error:.2%}, more than {limit:.1%}: {json.dumps(figures)}")
    return figures


def _on_the_gpu(engine: Path, net: Network) -> Figures:
    """Inputs in GPU memory, aligned and as a slice, must give what the same inputs in host memory give."""
    _require_built(engine)
    count = 4
    host = (net.images[:count], net.landmarks[:count].astype(np.float32))
    queue = cuda.open_queue()
    with Engine.load(engine) as loaded, queue.current():
        try:
            expected = loaded.infer(*host)
            there = []
            for array in host:
                buffer = queue.buffer(array.shape, array.dtype.name)
                buffer.host[:] = array
                queue.upload(buffer, count)
                there.append(_Placed(DeviceArray(buffer.address, array.shape, array.dtype, queue.handle, buffer)))
            found = [loaded.infer(*there) for _ in range(3)]
            rest = loaded.infer(*(_Placed(placed.array[1:]) for placed in there))
        finally:
            queue.close()
    differences = [float(np.abs(logits - expected).max()) for logits in found] + [float(np.abs(rest - expected[1:]).max())]
    if not max(differences) <= 0.05 * float(np.abs(expected).max()):
        raise AmpnetError(f"inputs on the GPU give other logits than the same in host memory, off by {max(differences):.3g}")
    return {"largest_difference": max(differences)}


class _Placed:
    """What another library would hand over."""

    def __init__(self, array: DeviceArray) -> None:
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.address, True),
            "stream": array.stream,
            "version": 3,
        }


def _threads(engine: Path, net: Network) -> Figures:
    _require_built(engine)
    faces = [(net.images[i : i + 2], net.landmarks[i : i + 2]) for i in range(0, 24, 2)]
    with Engine.load(engine, contexts=2) as loaded:
        expected = [loaded.infer(*face) for face in faces]
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda face: loaded.infer(*face), faces * 4))
    largest = max(float(np.abs(logits - right).max()) for logits, right in zip(found, expected * 4, strict=True))
    if not largest <= 0.05 * float(np.abs(np.concatenate(expected)).max()):
        raise AmpnetError(f"threads get other logits than one thread alone, off by {largest:.3g}")
    return {"inferences": len(found), "largest_difference": largest}


def _engine_latency(engine: Path, net: Network, cuda_graph: bool, runs: int) -> Figures:
    _require_built(engine)
    with Engine.load(engine) as loaded:  # only to check that it may be loaded here
        sidecar = loaded.sidecar
    rows = []
    with Engine(engine, sidecar, pool := open_pool(engine, sidecar, cuda_graph=cuda_graph)) as loaded:
        for batch in BATCHES:
            images, landmarks = some_faces(net, batch)
            whole = end_to_end(loaded.infer, images, landmarks, runs)
            with pool.borrow() as executor:
                row = row_of(batch, whole, executor.gpu_seconds(images, landmarks, runs))
                row["cuda_graph"] = executor.graph
            rows.append(row)
    return {"latency": rows}


def main(subject: str, name: str, runs: str, given: str) -> None:
    """runs: as of `parts`. given: a folder to work in. Prints what is begun and each part that ends, a line of JSON each."""
    folder = Path(given)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not end up among the answers

    def tell(line: Figures) -> None:
        print(json.dumps(line), file=answers, flush=True)

    tell({"begin": "preparing"})
    try:
        net = network(name, folder)
    except AmpnetError as error:
        tell(asdict(CheckedPart("preparing", "failed", str(error), {})))
        return
    for title, work in parts(subject, net, folder, int(runs)):
        tell({"begin": title})
        tell(asdict(run(title, work)))
