"""Follows the faces before a camera, and prints each change of an expression. Ctrl-C ends it.

python examples/camera_loop.py engines/cpu-int8 /dev/video0     # or a video, or rtsp://...
"""

import sys
from contextlib import closing, suppress

from ampnet_opt.detection.detector import load_detector
from ampnet_opt.pipeline.pipeline import Pipeline
from ampnet_opt.pipeline.sources import open_source
from ampnet_opt.runtime import Engine


def main(engine_directory: str, camera: str) -> None:
    shown: dict[int, str] = {}  # track of a face -> the label that it has
    with Engine.load(engine_directory) as engine, closing(load_detector(video=True)) as detector:
        engine.warm_up()  # before the camera is opened: the first face does not wait
        with open_source(camera) as source:
            for result in Pipeline(engine, detector).frames(source):
                for face in result.faces:
                    label = engine.classes[face.label]
                    if shown.get(face.track) != label:
                        print(f"{result.frame.time:7.2f} s  face {face.track}: {label}", flush=True)
                    shown[face.track] = label


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
