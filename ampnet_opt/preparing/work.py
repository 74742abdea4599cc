"""One picture after another, in several processes; outcomes come back in the order of the pictures."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import threading
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Generator, Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from ampnet_opt.datasets.picture import Picture
from ampnet_opt.detector import Detection, Detector, load_detector
from ampnet_opt.errors import AmpnetError
from ampnet_opt.faces import fit
from ampnet_opt.files import PathLike, new_file
from ampnet_opt.preparing.crop import crop, implausible
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
    # spawn: OpenCV's threads and a caller's CUDA do not survive a fork.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (settings,))
    try:
        for task in tasks:
            with _interrupts_later():
                waiting.append(pool.submit(_work, task))
            if len(waiting) >= workers * AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise AmpnetError(
            "a process that looked for faces died (is there too little memory?); the same command goes on from there, "
            "and fewer workers need less"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _interrupts_later() -> Iterator[None]:
    """Processes started in this block inherit that Ctrl-C is not for them; one pressed meanwhile comes after it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_settings: Settings
_detector: Detector | None = None


def _begin(settings: Settings) -> None:
    """Runs once in each process."""
    global _settings, _detector
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for Windows, which has no masks to inherit
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _settings = settings
    _detector = load_detector(settings.detector) if settings.needs_detector else None


def _leave_with_parent() -> None:
    """A killed parent cannot stop its processes, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(task: Task) -> Outcome:
    picture = task.picture
    try:
        image, size = picture.read()
    except AmpnetError as error:
        return Outcome(picture.name, reason=UNREADABLE, detail=str(error))
    if picture.landmarks is not None and not _settings.crop:
        return Outcome(picture.name, [_write(task, task.stem, "", *fit(image, picture.landmarks, size))])
    assert _detector is not None
    found = _detector.detect(image)
    if not found:
        return Outcome(picture.name, reason=NO_FACE)
    wanted = found if _settings.faces == "all" else found[:1]
    good = [face for face in wanted if not implausible(face)]
    if not good:  # also when a smaller face would do: the label is the largest one's
        return Outcome(picture.name, reason=IMPLAUSIBLE, detail=implausible(wanted[0]), several=len(found) > 1)
    rows = [_write_face(task, number, image, face) for number, face in enumerate(good, 1)]
    return Outcome(picture.name, rows, several=len(found) > 1)


def _write_face(task: Task, number: int, image: np.ndarray, face: Detection) -> list[str]:
    # "+" is in no stem, so this is no other picture's name.
    stem = task.stem if number == 1 else f"{task.stem}+{number}"
    made = crop(image, face.box, face.landmarks) if _settings.crop else fit(image, face.landmarks)
    return _write(task, stem, f"{face.score:.3f}", *made)


def _write(task: Task, stem: str, score: str, image: np.ndarray, landmarks: np.ndarray) -> list[str]:
    """Write one image, whole or not at all, and make its row of the table."""
    target = _settings.images / f"{stem}.jpg"
    with new_file(target) as temporary:
        Image.fromarray(image).save(temporary, "JPEG", quality=95)
    return [target.name, task.picture.label, task.picture.split, score, *(f"{value:.2f}" for value in landmarks.ravel())]
