"""Asks a server of what `ampnet-opt serve-files` wrote for the faces of pictures, by the KServe v2 protocol over HTTP.

pip install 'tritonclient[http]'
python examples/triton_client.py localhost:8000 cpu-int8-faces photo.jpg ...
"""

import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def main(url: str, model: str, *photos: str) -> None:
    failed = 0
    with triton.InferenceServerClient(url) as client:
        for photo in photos:
            picture = triton.InferInput("picture", [1], "BYTES")
            picture.set_data_from_numpy(np.array([Path(photo).read_bytes()], np.object_))
            try:
                answer = client.infer(model, [picture])
            except InferenceServerException as error:
                print(f"error: {photo}: {error.message()}", file=sys.stderr)
                failed += 1
                continue
            names = ("boxes", "labels", "probabilities")
            for box, label, probabilities in zip(*(answer.as_numpy(name) for name in names)):
                x, y, width, height = (round(float(value)) for value in box)
                print(f"{photo}  {x},{y} {width}x{height}  {label.decode()}  {probabilities.max():.1%}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
