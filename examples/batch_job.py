"""All pictures of a folder into a table, a row a face. Pictures that cannot be read are listed at the end.

python examples/batch_job.py engines/cpu-int8 pictures/ faces.csv
"""

import sys
from contextlib import closing

from ampnet_opt.detection.detector import load_detector
from ampnet_opt.pipeline.outputs import Outputs
from ampnet_opt.pipeline.pipeline import Pipeline
from ampnet_opt.pipeline.sources import open_source
from ampnet_opt.runtime import Engine


def main(engine_directory: str, folder: str, table: str) -> None:
    faces = 0
    with Engine.load(engine_directory) as engine, open_source(folder) as source, closing(load_detector()) as detector:
        with Outputs(source, engine.classes, table=table) as outputs:
            for result in Pipeline(engine, detector).frames(source):
                outputs.write(result)
                faces += len(result.faces)
        print(f"{table}: {faces} faces in {source.count - len(source.failures)} pictures")
        if source.failures:
            sys.exit("\n".join(f"error: {failure}" for failure in source.failures))


if __name__ == "__main__":
    main(*sys.argv[1:])
