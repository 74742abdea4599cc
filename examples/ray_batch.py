"""Faces of pictures by Ray Data, as a stage of a pipeline of your own.

python examples/ray_batch.py engines/cpu-int8 pictures/ results/

`ampnet-opt run --ray` does the same for files on disk, and can be interrupted. Take this where the pictures come from
elsewhere (S3, Parquet, WebDataset), or where other stages follow.
"""

import sys
from typing import Any

import ray

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.detection.detector import load_detector
from ampnet_opt.pipeline.pipeline import Pipeline
from ampnet_opt.runtime import Engine
from ampnet_opt.serving.triton_model import faces_of


class Faces:
    """An actor: it loads the engine once, and answers batches of encoded pictures."""

    def __init__(self, engine_directory: str) -> None:
        self.engine = Engine.load(engine_directory, threads=1)
        self.pipeline = Pipeline(self.engine, load_detector(threads=1))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        labels: list[list[str]] = []
        for content in batch["bytes"]:
            try:
                found = faces_of(self.pipeline, content, self.engine.classes)["labels"]
                labels.append([name.decode() for name in found])
            except AmpnetError:  # no picture; keep the sentence where you need it
                labels.append([])
        return {"path": list(batch["path"]), "labels": labels}


def main(engine_directory: str, pictures: str, results: str) -> None:
    data = ray.data.read_binary_files(pictures, include_paths=True)
    workers = ray.data.ActorPoolStrategy(min_size=1, max_size=16)  # CPUs are left for reading and writing
    data.map_batches(Faces, fn_constructor_args=(engine_directory,), batch_size=16, compute=workers).write_parquet(results)


if __name__ == "__main__":
    main(*sys.argv[1:])
