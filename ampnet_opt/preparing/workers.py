"""One picture after another, in several processes; outcomes come back in the order of the pictures."""

from __future__ import annotations

import re
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Generator, Iterable, Sequence

import numpy as np
from PIL import Image

from ampnet_opt.core.children import Child, Died, answer_requests
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import PathLike, new_file
from ampnet_opt.core.text import printable
from ampnet_opt.datasets.labelled_picture import Picture
from ampnet_opt.detection.detector import Detector, load_detector
from ampnet_opt.faces.detection import Detection
from ampnet_opt.faces.face import fit
from ampnet_opt.faces.landmark_checks import impossible
from ampnet_opt.preparing.crop import crop, cut_fault, implausible, square_of
from ampnet_opt.preparing.journal import Outcome

UNREADABLE, NO_FACE, IMPLAUSIBLE = "cannot be read", "no face found", "implausible landmarks"
AHEAD = 4  # pictures handed out per process, so that none waits and no more are in memory
LONGEST_NAME = 100  # characters of a file name, well below what file systems take


@dataclass(frozen=True)
class Settings:
    """images: the folder to write to; the others as `prepare` takes them."""

    images: Path
    needs_detector: bool
    detector: PathLike | None
    detector_backend: str | None
    crop: bool
    faces: str


@dataclass(frozen=True)
class Task:
    """stem: the name of its image without .jpg."""

    picture: Picture
    stem: str


def name_files(pictures: Iterable[Picture]) -> list[str]:
    """A file name for each picture, without suffix: ASCII letters, digits and ._- only, unique where case does not count."""
    stems: list[str] = []
    used: set[str] = set()
    for picture in pictures:
        bare = re.sub(r"\.\w{1,5}$", "", picture.name)
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", bare)[-LONGEST_NAME:].lstrip(".-") or "picture"
        stem, number = safe, 1
        while stem.lower() in used:
            number += 1
            stem = f"{safe}_{number}"
        used.add(stem.lower())
        stems.append(stem)
    return stems


def outcomes(tasks: Sequence[Task], settings: Settings, workers: int) -> Generator[Outcome, None, None]:
    """What becomes of each task, in order. Raises AmpnetError when an image cannot be written or a process dies."""
    waiting: deque[Future[Outcome]] = deque()
    workers = min(workers, len(tasks))
    if not tasks:
        return
    # Fresh processes: the threads of the detector's runtime and a caller's CUDA do not survive a fork. A thread waits for
    # each.
    idle: SimpleQueue[Child] = SimpleQueue()
    children: list[Child] = []
    threads = ThreadPoolExecutor(workers)
    try:
        for _ in range(workers):
            children.append(Child(__name__))
            idle.put(children[-1])
        for task in tasks:
            waiting.append(threads.submit(_ask, idle, settings, task))
            if len(waiting) >= workers * AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except Died as error:
        raise AmpnetError(
            "a process that looked for faces died (is there too little memory?); the same command resumes, "
            "and fewer workers need less"
        ) from error
    finally:
        for child in children:
            child.close()
        threads.shutdown(cancel_futures=True)


def _ask(idle: SimpleQueue[Child], settings: Settings, task: Task) -> Outcome:
    child = idle.get()
    try:
        outcome: Outcome = child.ask((settings, task))
        return outcome
    finally:
        idle.put(child)


_settings: Settings
_detector: Detector | None = None


def serve() -> None:
    """In each process: take pictures until the parent ends."""
    begun = False

    def handle(request: tuple[Settings, Task]) -> Outcome:
        nonlocal begun
        settings, task = request
        if not begun:
            _begin(settings)
            begun = True
        return _work(task)

    answer_requests(handle)


def _begin(settings: Settings) -> None:
    """Runs once in each process."""
    global _settings, _detector
    _settings = settings
    if settings.needs_detector:
        _detector = load_detector(settings.detector, backend=settings.detector_backend, threads=1)


def _work(task: Task) -> Outcome:
    picture, name = task.picture, printable(task.picture.name)  # the journal takes text alone, which not every name is
    try:
        image, size = picture.read()
    except AmpnetError as error:
        return Outcome(name, reason=UNREADABLE, detail=str(error))
    if picture.landmarks is not None and not _settings.crop:
        fitted = fit(image, picture.landmarks, size)
        fault = impossible(picture.landmarks[None], np.array([size], float))[0] or cut_fault(fitted[1])
        if fault:
            return Outcome(name, reason=IMPLAUSIBLE, detail=fault)
        return Outcome(name, [_write(task, *fitted, stem=task.stem, score="", size=size, square=None)])
    assert _detector is not None
    found = _detector.detect(image)
    if not found:
        return Outcome(name, reason=NO_FACE)
    wanted = found if _settings.faces == "all" else found[:1]
    good, faults = [], []
    for face in wanted:
        fault = implausible(face)
        if not fault:
            cut = _cut(image, size, face)
            fault = cut_fault(cut[1])
            if not fault:
                good.append((face, cut))
        faults.append(fault)
    if not good:  # also when a smaller face would do: the label is the largest one's
        return Outcome(name, reason=IMPLAUSIBLE, detail=faults[0], several=len(found) > 1)
    rows = []
    for number, (face, (pixels, landmarks, square)) in enumerate(good, 1):
        stem = task.stem if number == 1 else f"{task.stem}+{number}"  # "+" is in no stem, so this is no other picture's name
        score = f"{face.score:.3f}"
        rows.append(_write(task, pixels, landmarks, stem=stem, score=score, size=size, square=square))
    return Outcome(name, rows, several=len(found) > 1)


def _cut(
    image: np.ndarray, size: tuple[int, int], face: Detection
) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int] | None]:
    """A face's picture of 224 x 224 and its landmarks, and what square of the whole picture it is: None, all of it."""
    if not _settings.crop:
        return (*fit(image, face.landmarks), None)
    scale = size[0] / image.shape[1]  # of a large picture that was scaled down as it was read
    left, top, side = (round(value * scale) for value in square_of(face.box))
    return (*crop(image, face.box, face.landmarks), (left, top, side))


def _write(
    task: Task,
    image: np.ndarray,
    landmarks: np.ndarray,
    *,
    stem: str,
    score: str,
    size: tuple[int, int],
    square: tuple[int, int, int] | None,
) -> list[str]:
    """Write one image, whole or not at all, and make its row of the table.

    size: (width, height) of the picture that it comes from; square: what was cut out of that, None for all.
    """
    target = _settings.images / f"{stem}.jpg"
    with new_file(target, durable=False) as temporary:
        Image.fromarray(image).save(temporary, "JPEG", quality=95)
    left, top, side = square or ("", "", "")
    points = [f"{value:.2f}" for value in landmarks.ravel()]
    sizes = [*image.shape[1::-1], printable(task.picture.name), *size, left, top, side, side]
    return [target.name, printable(task.picture.label), task.picture.split, score, *points, *map(str, sizes)]
