"""`python -m ampnet_opt.benchmarks.quantisers --data faces.csv`: our INT8 networks beside those of other quantisers.

Every quantiser gets the same float graph and the same calibration faces; every result is judged by the same code.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx

from ampnet_opt import __version__
from ampnet_opt.benchmarks.compare import Environment, require_positive
from ampnet_opt.benchmarks.noninferiority import count_answers
from ampnet_opt.benchmarks.quantisers_graphs import (
    IMAGE_INPUT,
    OutOfTime,
    empty_cache,
    model_optimizer,
    nncf,
    onnx_runtime,
    ours,
    ours_within,
)
from ampnet_opt.benchmarks.quantisers_report import QuantiserReport, Result, describe, render_quantisers, to_markdown
from ampnet_opt.benchmarks.workers import Subject, Worker, time_in_turns
from ampnet_opt.calibration.ranges import METHODS
from ampnet_opt.convert import openvino as cpu
from ampnet_opt.convert.float16 import to_half
from ampnet_opt.convert.graph import reachable
from ampnet_opt.convert.source import Source, float_ranges, source_of
from ampnet_opt.core.console import console
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import sha256, write_json
from ampnet_opt.core.graph_interface import INPUTS
from ampnet_opt.core.labels import label_indices, parse_classes
from ampnet_opt.core.messages import fail
from ampnet_opt.core.metrics import Latency, latency, sqnr, wilson
from ampnet_opt.core.onnx_session import graph_logits
from ampnet_opt.core.processor import available_cores, processor_name
from ampnet_opt.core.progress import Steps, steps
from ampnet_opt.faces.face import Face, load_batches, read_faces, spread
from ampnet_opt.network.checkpoint import Checkpoint, read_checkpoint
from ampnet_opt.runtime import Engine
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.golden import Golden, require_right
from ampnet_opt.runtime.sidecar import BatchRange, Sidecar
from ampnet_opt.runtime.tensorrt.compile import build_plan, require_library
from ampnet_opt.shipped import CHECKPOINT

SCORING_BATCH = 16
CHECKING_FACES = 8  # on which an engine is compared with its graph, as `build` does
MODEL_OPTIMIZER_METHODS = ("entropy", "max")
MAX_DROP = 0.5  # points of top-1 on the split val, for those that keep a budget
Batch = tuple[np.ndarray, np.ndarray]  # images and landmarks
LIBRARIES = ("torch", "onnx", "onnxruntime", "openvino", "tensorrt-rtx-cu13")


def activation_pairs(model: onnx.ModelProto) -> int:
    """Number of QuantizeLinear nodes on what depends on the graph's inputs; weights do not count."""
    varying = set[str]().union(*(reachable(model.graph, name) for name in INPUTS))
    return sum(node.op_type == "QuantizeLinear" and node.input[0] in varying for node in model.graph.node)


@dataclass(frozen=True)
class Inputs:
    """What all quantisers get.

    Attributes:
        checkpoint: read from `path`.
        data: the table of faces.
        calibration, validation, test: its faces of train, of val, which those that keep a budget judge themselves on, and of
            test, which are scored; labelled.
        modelopt, nncf: the Pythons that have Model Optimizer and NNCF, whose rows are left out without.
        nncf_minutes: after which NNCF is stopped and its row left out; None, never.
    """

    checkpoint: Checkpoint
    path: Path
    data: Path
    calibration: Sequence[Face]
    validation: Sequence[Face]
    test: Sequence[Face]
    modelopt: Path | None = None
    nncf: Path | None = None
    nncf_minutes: int | None = None

    def labels(self, faces: Sequence[Face]) -> np.ndarray:
        return np.array(label_indices(self.checkpoint.classes, [face.label for face in faces]))


def compare_quantisers(given: Inputs, *, runs: int, threads: int, step: Steps) -> QuantiserReport:
    """Quantise the checkpoint's float graph in every way and judge the results.

    step: as of `core.progress.steps`.
    """
    require_positive(runs=runs, threads=threads)
    checkpoint, labels = given.checkpoint, given.labels(given.test)
    with step("exporting the graph", 0):
        source = source_of(checkpoint, IMAGE_INPUT)
    with step("reading faces", 0):
        scored = source.batches(given.test, SCORING_BATCH)
        (seen,) = source.batches(given.calibration, len(given.calibration))
        few_seen, checking = ((images[:CHECKING_FACES], points[:CHECKING_FACES]) for images, points in (seen, scored[0]))
    graph, clock = source.graph, Clock()
    with tempfile.TemporaryDirectory() as folder:
        graphs, versions = _quantise(source, given, seen, clock, step)
        models = {"float graph": graph, **graphs}
        logits, plans = {}, {}
        ranges = float_ranges(graph, [few_seen])
        for name, model in models.items():
            with step(f"judging {name}", 0):
                logits[name] = graph_logits(model, scored)
                plans[name] = _plan_size(model, "fp16" if model is graph else "int8", ranges)
        engines = {}
        for i, (name, model) in enumerate(models.items()):
            engines[name] = _engine(checkpoint, source, model, Path(folder) / str(i), checking)
        made, others, stopped = _make_engines(source, given, seen, folder=Path(folder), clock=clock, step=step)
        for name, directory in made.items():
            with step(f"judging {name}", 0), Engine.load(directory, threads=threads) as engine:
                logits[name] = np.concatenate([engine.infer(*batch) for batch in scored])
        with step("timing", runs) as progress:
            face = next(load_batches(given.test[:1], 1))
            times = _latencies({**engines, **made}, face, runs, threads, progress)

    reference = logits["float graph"]
    results = []
    for name, answers in logits.items():
        first, made_of = name == "float graph", models.get(name)
        results.append(
            Result(
                name,
                wilson(int((answers.argmax(1) == labels).sum()), len(labels)),
                None if first or made_of is None else activation_pairs(made_of),
                None if first else count_answers(reference, answers, labels),
                None if first else sqnr(reference, answers),
                clock.seconds.get(name),
                times[name],
                plans.get(name),
            )
        )
    return QuantiserReport(
        str(given.path),
        checkpoint.sha256,
        checkpoint.trained,
        len(given.calibration),
        len(given.test),
        threads,
        _environment({**versions, **others}),
        results,
        [*stopped, *describe(results, checkpoint.trained, given.modelopt, given.nncf)],
    )


class Clock:
    """Wall-clock seconds of each quantiser, by its name in the table."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def _quantise(
    source: Source, given: Inputs, seen: Batch, clock: Clock, step: Steps
) -> tuple[dict[str, onnx.ModelProto], dict[str, str]]:
    """Q/DQ graphs by their names in the table, and the versions of Model Optimizer's libraries.

    seen: the calibration faces as the graph takes them.
    """
    others: dict[str, onnx.ModelProto] = {}
    mine: dict[str, onnx.ModelProto] = {}
    versions: dict[str, str] = {}
    for method in MODEL_OPTIMIZER_METHODS if given.modelopt is not None else ():
        name = f"Model Optimizer, {method}"
        with step(name, 0), clock(name):
            assert given.modelopt is not None
            others[name], found = model_optimizer(given.modelopt, source.graph, *seen, method)
        versions = {name if "modelopt" in name else f"Model Optimizer's {name}": text for name, text in found.items()}
    with step("ONNX Runtime", 0), clock("ONNX Runtime, entropy"):
        others["ONNX Runtime, entropy"] = onnx_runtime(source.graph, *seen)
    for method in METHODS:
        name = f"ours, {method}"
        with step(name, len(given.calibration)) as progress, empty_cache(), clock(name):
            mine[name] = ours(source, given.calibration, method, progress)
    return {**mine, **others}, versions


def _make_engines(
    source: Source, given: Inputs, seen: Batch, *, folder: Path, clock: Clock, step: Steps
) -> tuple[dict[str, Path], dict[str, str], list[str]]:
    """Engine directories of those that make engines themselves, by their names; the versions of NNCF's libraries; and which
    of them was stopped. seen: as of `_quantise`."""
    made: dict[str, Path] = {}
    versions: dict[str, str] = {}
    stopped: list[str] = []
    name = f"ours, --max-drop {MAX_DROP}"
    with step(name, 0), empty_cache(), clock(name):
        made[name] = folder / "within"
        ours_within(given.path, given.data, len(given.calibration), MAX_DROP, made[name])
    if given.nncf is None:
        return made, versions, stopped
    (held_out,) = source.batches(given.validation, len(given.validation))
    validation = (*held_out, given.labels(given.validation))
    for name, max_drop in (("NNCF", None), (f"NNCF, accuracy control {MAX_DROP}", MAX_DROP)):
        directory = folder / name.replace(" ", "-")
        directory.mkdir()
        result, minutes = directory / "engine.xml", given.nncf_minutes
        try:
            with step(name, 0), clock(name):
                versions = nncf(
                    given.nncf, source.graph, seen, validation, max_drop=max_drop, result=result, minutes=minutes
                )
        except OutOfTime:
            stopped.append(f"{name}: stopped after {minutes} minutes.")
            continue
        files, library = ["engine.xml", "engine.bin"], versions["openvino"]
        about = _sidecar(given.checkpoint, source, directory, files=files, library=library, precision="int8")
        about.write(directory)
        made[name] = directory
    return made, {name if name == "nncf" else f"NNCF's {name}": text for name, text in versions.items()}, stopped


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
        _sidecar(checkpoint, source, directory, files=files, library=library, precision=precision).write(directory)
        _require_right(directory, model, source.graph, *faces)
        return directory
    except Exception as error:  # as above
        return _reason(error)


def _require_right(
    directory: Path, model: onnx.ModelProto, graph: onnx.ModelProto, images: np.ndarray, landmarks: np.ndarray
) -> None:
    """AmpnetError when the engine's logits are further from the float graph's than its own graph, `model`, explains."""
    golden = Golden(images, landmarks, graph_logits(graph, [(images, landmarks)]))
    own = 0.0 if model is graph else golden.error(graph_logits(model, [(images, landmarks)]))
    require_right(directory, golden, own)


def _sidecar(
    checkpoint: Checkpoint, source: Source, directory: Path, *, files: Sequence[str], library: str, precision: str
) -> Sidecar:
    return Sidecar(
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
    )


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
    parser = argparse.ArgumentParser(description="Our INT8 networks beside those of Model Optimizer, ONNX Runtime and NNCF")
    parser.add_argument("checkpoint", type=Path, nargs="?", default=CHECKPOINT)
    parser.add_argument("--data", type=Path, required=True, help="CSV of labelled faces with the splits train, val and test")
    parser.add_argument("--faces", type=int, default=256, help="of split train, to calibrate on, spread evenly")
    parser.add_argument("--test-faces", type=int, default=1024, help="of split test, to score on, spread evenly")
    parser.add_argument("--modelopt-python", type=Path, help="the Python of an environment that has Model Optimizer")
    parser.add_argument("--nncf-python", type=Path, help="the Python of an environment that has NNCF")
    parser.add_argument("--nncf-minutes", type=int, help="stop NNCF after this time, and leave out its row")
    parser.add_argument("--classes", help="as for `build`, of a checkpoint that carries none")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("-o", "--output", type=Path, help="JSON of all that was measured")
    options = parser.parse_args()
    try:
        require_positive(faces=options.faces, test_faces=options.test_faces)
        if options.nncf_minutes is not None:
            require_positive(nncf_minutes=options.nncf_minutes)
        checkpoint = read_checkpoint(options.checkpoint, options.classes and parse_classes(options.classes))
        given = Inputs(
            checkpoint,
            options.checkpoint,
            options.data,
            spread(read_faces(options.data, "train"), options.faces),
            read_faces(options.data, "val"),
            spread(read_faces(options.data, "test"), options.test_faces),
            options.modelopt_python,
            options.nncf_python,
            options.nncf_minutes,
        )
        with steps() as step:
            report = compare_quantisers(given, runs=options.runs, threads=options.threads, step=step)
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
