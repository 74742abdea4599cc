"""Where the processor time of a video's frames goes, thread by thread, as a Markdown table. For Linux.

Stages run beside each other, so their wall clock holds the time in which they wait for a core that a network keeps busy.
Processor time does not. What OpenVINO's own threads take counts as the networks', all else as outside them: OpenVINO
computes nothing in the thread that calls it, so give an engine for the cpu backend, and `--detector-backend cpu` with YuNet.

usage: python tools/pipeline_processor.py ENGINE CLIP.mp4... [--detector YUNET.onnx] [--detector-backend cpu] [--min-face 40]
"""

from __future__ import annotations

import argparse
import threading
from collections import Counter
from pathlib import Path

from ampnet_opt.core.allocator import keep_freed_memory
from ampnet_opt.detection.detector import load_detector
from ampnet_opt.pipeline.pipeline import Pipeline
from ampnet_opt.pipeline.sources import open_source
from ampnet_opt.runtime import Engine

EDGE = 10  # frames at both ends that are not measured
DECODER = "av:"  # begins the names of FFmpeg's threads
GROUPS = ("networks", "decoder", "capture", "detect", "infer", "main")
HEADER = ("clip", "faces", *(f"{group}, ms" for group in GROUPS), "outside the networks", "outside, waiting for a core, ms")


def threads() -> tuple[Counter[str], Counter[str]]:
    """Nanoseconds that the threads of each group have run, and have waited for a core, so far."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    running: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    for task in Path("/proc/self/task").iterdir():
        name = names.get(int(task.name))
        if name is None:
            group = "decoder" if (task / "comm").read_text().startswith(DECODER) else "networks"
        else:
            group = next((one for one in GROUPS if name.startswith(one)), "main")
        run, wait, _ = map(int, (task / "schedstat").read_text().split())
        running[group] += run
        waiting[group] += wait
    return running, waiting


def measure(pipeline: Pipeline, clip: Path) -> str:
    source = open_source(str(clip))
    first, last = EDGE, (source.count or 0) - EDGE
    if last <= first:
        raise SystemExit(f"{clip} has too few frames")
    faces = 0
    for result in pipeline.frames(source):
        if result.frame.index == first:
            start = threads()
        if first < result.frame.index <= last:
            faces += len(result.faces)
        if result.frame.index == last:
            end = threads()
    running, waiting = (
        {group: 1e-6 * (b[group] - a[group]) / (last - first) for group in GROUPS} for a, b in zip(start, end)
    )
    outside = [group for group in GROUPS if group != "networks"]
    cells = [
        clip.name,
        f"{faces / (last - first):.1f}",
        *(f"{running[group]:.2f}" for group in GROUPS),
        f"{sum(running[group] for group in outside) / sum(running.values()):.0%}",
        f"{sum(waiting[group] for group in outside):.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine")
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--detector")
    parser.add_argument("--detector-backend")
    parser.add_argument("--min-face", type=float, default=40)
    given = parser.parse_args()
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    with Engine.load(given.engine) as engine:
        engine.warm_up(on_stream=True)
        keep_freed_memory()  # as `ampnet-opt run` does
        detector = load_detector(given.detector, backend=given.detector_backend, video=True)
        pipeline = Pipeline(engine, detector, min_face=given.min_face)
        for clip in given.clips:
            print(measure(pipeline, clip), flush=True)


if __name__ == "__main__":
    main()
