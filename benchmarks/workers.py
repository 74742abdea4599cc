"""Every measured subject in a process of its own: its own peak memory, its own threads, and nothing of the others loaded.

A worker is `serve()` in a fresh interpreter (see ampnet_opt.core.children). The imports here stay lean: an engine's process
loads the runtime and its backend, and no torch.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Literal, Sequence

import numpy as np

from ampnet_opt.core.children import Child, answer_requests
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.graph_interface import IMAGE_SIDE

if TYPE_CHECKING:
    from ampnet_opt.benchmarks.pipeline_passes import Pass, PipelineRequest, RunningPipeline
    from ampnet_opt.runtime import Engine

Kind = Literal["torch", "engine", "onnxruntime", "pipeline"]
Infer = Callable[[np.ndarray, np.ndarray], np.ndarray]
Progress = Callable[[str, int, int], None]  # (what is being done, steps done, steps in all)

WARM_UP = 3  # untimed runs before the first round
# Seconds before each turn. Idle threads of PyTorch and ONNX Runtime keep a core busy for milliseconds in the next turn. With
# no pause, FP32 and BF16 of the small network in OpenVINO took 1.3 times as long; with 0.2 they take as long as with this.
PAUSE = 0.05
TURN = 5  # timed runs of one subject before the next one's turn, after one untimed run that refills the caches


@dataclass(frozen=True)
class Subject:
    """What a worker measures: a checkpoint in PyTorch ("torch"), an engine directory, alone or with the pipeline round it,
    or an ONNX graph with uint8 images.

    threads: for one inference. classes, patch_radius: for a checkpoint that carries none.
    """

    name: str
    kind: Kind
    path: Path
    threads: int
    classes: tuple[str, ...] | None = None
    patch_radius: int | None = None


@dataclass(frozen=True)
class Loaded:
    """What a worker found when it loaded its subject.

    versions: of the libraries that run it, by name. assumed: see `ampnet_opt.network.checkpoint.Checkpoint`.
    """

    backend: str
    precision: str
    classes: tuple[str, ...]
    trained: bool
    checkpoint_sha256: str
    versions: dict[str, str] = field(default_factory=dict)
    assumed: str = ""


# --- the parent's side -------------------------------------------------------------------------------------------


class Worker:
    """A process that has loaded a subject. A context manager; leaving it ends the process, whatever it is doing.

    Every method raises AmpnetError (MisuseError where the subject's loader does) that names the subject when the worker
    fails or dies.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._child = Child(__name__)
        try:
            self.loaded: Loaded = self._ask("load", subject)
        except BaseException:
            self.close()
            raise

    def infer(self, images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Logits float32 [N, classes] of images uint8 [N, 224, 224, 3] and landmarks float32 [N, 5, 2]."""
        logits: np.ndarray = self._ask("infer", images, landmarks)
        if not np.isfinite(logits).all():
            raise AmpnetError(
                f"{self.subject.name} gave logits that are not finite; its precision does not hold this network"
            )
        return logits

    def time(self, images: np.ndarray, landmarks: np.ndarray, untimed: int, timed: int) -> list[float]:
        """Wall-clock seconds of each of `timed` inferences of the same faces, after `untimed` ones."""
        return self._ask("time", images, landmarks, untimed, timed)

    def time_many(self, count: int) -> float:
        """Wall-clock seconds of `count` random faces, one after another, by an engine's `infer_each`."""
        return self._ask("time_many", count)

    def run_pipeline(self, request: PipelineRequest) -> Pass:
        """One pass of a subject of the kind "pipeline"."""
        found: Pass = self._ask("run_pipeline", request)
        return found

    def peak_memory(self) -> int | None:
        """Largest resident set so far, in bytes; None where the system does not tell."""
        return self._ask("peak_memory")

    def close(self) -> None:
        self._child.close()

    def _ask(self, action: str, *arguments: Any) -> Any:
        try:
            return self._child.ask((action, arguments))
        except AmpnetError as error:
            kind = MisuseError if isinstance(error, MisuseError) else AmpnetError
            raise kind(f"{self.subject.name} could not be measured: {error}") from error

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def started(stack: ExitStack, subjects: Sequence[Subject], progress: Progress | None) -> Iterator[Worker]:
    """A worker for each subject, one after the other, which `stack` ends. progress: told of those before."""
    for number, subject in enumerate(subjects):
        if progress:
            progress("loading", number, len(subjects))
        yield stack.enter_context(Worker(subject))


def time_in_turns(
    workers: Sequence[Worker],
    images: np.ndarray,
    landmarks: np.ndarray,
    runs: int,
    *,
    progress: Progress | None = None,
    at_least: float = 0,
) -> list[list[float]]:
    """Seconds of `runs` inferences of the same faces by every worker, in the workers' order; more when those together took
    less than `at_least` seconds.

    Rounds in which each has its turn, every other round backwards, so that a processor that slows down or a neighbour that
    wakes up meets all of them alike.
    """
    seconds: list[list[float]] = [[] for _ in workers]
    for worker in workers:
        worker.time(images, landmarks, WARM_UP, 0)
    order = list(range(len(workers)))
    started, done = time.perf_counter(), 0
    while done < runs or time.perf_counter() - started < at_least:
        count = min(TURN, runs - done) if done < runs else TURN
        for i in order:
            time.sleep(PAUSE)
            seconds[i] += workers[i].time(images, landmarks, 1, count)
        order.reverse()
        done += count
        if progress:
            progress("timing", done, max(done, runs))
    return seconds


def random_faces(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Seeded noise uint8 [count, 224, 224, 3] and landmarks float32 [count, 5, 2] in its inner half.

    What a network computes, and how long, does not depend on them.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
    return images, rng.uniform(0.25 * IMAGE_SIDE, 0.75 * IMAGE_SIDE, (count, 5, 2)).astype(np.float32)


# --- the worker's side -------------------------------------------------------------------------------------------


def serve() -> None:
    """Answer requests: first to load a subject, then what to do with it."""
    running: Running | RunningPipeline | None = None

    def handle(request: tuple[str, tuple[Any, ...]]) -> Any:
        nonlocal running
        action, arguments = request
        if action == "load":
            running, loaded = LOADERS[arguments[0].kind](arguments[0])
            return loaded
        if action == "peak_memory":
            return peak_memory()
        assert running is not None
        return getattr(running, action)(*arguments)

    answer_requests(handle)


@dataclass(frozen=True)
class Running:
    """A loaded subject. infer: logits of images and landmarks; infer_each: an engine's, for many faces."""

    infer: Infer
    infer_each: Callable[[Iterable[tuple[np.ndarray, np.ndarray]]], Iterable[np.ndarray]] | None = None

    def time(self, images: np.ndarray, landmarks: np.ndarray, untimed: int, timed: int) -> list[float]:
        return time_runs(self.infer, images, landmarks, untimed, timed)

    def time_many(self, count: int) -> float:
        assert self.infer_each is not None
        images, landmarks = random_faces(16)
        faces = islice(cycle(zip(images, landmarks)), count)
        start = time.perf_counter()
        for _ in self.infer_each(faces):
            pass
        return time.perf_counter() - start


def time_runs(
    infer: Callable[[np.ndarray, np.ndarray], object], images: np.ndarray, landmarks: np.ndarray, untimed: int, timed: int
) -> list[float]:
    """Wall-clock seconds of each of `timed` inferences of the same faces, after `untimed` ones."""
    for _ in range(untimed):
        infer(images, landmarks)
    seconds = []
    for _ in range(timed):
        start = time.perf_counter()
        infer(images, landmarks)
        seconds.append(time.perf_counter() - start)
    return seconds


def _load_torch(subject: Subject) -> tuple[Running, Loaded]:
    import torch

    from ampnet_opt.network.checkpoint import read_checkpoint

    torch.set_num_threads(subject.threads)
    checkpoint = read_checkpoint(subject.path, subject.classes, subject.patch_radius)
    model = checkpoint.model

    @torch.inference_mode()
    def infer(images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        pictures = torch.from_numpy(images).permute(0, 3, 1, 2).float() * (1 / 255)
        return model(pictures, torch.from_numpy(landmarks)).numpy()

    versions = {"torch": str(torch.__version__)}  # a plain str: a TorchVersion would load torch in the parent
    about = (checkpoint.classes, checkpoint.trained, checkpoint.sha256, versions, checkpoint.assumed)
    return Running(infer), Loaded("torch", "fp32", *about)


def _load_engine(subject: Subject) -> tuple[Running, Loaded]:
    engine, loaded = _open_engine(subject)
    return Running(engine.infer, engine.infer_each), loaded


def _load_pipeline(subject: Subject) -> tuple[RunningPipeline, Loaded]:
    from ampnet_opt.benchmarks.pipeline_passes import RunningPipeline

    engine, loaded = _open_engine(subject)
    return RunningPipeline(engine), loaded


def _open_engine(subject: Subject) -> tuple[Engine, Loaded]:
    from ampnet_opt.runtime import Engine
    from ampnet_opt.runtime.backend import find_backend
    from ampnet_opt.runtime.sidecar import parse_sidecar

    backend = find_backend(parse_sidecar(subject.path).backend)
    engine = Engine.load(subject.path, subject.threads if backend.device == "cpu" else None)  # a GPU takes no number
    made = engine.sidecar
    versions = {backend.module: str(sys.modules[backend.module].__version__)}
    return engine, Loaded(made.backend, made.precision, tuple(made.classes), made.trained, made.checkpoint_sha256, versions)


def _load_onnxruntime(subject: Subject) -> tuple[Running, Loaded]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = subject.threads
    session = onnxruntime.InferenceSession(str(subject.path), options, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map

    def infer(images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return session.run(None, {"image": images, "landmarks": landmarks})[0]

    return Running(infer), Loaded(
        "onnxruntime",
        "fp32",
        tuple(json.loads(about["classes"])),
        json.loads(about["trained"]),
        about["checkpoint_sha256"],
        {"onnxruntime": onnxruntime.__version__},
    )


LOADERS: dict[str, Callable[[Subject], tuple[Running | RunningPipeline, Loaded]]] = {
    "torch": _load_torch,
    "engine": _load_engine,
    "onnxruntime": _load_onnxruntime,
    "pipeline": _load_pipeline,
}


def peak_memory() -> int | None:
    """Largest resident set of this process so far, in bytes; None where the system does not tell."""
    try:
        # Linux: unlike ru_maxrss, this does not start at the size of the process that forked us.
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
