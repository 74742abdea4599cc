"""Model Optimizer on one graph, run by the Python of its own environment, where nothing of ours is installed.

Arguments: calibration method, faces at a time, float graph, calibration data (.npz, an array for each input), Q/DQ graph to
write, JSON of versions to write.
"""

import json
import sys
from importlib.metadata import version

LIBRARIES = ("nvidia-modelopt", "onnxruntime", "onnx", "torch", "numpy")


def main() -> None:
    method, batch, source, faces, result, versions = sys.argv[1:]
    import numpy
    from modelopt.onnx.quantization import quantize

    data = dict(numpy.load(faces))
    quantize(
        source,
        quantize_mode="int8",
        calibration_data=data,
        calibration_shapes=",".join(
            f"{name}:{'x'.join(map(str, (batch, *values.shape[1:])))}" for name, values in data.items()
        ),
        calibration_method=method,
        calibration_eps=["cpu"],
        # Its default, fp16, converts the float part as well, landmarks included; what is compared is INT8.
        high_precision_dtype="fp32",
        output_path=result,
    )
    with open(versions, "w", encoding="utf-8") as stream:
        json.dump({name: version(name) for name in LIBRARIES}, stream)


if __name__ == "__main__":
    main()
