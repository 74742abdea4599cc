"""Scores the pipeline on drawn videos (tools/draw_video.py), as a Markdown table.

usage: python tools/score_pipeline.py ENGINE CLIP.mp4... [--detector YUNET.onnx] [--detector-precision fp32]
       [--smooth 0.4] [--min-face 40] [--every 1]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from ampnet_opt.detection.detector import load_detector
from ampnet_opt.pipeline.pipeline import Pipeline
from ampnet_opt.pipeline.sources import open_source
from ampnet_opt.pipeline.tracking_score import Scorer
from ampnet_opt.runtime import Engine
from ampnet_opt.synthetic.video import TrueFace

HEADER = (
    "clip | persons found | landmark error | without its constant part | switches/min | label changes/min of a person "
    "| of the truth | labels right | false faces/min"
)


def read_truth(line: str) -> list[TrueFace]:
    return [
        TrueFace(face["person"], tuple(face["box"]), np.array(face["landmarks"]), face["expression"], face["visible"])
        for face in json.loads(line)["faces"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine")
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--detector")
    parser.add_argument("--detector-precision")
    parser.add_argument("--smooth", type=float, default=0.4)
    parser.add_argument("--min-face", type=float, default=40)
    parser.add_argument("--every", type=int, default=1)
    given = parser.parse_args()
    print(f"| {HEADER} |\n|{'---|' * (HEADER.count('|') + 1)}")
    with Engine.load(given.engine) as engine:
        detector = load_detector(given.detector, precision=given.detector_precision, video=True)
        for clip in given.clips:
            pipeline = Pipeline(engine, detector, smooth=given.smooth, every=given.every, min_face=given.min_face)
            scorer = Scorer(engine.classes, given.min_face)
            truth = clip.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
            for result, line in zip(pipeline.frames(open_source(str(clip))), truth, strict=True):
                scorer.add(result.frame.time, result.faces, read_truth(line))
            one = scorer.score()
            cells = [
                clip.name,
                f"{one.found / one.visible:.1%} of {one.visible}",
                f"{one.landmark_error:.1%}",
                f"{one.constant:.1%}",
                f"{one.switches / one.minutes:.1f}",
                f"{one.label_changes / one.person_minutes:.1f}",
                f"{one.true_label_changes / one.person_minutes:.1f}",
                f"{one.right_labels:.0%}",
                f"{one.false_faces / one.minutes:.1f}",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
