"""Accuracy and speed of engines against the PyTorch checkpoint they stand for, all in one interleaved run."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ampnet_opt import __version__
from ampnet_opt.benchmarks.power import Power, device_of, measure_power, power_notes
from ampnet_opt.benchmarks.workers import Progress, Subject, Worker, time_in_turns
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.files import size_on_disk
from ampnet_opt.core.graph_interface import IMAGE_SIDE
from ampnet_opt.core.labels import label_indices, same_classes, warn_once
from ampnet_opt.core.metrics import Accuracy, Agreement, Latency, accuracy, agreement, latency
from ampnet_opt.core.processor import available_cores, memory_available, processor_name
from ampnet_opt.core.text import shown_path
from ampnet_opt.faces.face import Face, load_batches

if TYPE_CHECKING:
    from ampnet_opt.benchmarks.detection_cost import Detected
    from ampnet_opt.detection.detector import Detector

SCORING_BATCH = 16
FACE_MEMORY = 4 * 3 * IMAGE_SIDE * IMAGE_SIDE  # bytes at least: pixels here, a copy on the way, the worker's own twice
REFERENCE = "PyTorch"
UNSTEADY = 1.5  # p90 over p50; on a quiet machine it is within a few per cent of 1
METHOD = (
    "Latency is host wall clock around one inference of a batch, inputs and logits in host memory, after warm-up; every "
    "subject runs in a process of its own and is timed in turn, in rounds.",
    "Intervals are 95 %: Wilson score for shares, percentile bootstrap over faces for macro-F1, which is taken over the "
    "classes that occur in the labels.",
    "Peak memory is the largest resident set of loading and running the timed batch, host memory only.",
)


@dataclass(frozen=True)
class Environment:
    """cpu: name; cores: that the run may use; versions: of every library that ran; date: UTC, ISO 8601."""

    cpu: str
    cores: int
    system: str
    versions: dict[str, str]
    date: str


@dataclass(frozen=True)
class Result:
    """Everything measured of one subject. size: on disk, bytes; peak_memory: bytes, None where the system does not tell.

    same_checkpoint: False for an engine that was built from another checkpoint. trained: False for seeded weights.
    power: of a section of its own; None where none was measured.
    """

    name: str
    backend: str
    precision: str
    trained: bool
    same_checkpoint: bool
    accuracy: Accuracy
    agreement: Agreement
    latency: Latency
    size: int
    peak_memory: int | None
    power: Power | None = None

    @property
    def unsteady(self) -> bool:
        """Whether other work disturbed its times."""
        return self.latency.p90 > UNSTEADY * self.latency.p50


@dataclass(frozen=True)
class Report:
    """One comparison; the first result is PyTorch's, the reference of all agreement. notes: what a reader must know.

    detected: the same with faces as a detector finds them, where that was asked for; its scores are in the results' order.
    drawn: whether the faces are drawn.
    """

    checkpoint: str
    checkpoint_sha256: str
    classes: tuple[str, ...]
    faces: int
    batch: int
    threads: int
    environment: Environment
    results: list[Result]
    notes: list[str]
    detected: Detected | None = None
    drawn: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


@dataclass(frozen=True)
class Comparison:
    """A report and what it was computed from: logits float32 [N, classes] of every result, labels int64 [N]."""

    report: Report
    logits: list[np.ndarray]
    labels: np.ndarray


def compare(
    checkpoint: Path,
    engines: Sequence[Path],
    faces: Sequence[Face],
    *,
    classes: Sequence[str] | None = None,
    patch_radius: int | None = None,
    batch: int = 1,
    threads: int | None = None,
    runs: int = 50,
    detector: Detector | None = None,
    drawn: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Measure `checkpoint` in PyTorch (eager, float32, on the CPU) and every engine on the same labelled faces.

    classes, patch_radius: of a checkpoint that carries none. batch: images per timed inference, the first faces, repeated
    if they are fewer. threads: by default all cores. runs: timed inferences of each. Accuracy is measured after the timing,
    16 faces at a time. detector: scores each subject on the faces that it finds, too. drawn: whether the faces are drawn.
    Raises MisuseError when labels or an engine's classes are not the checkpoint's, AmpnetError naming the subject that
    failed; no process is left behind either way.
    """
    require_positive(batch=batch, runs=runs, threads=1 if threads is None else threads)
    if not faces:
        raise MisuseError("there are no faces to compare on")
    require_memory(batch)
    threads = threads or available_cores()
    subjects = [
        Subject(REFERENCE, "torch", Path(checkpoint), threads, None if classes is None else tuple(classes), patch_radius),
        *engine_subjects(engines, threads),
    ]
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(subjects[0]))]
        reference = workers[0].loaded
        if reference.assumed:
            warn_once(reference.assumed)
        labels = _label_indices(faces, reference.classes)
        for subject in subjects[1:]:
            if progress:
                progress("loading", len(workers), len(subjects))
            workers.append(stack.enter_context(Worker(subject)))
            if not same_classes(workers[-1].loaded.classes, reference.classes):
                raise MisuseError(
                    f"engine {subject.path} has the classes {', '.join(workers[-1].loaded.classes)}, but checkpoint "
                    f"{checkpoint} has {', '.join(reference.classes)}; build the engine from this checkpoint"
                )
        images, landmarks = next(load_batches([faces[i % len(faces)] for i in range(batch)], batch))
        seconds = time_in_turns(workers, images, landmarks, runs, progress=progress)
        memory = [worker.peak_memory() for worker in workers]
        power = [
            _power(worker, images, landmarks, latency(taken, batch)) for worker, taken in zip(workers, seconds, strict=True)
        ]
        logits = _logits(workers, faces, progress)
        detected = None
        if detector is not None:
            from ampnet_opt.benchmarks.detection_cost import detected_scores

            def report_found(done: int) -> None:
                if progress:
                    progress("detecting", done, len(faces))

            infer = [worker.infer for worker in workers]
            detected = detected_scores(detector, faces, labels, logits, infer, batch=SCORING_BATCH, progress=report_found)
    results = [
        Result(
            worker.subject.name,
            worker.loaded.backend,
            worker.loaded.precision,
            worker.loaded.trained,
            worker.loaded.checkpoint_sha256 == reference.checkpoint_sha256,
            accuracy(found, labels, reference.classes),
            agreement(found, logits[0]),
            latency(taken, batch),
            size_on_disk(worker.subject.path),
            peak,
            energy,
        )
        for worker, found, taken, peak, energy in zip(workers, logits, seconds, memory, power, strict=True)
    ]
    report = Report(
        checkpoint=shown_path(checkpoint),
        checkpoint_sha256=reference.checkpoint_sha256,
        classes=reference.classes,
        faces=len(faces),
        batch=batch,
        threads=threads,
        environment=environment(workers),
        results=results,
        notes=[*([f"{reference.assumed}."] if reference.assumed else []), *_notes(results)],
        detected=detected,
        drawn=drawn,
    )
    return Comparison(report, logits, labels)


def engine_subjects(engines: Sequence[Path], threads: int) -> list[Subject]:
    """Engines named by their directory, and by those above it as far as it takes to tell two from each other."""
    parts = [Path(engine).resolve().parts for engine in engines]
    names = ["/".join(path[-1:]) for path in parts]
    depth = 1
    while {name for name in names if names.count(name) > 1 or name == REFERENCE} and depth < max(map(len, parts)):
        depth += 1
        names = [
            "/".join(path[-depth:]) if names.count(name) > 1 or name == REFERENCE else name
            for name, path in zip(names, parts)
        ]
    return [Subject(name, "engine", Path(engine), threads) for name, engine in zip(names, engines)]


def require_positive(**options: int) -> None:
    for name, value in options.items():
        if value < 1:
            raise MisuseError(f"{name} must be at least 1, got {value}")


def require_memory(batch: int) -> None:
    """MisuseError when a batch of so many faces is known to exceed the memory that is free."""
    needed, free = batch * FACE_MEMORY, memory_available()
    if free is not None and needed > free:
        raise MisuseError(f"a batch of {batch} takes {needed / 1e9:.1f} GB of memory or more; {free / 1e9:.1f} GB are free")


def environment(workers: Sequence[Worker]) -> Environment:
    versions = {"ampnet-opt": __version__, "python": platform.python_version(), "numpy": np.__version__}
    for worker in workers:
        versions.update(worker.loaded.versions)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Environment(processor_name(), available_cores(), platform.platform(), versions, date)


def _power(worker: Worker, images: np.ndarray, landmarks: np.ndarray, took: Latency) -> Power:
    """Of the worker's inferences alone, while the others wait."""
    device = device_of(worker.loaded.backend)
    return measure_power(lambda count: worker.time(images, landmarks, 0, count), took.p50 / 1e3, len(images), device)


def _label_indices(faces: Sequence[Face], classes: Sequence[str]) -> np.ndarray:
    """Labels as int64 [N] places in `classes`, by name."""
    return np.array(label_indices(classes, [face.label for face in faces]), np.int64)


def _logits(workers: Sequence[Worker], faces: Sequence[Face], progress: Progress | None) -> list[np.ndarray]:
    """Logits float32 [N, classes] of every worker; each batch of faces is read once."""
    parts: list[list[np.ndarray]] = [[] for _ in workers]
    done = 0
    for images, landmarks in load_batches(faces, SCORING_BATCH):
        for part, worker in zip(parts, workers, strict=True):
            part.append(worker.infer(images, landmarks))
        done += len(images)
        if progress:
            progress("scoring", done, len(faces))
    return [np.concatenate(part) for part in parts]


def _notes(results: Sequence[Result]) -> list[str]:
    notes = []
    untrained = [result.name for result in results if not result.trained]
    if untrained:
        notes.append(
            f"Untrained (seeded) weights: {', '.join(untrained)}. Their accuracy means nothing; agreement and speed do."
        )
    notes += [f"{r.name} was built from another checkpoint than this one." for r in results if not r.same_checkpoint]
    unsteady = [result.name for result in results if result.unsteady]
    if unsteady:
        notes.append(f"Unsteady times: {', '.join(unsteady)}. Other work was probably running; measure again without it.")
    return [*notes, *power_notes([(result.name, result.power) for result in results]), *METHOD]
