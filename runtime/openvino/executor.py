"""The executor of engines of the cpu backend."""

from __future__ import annotations

import re
import threading
from collections import deque
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Collection, Deque, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.lifetime import keep_in_children
from ampnet_opt.core.processor import available_cores, is_arm
from ampnet_opt.core.text import one_line
from ampnet_opt.runtime import backend
from ampnet_opt.runtime.backend import pad_batch
from ampnet_opt.runtime.openvino.compiled import Compiled, Request, cached
from ampnet_opt.runtime.openvino.library import configuration, core, load_openvino
from ampnet_opt.runtime.pool import Pool
from ampnet_opt.runtime.sidecar import Sidecar, read_unchanged

MODEL = "engine.xml"
MOST_STREAMS = 4  # each has its own memory for activations


def open_executor(directory: Path, sidecar: Sidecar, threads: Optional[int]) -> Executor:
    return Executor(directory / MODEL, sidecar.precision, threads, {1, sidecar.batch.opt}, files=sidecar.files)


def output_size(path: Path) -> Optional[int]:
    """The last dimension of the result in an engine.xml; None where it says none. OpenVINO compiles at the first use, and
    would read the whole graph."""
    try:
        results = re.findall(rb'<layer\b[^>]*type="Result".*?</layer>', path.read_bytes(), re.DOTALL)
    except OSError:
        return None
    sizes = re.findall(rb"<dim>(\d+)</dim>", results[-1]) if results else []
    return int(sizes[-1]) if sizes else None


def _read_weights(path: Path, files: Optional[Mapping[str, str]]) -> Any:
    """A file as `read_unchanged`, in a Tensor of OpenVINO's own, which is freed with the last constant that needs it."""
    openvino, tensors = load_openvino(), []

    def allocate(size: int) -> np.ndarray:
        tensors.append(openvino.Tensor(openvino.Type.u8, openvino.Shape([size])))
        memory: np.ndarray = tensors[-1].data
        return memory

    read_unchanged(path, files, allocate)
    return tensors[0]


class _Lazy:
    """What is made when it is first needed, and `lock`, which is held for making and using it."""

    def __init__(self) -> None:
        self.lock, self.made = threading.Lock(), None  # type: Any, Any


class Executor(backend.Executor):
    """Compiles the graph when it is first used: with fixed shapes for some batches, with a dynamic batch for all others.

    Fixed shapes save a tenth of the latency of a full-size network and a third of a small one's; another compiled graph
    needs as much memory again, so only what is used is made. On Arm no batch is dynamic: it moves the answers of an INT8
    graph by 14 % there, fixed shapes by 2 %, as on x86 (OpenVINO 2026.4, emulated cortex-a76). Other batches are then taken
    apart, and the last part is filled up.

    fixed: the batches of fixed shapes. files: hashes of the engine's files, by which what was compiled is kept for the next
    process; without them it is not. dynamic: whether other batches get a graph of their own; by default as above.
    """

    # Images of one request of `run_many`. With a stream to itself, a core does as much with 4 as with 16, in less memory.
    many = 4

    def __init__(
        self,
        path: Path,
        precision: str,
        threads: Optional[int],
        fixed: Collection[int] = (1,),
        *,
        files: Optional[Mapping[str, str]] = None,
        dynamic: Optional[bool] = None,
    ) -> None:
        self._path, self._fixed, self._files = path, fixed, files
        self._dynamic = not is_arm() if dynamic is None else dynamic
        self._config = configuration(precision, threads)
        # Dictionaries give all threads the same _Lazy (setdefault), whose lock makes the rest safe.
        self._requests: Dict[Tuple[int, int], _Lazy] = {}  # by batch and streams, a pool of one request for each stream
        self._parallel: Dict[int, _Lazy] = {}  # by batch
        self._threads = threads or available_cores()
        self.streams = min(MOST_STREAMS, self._threads)
        keep_in_children(self)

    def run(self, images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Logits of a batch; of several threads with batches of one compiled graph, one computes, on all cores."""
        return self._in_shapes(1, images, landmarks)

    def run_on_stream(self, images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return self._in_shapes(self.streams, images, landmarks)

    def _in_shapes(self, streams: int, images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Logits, computed in batches of the shapes that are compiled."""
        if self._dynamic or len(images) in self._fixed:
            return self._run(self._shape(len(images)), streams, images, landmarks)
        size = max(self._fixed)
        starts = range(0, len(images), size)
        parts = [(images[start : start + size], landmarks[start : start + size]) for start in starts]
        rows = [
            self._run(size, streams, pad_batch(part, size), pad_batch(points, size))[: len(part)] for part, points in parts
        ]
        return np.concatenate(rows)

    def _run(self, shape: int, streams: int, images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        pool = self._requests.setdefault((shape, streams), _Lazy())
        with pool.lock:
            if pool.made is None:
                several = {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": self._threads}
                compiled = self._load(shape, **(several if streams > 1 else {"PERFORMANCE_HINT": "LATENCY"}))
                pool.made = Pool([Request(compiled) for _ in range(streams)])
        with pool.made.borrow() as request:
            logits: np.ndarray = request.run(images, landmarks)[0]
            return logits

    def run_many(self, batches: Iterable[Tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        """Logits of each batch of images and landmarks, in their order; each core works at a batch of its own.

        All batches but the last are of one size. They are taken ahead: two for each of OpenVINO's streams, so that none
        waits for its next. Each call has requests of its own, on one compiled graph.
        """
        waiting = iter(batches)
        first = next(waiting, None)
        if first is None:
            return
        size = len(first[0])
        parallel = self._parallel.setdefault(size, _Lazy())
        with parallel.lock:
            if parallel.made is None:
                parallel.made = self._load(size, PERFORMANCE_HINT="THROUGHPUT")
            compiled = parallel.made
        requests = 2 * compiled.native.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        idle = [Request(compiled) for _ in range(requests)]
        busy: Deque[Tuple[Request, int]] = deque()  # and how many faces each has
        for images, landmarks in chain([first], waiting):
            if not idle:
                request, count = busy[0]
                yield request.results()[0][:count]
                idle.append(busy.popleft()[0])
            request = idle.pop()
            busy.append((request, len(images)))
            request.start(pad_batch(images, size), pad_batch(landmarks, size))
        while busy:
            request, count = busy[0]
            yield request.results()[0][:count]
            busy.popleft()

    def profile(self, images: np.ndarray, landmarks: np.ndarray, runs: int) -> List[Tuple[str, str, float]]:
        """What `runs` inferences of these faces cost in each layer: (name, kernel, seconds of one run), as executed.

        Compiled anew, with OpenVINO's own counters.
        """
        shape = self._shape(len(images))
        compiled = self._compile(shape, PERFORMANCE_HINT="LATENCY", PERF_COUNT=True)
        request = Request(Compiled(compiled, None))
        seconds: Dict[Tuple[str, str], float] = {}
        for timed in range(-1, runs):  # one untimed run first
            request.run(images, landmarks)
            for layer in request.profile() if timed >= 0 else ():
                key = (layer.node_name, f"{layer.node_type} {layer.exec_type}")
                seconds[key] = seconds.get(key, 0.0) + layer.real_time.total_seconds() / runs
        return [(name, kernel, took) for (name, kernel), took in seconds.items()]

    def compiled(self, batch: int) -> Any:
        """OpenVINO's compiled model for `batch` images; not from the cache."""
        return self._compile(self._shape(batch), PERFORMANCE_HINT="LATENCY")

    def _shape(self, batch: int) -> int:
        """The batch to compile for; -1, a dynamic one."""
        return batch if batch in self._fixed else -1

    def _load(self, batch: int, **config: Any) -> Compiled:
        if self._files is None:
            return Compiled(self._compile(batch, **config), None)
        identity = {"files": dict(self._files), "batch": batch}
        make = partial(self._compile, batch, **config)
        return cached(identity, {**self._config, **config}, make)

    def _compile(self, batch: int, **config: Any) -> Any:
        model_xml = bytes(read_unchanged(self._path, self._files))
        weights = _read_weights(self._path.with_suffix(".bin"), self._files)
        try:
            model = core(computes=True).read_model(model_xml, weights)
            model.reshape({port: [batch, *list(port.partial_shape)[1:]] for port in model.inputs})
            return core(computes=True).compile_model(model, "CPU", {**self._config, **config})
        except RuntimeError as error:  # of a file that was taken as trusted, or a processor that lacks what it needs
            raise AmpnetError(
                f"OpenVINO {load_openvino().__version__} cannot load {self._path}: {one_line(error)}; build the engine again"
            ) from error

    def close(self) -> None:
        """Free all; not while `run` or an iterator of `run_many` is in use, which `Engine` sees to."""
        self._requests.clear()
        self._parallel.clear()
