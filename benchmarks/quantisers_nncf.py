"""OpenVINO's NNCF on one graph, run by the Python of its own environment, where nothing of ours is installed.

Arguments: accuracy that may be lost, as a share of the validation faces, or "" for plain `quantize`; float graph;
calibration data (.npz, an array for each input); validation data (.npz, likewise, and `labels`); model to write (.xml);
JSON of versions to write.
"""

import json
import sys
from importlib.metadata import version
from typing import Any

LIBRARIES = ("nncf", "openvino", "numpy")


def main() -> None:
    max_drop, source, calibration, validation, result, versions = sys.argv[1:]
    import nncf
    import numpy
    import openvino

    def items(path: str) -> list[dict[str, Any]]:
        data = dict(numpy.load(path))
        count = len(data["image"])
        return [{name: values[i : i + 1] for name, values in data.items()} for i in range(count)]

    def inputs(item: dict[str, Any]) -> dict[str, Any]:
        return {name: values for name, values in item.items() if name != "labels"}

    def top1(compiled: Any, faces: Any) -> tuple[float, list[float]]:
        right = [float(compiled(inputs(face))[0].argmax(1)[0] == face["labels"][0]) for face in faces]
        return sum(right) / len(right), right

    model = openvino.Core().read_model(source)
    faces = items(calibration)
    seen = nncf.Dataset(faces, inputs)
    if max_drop:
        model = nncf.quantize_with_accuracy_control(
            model,
            calibration_dataset=seen,
            validation_dataset=nncf.Dataset(items(validation)),
            validation_fn=top1,
            max_drop=float(max_drop),
            drop_type=nncf.DropType.ABSOLUTE,
            subset_size=len(faces),
        )
    else:
        model = nncf.quantize(model, seen, subset_size=len(faces))
    openvino.save_model(model, result, compress_to_fp16=False)
    with open(versions, "w", encoding="utf-8") as stream:
        json.dump({name: version(name) for name in LIBRARIES}, stream)


if __name__ == "__main__":
    main()
