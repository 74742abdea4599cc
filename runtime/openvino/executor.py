"""Computes with OpenVINO: its one Core, inference requests, compiled models and their cache, and the executor of engines."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import mmap
import os
import sys
import threading
from collections import deque
from functools import lru_cache, partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import (
    Any,
    BinaryIO,
    Callable,
    Collection,
    Deque,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np

from ampnet_opt.core.cache import DIGEST, UnsafeCache, cache_folder, forget_oldest, hashed_file, new_hashed_file
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.graph_interface import INPUTS
from ampnet_opt.core.installing import install_command
from ampnet_opt.core.lifetime import free, keep_in_children
from ampnet_opt.core.processor import available_cores, is_arm
from ampnet_opt.core.text import one_line
from ampnet_opt.runtime import backend
from ampnet_opt.runtime.backend import pad_batch
from ampnet_opt.runtime.pool import Pool
from ampnet_opt.runtime.sidecar import Sidecar, read_unchanged

log = logging.getLogger(__name__)

MODEL = "engine.xml"
NEWEST = 9  # compiled models that are kept whatever their size: three each of the engines in use
LARGEST_CACHE = 1 << 30  # bytes; a compiled model is as large as its engine
MOST_STREAMS = 4  # each has its own memory for activations
# Engine precision -> arithmetic of its float part.
ARITHMETIC = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}


def load_openvino() -> Any:
    """The openvino module, or AmpnetError that says how to get it."""
    try:
        with _without_telemetry():
            import openvino
    except ImportError as error:
        raise AmpnetError(f"the cpu backend needs OpenVINO ({error}); install it with: {install_command('cpu')}") from error
    return openvino


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """Hides a module that OpenVINO can do without: with it, importing OpenVINO reports to a web service, without being
    asked, from a process forked beside running threads, which may hang for ever.
    """
    modules: Dict[str, Any] = sys.modules
    hidden = "openvino_telemetry" not in modules
    if hidden:
        modules["openvino_telemetry"] = None  # an import of it fails
    try:
        yield
    finally:
        if hidden:
            modules.pop("openvino_telemetry", None)


class _Core:
    """OpenVINO's Core, and the process in which it began to compute, with threads that a fork does not copy."""

    def __init__(self) -> None:
        self.native = load_openvino().Core()
        self.computes_in: Optional[int] = None
        keep_in_children(self)


@lru_cache(maxsize=None)
def _core() -> _Core:
    """One, until the process ends: after two were freed, the next signal ends the process (2026.4)."""
    return _Core()


def core(computes: bool = False) -> Any:
    """OpenVINO's Core. computes: what it is asked for starts threads.

    Raises AmpnetError in a forked child where it computed in the parent: it then works as long as no other thread was in
    OpenVINO at the fork, and hangs else (seen in 2 of 25 children).
    """
    own = _core()
    if own.computes_in not in (None, os.getpid()):
        raise AmpnetError(
            "OpenVINO was in use before this process was forked, and may hang here: start processes with multiprocessing's "
            "spawn method, or load engines in the children alone"
        )
    if computes:
        own.computes_in = os.getpid()
    return own.native


def open_executor(directory: Path, sidecar: Sidecar, threads: Optional[int]) -> Executor:
    return Executor(directory / MODEL, sidecar.precision, threads, {1, sidecar.batch.opt}, files=sidecar.files)


class Request:
    """An infer request, used by one thread at a time.

    names: of the inputs. memory: what its compiled model reads, if that is mapped: it must outlive the request, whoever
    frees what first.
    """

    def __init__(self, compiled: Compiled, names: Sequence[str] = INPUTS) -> None:
        self._names = names
        self._native = compiled.native.create_infer_request()
        self._memory = compiled.memory
        self._inputs: Optional[Tuple[np.ndarray, ...]] = None  # of the inference that runs, which reads them

    def run(self, *values: np.ndarray, outputs: Sequence[Union[int, str]] = (0,)) -> List[np.ndarray]:
        """The outputs that have these names or places, of contiguous inputs."""
        try:
            self.start(*values)
            return self.results(outputs)
        finally:
            self.wait()

    def start(self, *values: np.ndarray) -> None:
        """Begin an inference; the arrays are read in place until `results` or `wait` returns."""
        self.wait()  # for one that Ctrl-C left running
        # Tensors over our own memory, and one copy out: the request's convenience call costs a tenth of a millisecond.
        self._inputs = tuple(map(_writable, values))
        for name, value in zip(self._names, self._inputs):
            self._native.set_tensor(name, load_openvino().Tensor(value, shared_memory=True))
        self._native.start_async()

    def results(self, outputs: Sequence[Union[int, str]] = (0,)) -> List[np.ndarray]:
        """Wait for an inference, and copy its outputs."""
        try:
            self._native.wait()
        except RuntimeError as error:
            raise AmpnetError(f"OpenVINO failed to compute: {one_line(error)}") from error
        self._inputs = None
        get = self._native.get_tensor
        return [(self._native.get_output_tensor(one) if isinstance(one, int) else get(one)).data.copy() for one in outputs]

    def wait(self) -> None:
        """Until nothing reads the inputs."""
        if self._inputs is not None:
            with contextlib.suppress(RuntimeError):
                self._native.wait()
            self._inputs = None

    def profile(self) -> List[Any]:
        """OpenVINO's counters of the last inference, layer by layer."""
        return list(self._native.profiling_info)

    def __del__(self) -> None:
        if hasattr(self, "_native"):
            free(self.__dict__, "_native", self.wait)  # before the memory


def _writable(values: np.ndarray) -> np.ndarray:
    """The same memory, as an array that says it may be written to: OpenVINO takes no other, but only reads its inputs."""
    return values if values.flags.writeable else np.asarray(_SameMemory(values))


class _SameMemory:
    def __init__(self, values: np.ndarray) -> None:
        self._values = values  # kept alive
        about = values.__array_interface__
        self.__array_interface__ = {**about, "data": (about["data"][0], False)}


class Compiled:
    """A compiled model, and the memory that it reads, which is freed after it."""

    def __init__(self, native: Any, memory: Any) -> None:
        self.native, self.memory = native, memory

    def __del__(self) -> None:
        if hasattr(self, "native"):
            free(self.__dict__, "native", lambda: None)


def _read_weights(path: Path, files: Optional[Mapping[str, str]]) -> Any:
    """A file as `read_unchanged`, in a Tensor of OpenVINO's own, which is freed with the last constant that needs it."""
    openvino, tensors = load_openvino(), []

    def allocate(size: int) -> np.ndarray:
        tensors.append(openvino.Tensor(openvino.Type.u8, openvino.Shape([size])))
        memory: np.ndarray = tensors[-1].data
        return memory

    read_unchanged(path, files, allocate)
    return tensors[0]


def _cached(identity: Mapping[str, Any], config: Dict[str, Any], make: Callable[[], Any]) -> Compiled:
    """The model that `make()` compiles, from the cache where it is there; put there, where that can be written, if not.

    OpenVINO keeps compiled models itself, when told to, but knows them by their contents: it reads the whole engine beside
    the compiled model. Here an engine is known by the hashes in its sidecar, and what is kept is read alone. A file has its
    own hash, because OpenVINO does not notice damage and would answer with it.

    identity: what tells the engine and its shapes from others, as JSON. The library's version, the processor and `config`
    are told apart as well. What cannot be read, or is damaged, is made again and replaced. A folder that others may write
    to is not used, which a warning says.
    """
    try:
        folder = cache_folder("openvino")
    except AmpnetError as error:
        if isinstance(error, UnsafeCache):
            _warn_once(str(error))
        return Compiled(make(), None)
    openvino, able = load_openvino(), core(computes=True)
    processor = [able.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    key = json.dumps([identity, config, openvino.__version__, processor], sort_keys=True, default=str)
    path = folder / f"{sha256(key.encode()).hexdigest()[:32]}.blob"
    with contextlib.suppress(RuntimeError, OSError):
        return _read_compiled(path, config)
    compiled = make()
    with contextlib.suppress(AmpnetError):
        _keep(compiled, path)
    return Compiled(compiled, None)


@lru_cache(maxsize=None)
def _warn_once(reason: str) -> None:
    log.warning("compiled models are not cached: %s", reason)


def _read_compiled(path: Path, config: Dict[str, Any]) -> Compiled:
    """The compiled model of a file and the memory that it reads. Raises OSError and RuntimeError."""
    with hashed_file(path) as file:
        # Copy-on-write because OpenVINO takes no memory that is read-only; it does not write to a model's constants. The
        # file stays as it was hashed: only this user may write to it, and files are replaced here, never changed.
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    mapped = np.frombuffer(pages, np.uint8)[:-DIGEST]
    able = core(computes=True)
    with contextlib.suppress(TypeError):  # older versions take a copy alone
        compiled = Compiled(able.import_model(load_openvino().Tensor(mapped, shared_memory=True), "CPU", config), mapped)
        if hasattr(mmap, "MADV_DONTNEED"):
            # Most weights were copied into the order that kernels want, and are not read again; what is, is read from the
            # file again. Saves the engine's size in memory.
            pages.madvise(mmap.MADV_DONTNEED)
        return compiled
    return Compiled(able.import_model(io.BytesIO(mapped.tobytes()), "CPU", config), None)


def _keep(compiled: Any, path: Path) -> None:
    """Write a compiled model, and forget the oldest. Raises AmpnetError when it cannot be written."""
    with new_hashed_file(path) as file:
        straight = _Straight(file)
        compiled.export_model(straight)
        if straight.failure:
            raise straight.failure
    forget_oldest(path.parent, "*.blob", LARGEST_CACHE, NEWEST)


class _Straight(io.BytesIO):
    """What is written goes to a file at once: OpenVINO exports into a BytesIO alone, which would be one more copy.

    failure: of a write, Ctrl-C included. OpenVINO would not pass it on.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.failure: Optional[BaseException] = None

    def write(self, content: Any) -> int:
        try:
            return self._file.write(content)
        except BaseException as error:
            self.failure = self.failure or error
            raise

    def seek(self, place: int, whence: int = 0) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()


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
        self._config: Dict[str, Any] = {"INFERENCE_PRECISION_HINT": ARITHMETIC[precision]}
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads
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
        return _cached(identity, {**self._config, **config}, make)

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
