"""Draws a video of people with exact truth: OUT.mp4, and OUT.jsonl with a line a frame.

usage: python tools/draw_video.py OUT.mp4 [--seed 0] [--seconds 30] [--people 3] [--rate 25]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ampnet_opt.pipeline.video_writer import VideoWriter
from ampnet_opt.synthetic.video import TrueFace, draw_video


def row(face: TrueFace) -> dict[str, object]:
    return {
        "person": face.person,
        "box": [round(value, 2) for value in face.box],
        "landmarks": face.landmarks.round(2).tolist(),
        "expression": face.expression,
        "visible": round(face.visible, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--rate", type=float, default=25)
    given = parser.parse_args()
    video = VideoWriter(given.out, (640, 480), given.rate)
    try:
        with open(given.out.with_suffix(".jsonl"), "w", encoding="utf-8") as truth:
            for frame in draw_video(given.seed, given.seconds, people=given.people, rate=given.rate):
                video.write(frame.image, frame.time)
                line = {"time": round(frame.time, 6), "faces": [row(face) for face in frame.faces]}
                truth.write(json.dumps(line) + "\n")
    finally:
        video.close()


if __name__ == "__main__":
    main()
