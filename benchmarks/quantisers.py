"""`python -m ampnet_opt.benchmarks.quantisers --data faces.csv`: our INT8 graphs beside those of other quantisers.

Every quantiser gets the same float graph and the same calibration faces; every Q/DQ graph is judged by the same code.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx

from ampnet_opt import __version__
from ampnet_opt.benchmarks.compare import Environment, require_positive
from ampnet_opt.benchmarks.quantisers_graphs import model_optimizer, onnx_runtime, ours
from ampnet_opt.benchmarks.quantisers_report import QuantiserReport, Result, describe, render_quantisers, to_markdown
from ampnet_opt.benchmarks.workers import Subject, Worker, time_in_turns
from ampnet_opt.convert import openvino as cpu
from ampnet_opt.convert.float16 import to_half
from ampnet_opt.convert.source import Source, float_ranges, source_of, verify
from ampnet_opt.core.console import console
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import sha256, write_json
from ampnet_opt.core.graph_interface import ImageInput
from ampnet_opt.core.labels import label_indices, parse_classes
from ampnet_opt.core.messages import fail
from ampnet_opt.core.metrics import Latency, agreement, latency, sqnr, wilson
from ampnet_opt.core.onnx_session import graph_logits
from ampnet_opt.core.processor import available_cores, processor_name
from ampnet_opt.core.progress import Steps, steps
from ampnet_opt.faces.face import Face, load_batches, read_faces, spread
from ampnet_opt.network.checkpoint import Checkpoint, read_checkpoint
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.sidecar import BatchRange, Sidecar
from ampnet_opt.runtime.tensorrt.compile import build_plan, require_library
from ampnet_opt.shipped import CHECKPOINT

IMAGE_INPUT: ImageInput = "float32"  # of uint8, ONNX Runtime would quantise the scaling to [0, 1] as well
SCORING_BATCH = 16
CHECKING_FACES = 8  # on which an engine is compared with its graph, as `build` does
MODEL_OPTIMIZER_METHODS = ("entropy", "max")
LIBRARIES = ("torch", "onnx", "onnxruntime", "openvino", "tensorrt-rtx-cu13")


def activation_pairs(model: onnx.ModelProto) -> int:
    """Number of QuantizeLinear nodes on what depends on the graph's inputs; weights do not count."""
    weights = {tensor.name for tensor in model.graph.initializer}
    varying = {value.name for value in model.graph.input} - weights
    pairs = 0
    for node in model.graph.node:  # in topological order
        if varying.intersection(node.input):
            varying.update(node.output)
            pairs += node.op_type == "QuantizeLinear"
    return pairs


def compare_quantisers(
    checkpoint: Checkpoint,
    path: Path,
    calibration: Sequence[Face],
    test: Sequence[Face],
    *,
    python: Path | None,
    runs: int,
    threads: int,
    step: Steps,
) -> QuantiserReport:
    """Quantise the checkpoint's float graph in every way and judge the results on `test`, whose faces are labelled.

    python: the interpreter that has Model Optimizer; its rows are left out without it. step: as of `core.progress.steps`.
    """
    require_positive(runs=runs, threads=threads)
    labels = np.array(label_indices(checkpoint.classes, [face.label for face in test]))
    with step("exporting the graph", 0):
        source = source_of(checkpoint, IMAGE_INPUT)
    with step("reading faces", 0):
        (seen,), scored = source.batches(calibration, len(calibration)), source.batches(test, SCORING_BATCH)
    graph = source.graph
    graphs, versions = _quantise(source, calibration, seen, python, step)
    models = {"float graph": graph, **graphs}

    logits, plans = {}, {}
    ranges = float_ranges(graph, source.batches(calibration[:CHECKING_FACES], 1))
    for name, model in models.items():
        with step(f"judging {name}", 0):
            logits[name] = graph_logits(model, scored)
            plans[name] = _plan_size(model, "fp16" if model is graph else "int8", ranges)
    with tempfile.TemporaryDirectory() as folder, step("timing", runs) as progress:
        (checking,) = source.batches(test[:CHECKING_FACES], CHECKING_FACES)
        engines = {}
        for i, (name, model) in enumerate(models.items()):
            directory = Path(folder) / str(i)
            engines[name] = _engine(checkpoint, source, model, directory, checking)
        times = _latencies(engines, next(load_batches(test[:1], 1)), runs, threads, progress)

    reference = logits["float graph"]
    results = [
        Result(
            name,
            wilson(int((logits[name].argmax(1) == labels).sum()), len(labels)),
            None if model is graph else activation_pairs(model),
            None if model is graph else agreement(logits[name], reference),
            None if model is graph else sqnr(reference, logits[name]),
            times[name],
            plans[name],
        )
        for name, model in models.items()
    ]
    return QuantiserReport(
        str(path),
        checkpoint.sha256,
        checkpoint.trained,
        len(calibration),
        len(test),
        threads,
        _environment(versions),
        results,
        describe(results, checkpoint.trained, python),
    )


def _quantise(
    source: Source, faces: Sequence[Face], seen: tuple[np.ndarray, np.ndarray], python: Path | None, step: Steps
) -> tuple[dict[str, onnx.ModelProto], dict[str, str]]:
    """Q/DQ graphs by their names in the table, and the versions of Model Optimizer's libraries."""
    others: dict[str, onnx.ModelProto] = {}
    versions: dict[str, str] = {}
    for method in MODEL_OPTIMIZER_METHODS:
        if python is None:
            break
        with step(f"Model Optimizer ({method})", 0):
            others[f"Model Optimizer, {method}"], found = model_optimizer(python, source.graph, *seen, method)
            versions = {name if "modelopt" in name else f"Model Optimizer's {name}": text for name, text in found.items()}
    with step("ONNX Runtime (entropy)", 0):
        others["ONNX Runtime, entropy"] = onnx_runtime(source.graph, *seen)
    with step("ours", len(faces)) as progress:
        mine = {f"ours, {name}": model for name, model in ours(source, faces, progress)}
    return {**mine, **others}, versions


def _plan_size(model: onnx.ModelProto, precision: str, ranges: Mapping[str, float]) -> int | str:
    """Bytes of the TensorRT-RTX plan, or why there is none."""
    try:
        require_library("tensorrt-rtx")
        half, _ = to_half(model, ranges)
        return len(build_plan("tensorrt-rtx", half.SerializeToString(), precision, CompileOptions()).data)
    except Exception as error:  # other quantisers' graphs meet our passes with every kind of exception
        return _reason(error)


def _engine(
    checkpoint: Checkpoint, source: Source, model: onnx.ModelProto, directory: Path, faces: tuple[np.ndarray, ...]
) -> Path | str:
    """The directory of a cpu engine, checked against its graph, or why there is none."""
    precision = "fp32" if model is source.graph else "int8"
    directory.mkdir()
    try:
        try:
            files, library = cpu.write_ir(model, precision, directory)
        except (KeyError, IndexError, TypeError):
            # The pass to UINT8 knows our graphs only. As a float graph, the pairs go to OpenVINO as they are.
            files, library = cpu.write_ir(model, "fp32", directory)
        Sidecar(
            backend="cpu",
            backend_version=library,
            precision=precision,
            classes=list(checkpoint.classes),
            image_input=IMAGE_INPUT,
            patch_radius=checkpoint.model.config.patch_radius,
            trained=checkpoint.trained,
            batch=BatchRange(1, 1, 1),
            files={name: sha256(directory / name) for name in files},
            checkpoint_sha256=checkpoint.sha256,
            graph_sha256=source.sha256,
            built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            build_seconds=0.0,
            ampnet_opt_version=__version__,
        ).write(directory)
        verify(directory, model, source.graph, *faces)
        return directory
    except Exception as error:  # as above
        return _reason(error)


def _latencies(
    engines: Mapping[str, Path | str],
    face: tuple[np.ndarray, np.ndarray],
    runs: int,
    threads: int,
    progress: Callable[[float], None],
) -> dict[str, Latency | str]:
    """Latency of every engine on one face, all in turns; in place of an engine that was not built, why."""
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(Subject(name, "engine", engine, threads)))
            for name, engine in engines.items()
            if isinstance(engine, Path)
        }
        seconds = time_in_turns(list(workers.values()), *face, runs, progress=lambda _, done, total: progress(done))
    times: dict[str, Latency | str] = {name: text for name, text in engines.items() if isinstance(text, str)}
    return {**times, **{name: latency(took, 1) for name, took in zip(workers, seconds, strict=True)}}


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _environment(others: Mapping[str, str]) -> Environment:
    versions = {"ampnet-opt": __version__, "python": platform.python_version(), "numpy": np.__version__}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except ImportError:  # the column says so
            continue
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Environment(processor_name(), available_cores(), platform.platform(), {**versions, **others}, date)


def main() -> int:
    parser = argparse.ArgumentParser(description="Our INT8 graphs beside those of Model Optimizer and ONNX Runtime")
    parser.add_argument("checkpoint", type=Path, nargs="?", default=CHECKPOINT)
    parser.add_argument("--data", type=Path, required=True, help="CSV of labelled faces with the splits train and test")
    parser.add_argument("--faces", type=int, default=256, help="of split train, to calibrate on, spread evenly")
    parser.add_argument("--test-faces", type=int, default=1024, help="of split test, to score on, spread evenly")
    parser.add_argument("--modelopt-python", type=Path, help="the Python of an environment that has Model Optimizer")
    parser.add_argument("--classes", help="as for `build`, of a checkpoint that carries none")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("-o", "--output", type=Path, help="JSON of all that was measured")
    options = parser.parse_args()
    try:
        require_positive(faces=options.faces, test_faces=options.test_faces)
        calibration = spread(read_faces(options.data, "train"), options.faces)
        test = spread(read_faces(options.data, "test"), options.test_faces)
        checkpoint = read_checkpoint(options.checkpoint, options.classes and parse_classes(options.classes))
        with steps() as step:
            report = compare_quantisers(
                checkpoint,
                options.checkpoint,
                calibration,
                test,
                python=options.modelopt_python,
                runs=options.runs,
                threads=options.threads,
                step=step,
            )
        if options.output is not None:
            write_json(options.output, asdict(report))
    except AmpnetError as error:
        return fail(error)
    except KeyboardInterrupt:
        return 130
    if options.markdown:
        print(to_markdown(report))
        return 0
    console().print(render_quantisers(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
