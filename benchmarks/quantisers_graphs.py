"""One float graph and the same faces, three quantisers: the Q/DQ graphs that `quantisers` compares."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from ampnet_opt.benchmarks import quantisers_worker
from ampnet_opt.calibration.histogram import Progress
from ampnet_opt.calibration.ranges import METHODS
from ampnet_opt.convert.source import Source, calibrate
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.graph_interface import INPUTS
from ampnet_opt.faces.face import Face

# Faces at a time in ONNX Runtime's calibration, which Model Optimizer uses as well; all their activations are in memory. Its
# bins are as wide as the first batch needs, and its search takes the square of their number: with one face at a time it does
# not end where the first face hardly moved a gate.
BATCH = 32


def ours(source: Source, faces: Sequence[Face], progress: Progress) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Our Q/DQ graph, as `build` makes it, by every calibration method, with the method's name."""
    for method in METHODS:
        yield method, calibrate(source, faces, method, progress).quantize(source.graph, source.placement)


def onnx_runtime(graph: onnx.ModelProto, images: np.ndarray, landmarks: np.ndarray) -> onnx.ModelProto:
    """ONNX Runtime's Q/DQ graph: its pre-processing, then `quantize_static`, with symmetric INT8 and entropy.

    Everything else is as it comes: it chooses the operations that are quantised.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared, result = Path(folder) / "prepared.onnx", Path(folder) / "quantised.onnx"
        quant_pre_process(graph, str(prepared))
        quantize_static(
            str(prepared),
            str(result),
            Reader(images, landmarks),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Entropy,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "CalibStridedMinMax": 1,  # a batch at a time, instead of all activations at once; for entropy as well
            },
        )
        return onnx.load(result)


def model_optimizer(
    python: Path, graph: onnx.ModelProto, images: np.ndarray, landmarks: np.ndarray, method: str
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Model Optimizer's Q/DQ graph by `method` (entropy or max), and the versions of its libraries.

    python: the interpreter of the environment it is installed in. Raises AmpnetError when that process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("float.onnx", "faces.npz", "quantised.onnx", "versions.json")]
        source, faces, result, versions = paths
        onnx.save(graph, source)
        np.savez(faces, image=images, landmarks=landmarks)
        # Isolated: this folder's modules must not stand before the libraries of the other environment.
        command = [str(python), "-I", quantisers_worker.__file__, method, str(min(BATCH, len(images))), *map(str, paths)]
        try:
            run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        except OSError as error:
            raise AmpnetError(f"{python} cannot be run: {error.strerror}") from error
        if run.returncode:
            reason = run.stdout.strip().rpartition("\n")[2] or f"exit code {run.returncode}"
            raise AmpnetError(f"Model Optimizer ({method}) failed in {python}: {reason}")
        return onnx.load(result), json.loads(versions.read_text())


class Reader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
    """Batches of faces, of a range that ONNX Runtime sets."""

    def __init__(self, images: np.ndarray, landmarks: np.ndarray) -> None:
        starts = range(0, len(images), BATCH)
        self._batches = [
            {name: data[i : i + BATCH] for name, data in zip(INPUTS, (images, landmarks), strict=True)} for i in starts
        ]
        self.set_range(0, len(self))

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


@contextlib.contextmanager
def _quiet() -> Iterator[Any]:
    """Without the lines that ONNX Runtime prints and logs as it works."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        root.setLevel(level)
