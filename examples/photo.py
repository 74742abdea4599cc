"""The faces of a photo and their expressions, printed and drawn.

python examples/photo.py engines/cpu-int8 photo.jpg drawn.png
"""

import sys
from contextlib import closing

from PIL import Image

from ampnet_opt.detection.detector import load_detector
from ampnet_opt.pipeline.overlay import draw
from ampnet_opt.pipeline.pipeline import Pipeline
from ampnet_opt.pipeline.sources import open_source
from ampnet_opt.runtime import Engine


def main(engine_directory: str, photo: str, drawn: str) -> None:
    with Engine.load(engine_directory) as engine, open_source(photo) as source, closing(load_detector()) as detector:
        for result in Pipeline(engine, detector).frames(source):
            for face in result.faces:
                x, y, width, height = (round(value) for value in face.detection.box)
                print(f"{x},{y} {width}x{height}  {engine.classes[face.label]}  {face.probabilities[face.label]:.1%}")
            Image.fromarray(draw(result, engine.classes)).save(drawn)
        for failure in source.failures:
            sys.exit(f"error: {failure}")


if __name__ == "__main__":
    main(*sys.argv[1:])
