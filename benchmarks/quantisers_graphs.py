"""One float graph and the same faces, four quantisers: the INT8 networks that `quantisers` compares."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from ampnet_opt.benchmarks import quantisers_nncf, quantisers_worker
from ampnet_opt.calibration.histogram import Progress
from ampnet_opt.convert.source import Source, calibrate
from ampnet_opt.core.cache import CACHE_VARIABLE
from ampnet_opt.core.children import variables_set
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.graph_interface import INPUTS, ImageInput
from ampnet_opt.faces.face import Face

IMAGE_INPUT: ImageInput = "float32"  # of uint8, ONNX Runtime would quantise the scaling to [0, 1] as well
# Faces at a time in ONNX Runtime's calibration, which Model Optimizer uses as well; all their activations are in memory. Its
# bins are as wide as the first batch needs, and its search takes the square of their number: with one face at a time it does
# not end where the first face hardly moved a gate.
BATCH = 32


def ours(source: Source, faces: Sequence[Face], method: str, progress: Progress) -> onnx.ModelProto:
    """Our Q/DQ graph, as `build` makes it, by a calibration method."""
    return calibrate(source, faces, method, progress).quantize(source.graph, source.placement)


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
        batch = str(min(BATCH, len(images)))
        _run_elsewhere(python, f"Model Optimizer ({method})", quantisers_worker.__file__, method, batch, *paths)
        return onnx.load(result), json.loads(versions.read_text())


def nncf(
    python: Path,
    graph: onnx.ModelProto,
    calibration: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray, np.ndarray],
    *,
    max_drop: float | None,
    result: Path,
    minutes: int | None = None,
) -> dict[str, str]:
    """Write OpenVINO's INT8 model of `graph` by NNCF to `result` (.xml); returns the versions of its libraries.

    python: the interpreter of the environment it is installed in. calibration, validation: images and landmarks, and labels
    int [N]. max_drop: of top-1 over the validation faces, in points, for `quantize_with_accuracy_control`; None for
    `quantize`. minutes: after which it is stopped; None, never. Raises AmpnetError when that process fails, OutOfTime when
    it is stopped.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("float.onnx", "calibration.npz", "validation.npz", "versions.json")]
        source, seen, held_out, versions = paths
        onnx.save(graph, source)
        np.savez(seen, image=calibration[0], landmarks=calibration[1])
        np.savez(held_out, image=validation[0], landmarks=validation[1], labels=validation[2])
        drop = "" if max_drop is None else str(max_drop / 100)
        script = quantisers_nncf.__file__
        _run_elsewhere(python, "NNCF", script, drop, source, seen, held_out, result, versions, minutes=minutes)
        found: dict[str, str] = json.loads(versions.read_text())
        return found


def ours_within(checkpoint: Path, data: Path, faces: int, max_drop: float, result: Path) -> None:
    """`ampnet-opt build --int8 --max-drop`, as a user runs it, on `faces` faces, into the engine directory `result`."""
    command = [sys.executable, "-c", "from ampnet_opt.cli.main import main; main()", "build"]
    build = [*command, checkpoint, "--int8", "--backend", "cpu", "--data", data]
    form = ["--input", IMAGE_INPUT, "--max-batch", 1, "-o", result.parent]
    budget = ["--faces", faces, "--max-drop", max_drop, "--min-agreement", 0]
    _finish([str(word) for word in (*build, *budget, *form)], "ampnet-opt build")
    (result.parent / "cpu-int8").rename(result)


class OutOfTime(Exception):
    """A quantiser had not ended after the time that it was given."""


@contextlib.contextmanager
def empty_cache() -> Iterator[None]:
    """Nothing that ampnet-opt has kept is found in the block, nor what it keeps there found later."""
    with tempfile.TemporaryDirectory() as folder, variables_set({CACHE_VARIABLE: folder}):
        yield


def _run_elsewhere(python: Path, what: str, script: str, *arguments: object, minutes: int | None = None) -> None:
    """Run a script of ours by another environment's Python, for `minutes` at most. Raises AmpnetError when it fails."""
    # Isolated: this folder's modules must not stand before the libraries of the other environment.
    try:
        _finish([str(python), "-I", script, *map(str, arguments)], f"{what} in {python}", minutes)
    except OSError as error:
        raise AmpnetError(f"{python} cannot be run: {error.strerror}") from error


def _finish(command: Sequence[str], what: str, minutes: int | None = None) -> None:
    """Run a command.

    Raises AmpnetError with its last line when it fails, OutOfTime when it has not ended after `minutes`, OSError when it
    cannot be run.
    """
    seconds = None if minutes is None else 60 * minutes
    try:
        run = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise OutOfTime from error
    if run.returncode:
        reason = run.stdout.strip().rpartition("\n")[2] or f"exit code {run.returncode}"
        raise AmpnetError(f"{what} failed: {reason}")


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
