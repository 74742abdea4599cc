"""What a worker's process runs for the benchmark of the pipeline: passes of an engine and a detector over the same frames.

Needs the runtime, a detector and, for videos, PyAV; Python 3.8.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Dict, List, Optional

from ampnet_opt.core.allocator import keep_freed_memory
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.detection.detector import Detector, load_detector
from ampnet_opt.pipeline.outputs import Outputs
from ampnet_opt.pipeline.pipeline import MIN_FACE, Pipeline
from ampnet_opt.pipeline.sources import open_source
from ampnet_opt.runtime import Engine


@dataclass(frozen=True)
class PipelineRequest:
    """What each engine is to run, with the options of `ampnet-opt run`.

    Attributes:
        source: a video, a picture or a folder of pictures.
        threads: of engine and detector on a CPU, each; None, one per core.
        detector: its ONNX file; None, the default one.
        detector_backend: that runs it; None, the fastest on a CPU.
        detector_precision: of the default one; None, as `ampnet-opt run` chooses it.
        min_face: the smallest face to find in a video, in pixels.
        every: faces are detected in every such frame.
        frames: to stop after; None, all.
        drawn: whether each frame is drawn and encoded, into a file that is deleted.
    """

    source: str
    threads: Optional[int] = None
    detector: Optional[Path] = None
    detector_backend: Optional[str] = None
    detector_precision: Optional[str] = None
    min_face: float = MIN_FACE
    every: int = 1
    frames: Optional[int] = None
    drawn: bool = True


@dataclass(frozen=True)
class Pass:
    """One pass over the frames.

    Attributes:
        seconds: wall clock of all.
        processor_seconds: processor time of all threads.
        stages: seconds of each frame by name of the stage.
        faces: classified in all frames.
        detector_seconds: that the detector's network took, all frames together.
        detector: its identity.
    """

    seconds: float
    processor_seconds: float
    stages: Dict[str, List[float]]
    faces: int
    detector_seconds: float
    detector: str


class RunningPipeline:
    """An engine in a worker's process, with the detector of the first request."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._detector: Optional[Detector] = None

    def run_pipeline(self, request: PipelineRequest) -> Pass:
        """One pass, as `benchmark_pipeline` asks for it."""
        if self._detector is None:
            with open_source(request.source) as source:
                video = not source.still
            if not video and (request.every != 1 or request.min_face != MIN_FACE):
                raise MisuseError("--min-face and --every go with videos: pictures are searched for faces of any size")
            self._engine.warm_up(on_stream=True)  # the first frames may hold no face
            if video:
                keep_freed_memory()  # as `ampnet-opt run` does
            self._detector = load_detector(
                request.detector,
                backend=request.detector_backend,
                threads=request.threads,
                precision=request.detector_precision,
                video=video,
            )
        detector, faces, before = self._detector, 0, self._detector.network_seconds
        stages: Dict[str, List[float]] = {}
        pipeline = Pipeline(self._engine, detector, every=request.every, min_face=request.min_face)
        with TemporaryDirectory() as folder:
            start, processor = time.perf_counter(), time.process_time()
            with open_source(request.source) as source:
                place = Path(folder) / ("drawn" if source.still else "drawn.mp4")
                with Outputs(source, self._engine.classes, drawn=place if request.drawn else None) as outputs:
                    with closing(pipeline.frames(source)) as results:  # type: ignore[type-var]
                        for count, result in enumerate(results, 1):
                            outputs.write(result)
                            faces += len(result.faces)
                            for name, seconds in result.seconds.items():
                                stages.setdefault(name, []).append(seconds)
                            if count == request.frames:
                                break
                if source.failures:
                    raise AmpnetError(f"not all pictures can be read: {source.failures[0]}")
            taken, processor = time.perf_counter() - start, time.process_time() - processor
        return Pass(taken, processor, stages, faces, detector.network_seconds - before, detector.identity)
