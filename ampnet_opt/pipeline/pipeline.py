"""Frames in, faces and their expressions out: `Pipeline(engine, detector).frames(source)`.

from ampnet_opt.detection.detector import load_detector
from ampnet_opt.pipeline.pipeline import Pipeline
from ampnet_opt.pipeline.sources import open_source
from ampnet_opt.runtime import Engine

with Engine.load("engines/cpu-int8") as engine, open_source("clip.mp4") as source:
    for result in Pipeline(engine, load_detector(video=True)).frames(source):
        for face in result.faces:
            print(result.frame.time, face.track, engine.classes[face.label], face.smoothed[face.label])
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.metrics import softmax
from ampnet_opt.detection.detector import Detector
from ampnet_opt.faces.detection import Detection
from ampnet_opt.pipeline.frames import Frame, FrameResult, TrackedFace
from ampnet_opt.pipeline.smoothing import Smoother
from ampnet_opt.pipeline.sources import Source
from ampnet_opt.pipeline.stages import Ahead, begun_ahead
from ampnet_opt.pipeline.tracking import Tracker
from ampnet_opt.preparing.crop import crop, implausible
from ampnet_opt.runtime import Engine
from ampnet_opt.runtime.backend import find_backend

SMOOTH = 0.4  # seconds
MIN_FACE = 40  # pixels: in smaller faces the network, made for 224, sees little
READ_AHEAD, WORK_AHEAD = 4, 2  # frames of a file that wait for the next stage; of a live source one
_Timed = Tuple[np.ndarray, float, float]  # logits of an inference, and the seconds when it began and ended


@dataclass
class _Found:
    """A frame on its way: faces with the numbers of their tracks, None in a picture; those that are not classified."""

    frame: Frame
    faces: List[Detection]
    tracks: List[Optional[int]]
    ended: List[int]
    seconds: Dict[str, float]
    rejected: List[Tuple[Detection, str]] = field(default_factory=list)
    logits: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))


@dataclass
class _Begun:
    """A frame whose faces are being classified."""

    frame: _Found
    inferences: List[Future[_Timed]]

    def result(self) -> _Found:
        return _answered(self.frame, [inference.result() for inference in self.inferences])

    def cancel(self) -> None:
        for inference in self.inferences:
            inference.cancel()


class Pipeline:
    """Finds the faces of each frame, follows them, and classifies their expressions.

    Reading, detecting and classifying run beside each other, each in a thread; on a CPU, faces of a file are classified
    several at a time (`Engine.infer_on_stream`). A frame of a file is never dropped; of a live source the newest is taken,
    and at most one frame waits between two stages.

    In a picture every face is sought at any size, as `ampnet-opt prepare` does. Frames of a video are searched once, at the
    size that `min_face` needs; faces get the number of a track, and probabilities are smoothed over it.
    """

    def __init__(
        self, engine: Engine, detector: Detector, *, smooth: float = SMOOTH, every: int = 1, min_face: float = MIN_FACE
    ) -> None:
        """
        Args:
            engine: loaded; it stays the caller's to close.
            detector: likewise.
            smooth: time constant in seconds of the average over a track; 0 turns it off.
            every: faces are detected in every such frame, and followed in those between.
            min_face: the smallest face to find in a video, longer side in pixels.

        Raises:
            MisuseError: a number is out of range.
        """
        if every < 1:
            raise MisuseError(f"faces are detected in every 1st, 2nd, ... frame, not every {every}")
        if not min_face >= 1:
            raise MisuseError(f"the smallest face is 1 pixel or more, not {min_face}")
        self._engine, self._detector = engine, detector
        self._smooth, self._every, self._min_face = smooth, every, min_face
        on_cpu = find_backend(engine.sidecar.backend).device == "cpu"
        self._at_once = engine.sidecar.batch.opt if on_cpu else None
        Smoother(smooth, len(engine.classes))  # refuses what is no number of seconds

    def frames(self, source: Source) -> Iterator[FrameResult]:
        """Each frame of a source with its faces, in order. Closing the iterator ends all stages, and the source.

        Raises:
            MisuseError, AmpnetError: as the source, the detector and the engine do, after the frames before.
        """
        # Of a live source the newest frame counts, and the time of one; pictures may be hundreds of megabytes each.
        streams = 1 if source.live else self._engine.streams
        read, work, begun = (1, 1, 1) if source.live or source.still else (READ_AHEAD, WORK_AHEAD, streams)
        reading: Iterator[Tuple[Frame, float]] = _read(source)
        stop = source.close
        if not source.live:  # which reads in a thread of its own
            reading = ahead = Ahead(reading, read, name="capture", stop=stop)
            stop = ahead.close
        found = Ahead(self._detect(reading), work, name="detect", stop=stop)
        classified = Ahead(self._classify(found, streams, begun), work, name="infer", stop=found.close)
        smoother = Smoother(self._smooth, len(self._engine.classes))
        with closing(source), closing(classified):
            for one in classified:
                yield self._result(one, smoother)

    def picture(self, frame: Frame) -> FrameResult:
        """The faces of one picture, as `frames` gives them for pictures, without threads of its own. For callers that have
        their own threads or processes.

        Args:
            frame: with a name, which tells a picture from a frame of a video.

        Raises:
            MisuseError: the frame has no name, or as the detector and the engine do.
            AmpnetError: as the detector and the engine do.
        """
        if not frame.name:
            raise MisuseError("a picture has a name; frames of a video go through frames()")
        (found,) = self._classify(self._detect(iter([(frame, 0.0)])))
        return self._result(found, Smoother(0, len(self._engine.classes)))

    def _detect(self, frames: Iterator[Tuple[Frame, float]]) -> Iterator[_Found]:
        tracker, video = Tracker(self._detector.threshold), 0
        for frame, reading in frames:
            seconds, start = {"capture": reading}, time.perf_counter()
            faces: List[Detection]
            tracks: List[Optional[int]]
            if frame.name:
                faces, ended = self._detector.search(frame.image), []
                tracks = [None] * len(faces)
            elif video % self._every == 0:
                expected = [face.box for _, face in tracker.follow(frame.time)]
                found = self._detector.search(frame.image, min_face=self._min_face, expected=expected)
                numbers = tracker.update(found, frame.time, frame.image)
                kept = [(face, number) for face, number in zip(found, numbers) if number is not None]
                faces, tracks, ended = [face for face, _ in kept], [number for _, number in kept], tracker.ended
            else:
                followed, ended = tracker.follow(frame.time), []
                faces, tracks = [face for _, face in followed], [number for number, _ in followed]
            video += not frame.name
            seconds["detect"] = time.perf_counter() - start
            yield _Found(frame, faces, tracks, ended, seconds)

    def _classify(self, found: Iterator[_Found], streams: int = 1, ahead: int = 0) -> Iterator[_Found]:
        """streams: inferences that run at a time. ahead: frames that several streams begin before the first is given."""
        if streams == 1:
            for one in found:
                yield _answered(one, [_timed(self._engine.infer, *faces) for faces in self._batches(one)])
            return
        with ThreadPoolExecutor(streams, "infer") as pool:

            def begin(one: _Found) -> _Begun:
                infer = self._engine.infer_on_stream
                return _Begun(one, [pool.submit(_timed, infer, *faces) for faces in self._batches(one)])

            yield from begun_ahead(begin, found, ahead + 1)

    def _batches(self, one: _Found) -> List[Tuple[np.ndarray, np.ndarray]]:
        """The faces of a frame, cut out: images and landmarks of each inference.

        Their landmarks are refined here, beside the search of the next frame.
        """
        start = time.perf_counter()
        faces = self._detector.refined(one.frame.image, one.faces)
        _judge(one, faces)
        one.seconds["detect"] += time.perf_counter() - start
        start = time.perf_counter()
        cuts = [crop(one.frame.image, face.box, face.landmarks) for face in one.faces]
        one.seconds["cut"] = time.perf_counter() - start
        if not cuts:
            return []
        images, landmarks = (np.stack(values) for values in zip(*cuts))
        return [(images[part], landmarks[part]) for part in batch_parts(len(cuts), self._at_once)]

    def _result(self, one: _Found, smoother: Smoother) -> FrameResult:
        faces = []
        for face, track, logits in zip(one.faces, one.tracks, one.logits):
            probabilities = softmax(logits).astype(np.float32)
            smoothed, label = probabilities, int(probabilities.argmax())
            if track is not None:
                smoothed, label = smoother.update(track, one.frame.time, probabilities)
            faces.append(TrackedFace(face, probabilities, smoothed, label, track))
        smoother.forget(one.ended)
        return FrameResult(one.frame, faces, one.rejected, one.seconds)


def batch_parts(count: int, at_once: Optional[int]) -> List[slice]:
    """How the faces of a frame are split into inferences: batches of `at_once`, the rest one by one; None: all in one.

    On a CPU these are the batches that an engine has fixed shapes for. Others take as long a face or longer (2 faces in one
    dynamic batch 1.3 times as long as one after the other), a second compiled network in memory, and a pause at each new
    number of faces.
    """
    if at_once is None:
        return [slice(0, count)]
    whole = count // at_once * at_once
    parts = [slice(start, start + at_once) for start in range(0, whole, at_once)]
    return parts + [slice(start, start + 1) for start in range(whole, count)]


def _timed(infer: Callable[..., np.ndarray], images: np.ndarray, landmarks: np.ndarray) -> _Timed:
    """What an inference answers, when it began, and when it ended."""
    start = time.perf_counter()
    return infer(images, landmarks), start, time.perf_counter()


def _answered(one: _Found, answers: List[_Timed]) -> _Found:
    one.seconds["infer"] = 0.0
    if answers:
        logits, starts, ends = zip(*answers)
        one.logits, one.seconds["infer"] = np.concatenate(logits), max(ends) - min(starts)
    return one


def _read(source: Source) -> Iterator[Tuple[Frame, float]]:
    """Each frame, and the seconds that reading it took."""
    frames = iter(source)
    while True:
        start = time.perf_counter()
        frame = next(frames, None)
        if frame is None:
            return
        yield frame, time.perf_counter() - start


def _judge(one: _Found, faces: List[Detection]) -> None:
    """Keep those of a frame's faces that can be classified, and note the others with the reason.

    faces: those of the frame, with their final landmarks.
    """
    reasons = [implausible(face) for face in faces]
    one.rejected = [(face, reason) for face, reason in zip(faces, reasons) if reason]
    kept = [index for index, reason in enumerate(reasons) if not reason]
    one.faces, one.tracks = [faces[index] for index in kept], [one.tracks[index] for index in kept]
