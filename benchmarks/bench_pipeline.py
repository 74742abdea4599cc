"""The whole pipeline, timed: how many frames a second each engine gives, and where the time of a frame goes.

Each engine runs in a process of its own, which also loads the detector, and takes its turn with passes over the same frames.
Needs the runtime, a detector and, for videos, PyAV; Python 3.8.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import numpy as np

from ampnet_opt.benchmarks.compare import Environment, engine_subjects, environment
from ampnet_opt.benchmarks.pipeline_passes import Pass, PipelineRequest
from ampnet_opt.benchmarks.workers import Progress, Worker, started
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.processor import available_cores
from ampnet_opt.core.text import printable, shown_path
from ampnet_opt.pipeline.frames import STAGES

FORMAT = "ampnet-opt-pipeline-benchmark/1"
WARM_UP = 5  # frames
METHOD = (
    "Frames/s is wall clock over whole passes, from opening the source to the last frame written; stages run beside each "
    "other, so a frame's stages add up to more than the time between two frames.",
    "CPU ms is processor time of a frame over all cores; the cores divided by it are the most frames/s that a machine with "
    "nothing else to do can reach.",
    "The latency of a frame is the sum of its stages after capture: what it would take if it never waited for another.",
    "No network is the share of all stages that neither the detector's network nor the engine takes.",
)


@dataclass(frozen=True)
class PipelineTiming:
    """What was measured of one engine, over all its passes.

    Attributes:
        name: of the engine, as in other benchmarks.
        backend: that runs it.
        precision: of the engine.
        trained: False for seeded weights.
        checkpoint_sha256: of the checkpoint it was built from.
        passes: over the frames.
        frames: of one pass.
        faces: of a frame, mean.
        rate: frames a second.
        slowest: rate of the slowest pass.
        fastest: rate of the fastest pass.
        processor: mean ms of processor time that a frame takes, over all cores.
        p50: latency of a frame in ms, median.
        p99: 99th percentile of it.
        stages: mean ms of a frame, by name of the stage.
        detector_network: mean ms of a frame that the network of the stage detect takes.
        no_network: share of all stages that no network takes, 0 to 1.
        peak_memory: largest resident set in bytes, None where the system does not tell.
    """

    name: str
    backend: str
    precision: str
    trained: bool
    checkpoint_sha256: str
    passes: int
    frames: int
    faces: float
    rate: float
    slowest: float
    fastest: float
    processor: float
    p50: float
    p99: float
    stages: Dict[str, float]
    detector_network: float
    no_network: float
    peak_memory: Optional[int]


@dataclass(frozen=True)
class PipelineBench:
    """One benchmark of the pipeline. detector: its identity. threads: of each network."""

    request: PipelineRequest
    threads: int
    detector: str
    environment: Environment
    engines: List[PipelineTiming]
    notes: List[str]

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, default=str) + "\n"


def benchmark_pipeline(
    engines: Sequence[Path], request: PipelineRequest, *, seconds: float = 3, progress: Optional[Progress] = None
) -> PipelineBench:
    """Run the same frames through each engine's pipeline, in turns of a pass.

    Args:
        engines: directories.
        request: what to run.
        seconds: passes go on until all engines together took so long; one of each at least.
        progress: told of the passes.

    Raises:
        MisuseError: the source is no file or folder, or cannot be run.
        AmpnetError: an engine fails, which is named, or a package is missing.
    """
    _require_again(request.source)
    threads = request.threads or available_cores()
    subjects = [replace(subject, kind="pipeline") for subject in engine_subjects(engines, threads)]
    with ExitStack() as stack:
        workers: List[Worker] = []
        for worker in started(stack, subjects, progress):
            worker.run_pipeline(replace(request, frames=min(WARM_UP, request.frames or WARM_UP)))
            workers.append(worker)
        passes: List[List[Pass]] = [[] for _ in workers]
        order, begun = list(range(len(workers))), time.perf_counter()
        while not passes[0] or time.perf_counter() - begun < seconds:
            for index in order:
                passes[index].append(workers[index].run_pipeline(request))
                if progress:
                    done = sum(map(len, passes))
                    progress("passes over the frames", done, done)
            order.reverse()
        found = [_timing(worker, own) for worker, own in zip(workers, passes)]
        place = environment(workers)
    detector = None if request.detector is None else Path(shown_path(request.detector))
    asked = replace(request, source=shown_path(request.source), detector=detector)
    return PipelineBench(asked, threads, passes[0][0].detector, place, found, list(METHOD))


def _require_again(source: str) -> None:
    """MisuseError for what cannot be read again and again with the same frames."""
    if not (os.path.isfile(source) or os.path.isdir(source)):
        if os.path.exists(source) or "://" in source or source == "-" or source.startswith(("camera:", "csi:")):
            raise MisuseError("a benchmark needs the same frames for each engine: give a video, a picture or a folder")
        raise MisuseError(f"image or video {printable(source)} does not exist")


def _timing(worker: Worker, passes: Sequence[Pass]) -> PipelineTiming:
    made, frames = worker.loaded, len(passes[0].stages["capture"])
    if not frames:
        raise MisuseError("there is no frame to time")
    known = [name for name in STAGES if name in passes[0].stages]
    stages = {name: np.array([value for one in passes for value in one.stages[name]]) for name in known}
    latency = 1e3 * sum(values for name, values in stages.items() if name != "capture")
    p50, p99 = (float(value) for value in np.percentile(latency, [50, 99]))
    rates = [frames / one.seconds for one in passes]
    whole = sum(float(values.sum()) for values in stages.values())
    detector = sum(one.detector_seconds for one in passes)
    return PipelineTiming(
        name=worker.subject.name,
        backend=made.backend,
        precision=made.precision,
        trained=made.trained,
        checkpoint_sha256=made.checkpoint_sha256,
        passes=len(passes),
        frames=frames,
        faces=sum(one.faces for one in passes) / (frames * len(passes)),
        rate=frames * len(passes) / sum(one.seconds for one in passes),
        slowest=min(rates),
        fastest=max(rates),
        processor=1e3 * sum(one.processor_seconds for one in passes) / (frames * len(passes)),
        p50=p50,
        p99=p99,
        stages={name: 1e3 * float(values.mean()) for name, values in stages.items()},
        detector_network=1e3 * detector / (frames * len(passes)),
        no_network=1 - (detector + float(stages["infer"].sum())) / whole,
        peak_memory=worker.peak_memory(),
    )
