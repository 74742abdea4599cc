"""What a calibration measures, kept in the user's cache: a graph sees its data once, and an interrupted run resumes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from ampnet_opt import __version__
from ampnet_opt.calibration.histogram import Histogram, Progress, collect
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import cache_folder, forget_oldest, new_file
from ampnet_opt.faces.face import Face

VERSION = 1  # of what is stored: raise it when the same graph and faces would give other histograms, or another file
INTERVAL = 32  # faces between two stores, at least
LARGEST_CACHE = 256 << 20  # bytes; a calibration is 2 MB

# The faces given, in batches of (images, landmarks) as the graph takes them.
Load = Callable[[Sequence[Face]], Iterable[tuple[np.ndarray, np.ndarray]]]


def histograms(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    faces: Sequence[Face],
    load: Load,
    *,
    graph_sha256: str,
    data_fingerprint: str,
    progress: Progress,
    note: Callable[[str], object],
) -> dict[str, Histogram]:
    """What `collect` gives for all faces, without running those that are in the cache, where the rest goes as it is done.

    Equal bit by bit to those of a run without a cache, if `load` makes batches of one size. graph_sha256, data_fingerprint:
    of `model` and of `faces` (`faces.fingerprint`), by which the cache knows them. progress: called with the number of
    faces done. note: told once, in a sentence, when the cache cannot be written; the run goes on. Raises AmpnetError when
    a tensor holds NaN or infinity.
    """
    name = f"{_key(graph_sha256, data_fingerprint, *tensors)}.npz"
    try:
        file = cache_folder("calibration") / name
    except AmpnetError as error:
        note(f"this calibration is not cached: {error}")
        return collect(model, tensors, load(faces), progress)
    start, found = _read(file, tensors)
    if start:
        progress(start)
    if start == len(faces):
        return found
    stored, writable = start, True

    def advance(count: int) -> None:
        nonlocal stored, writable
        done = start + count
        if writable and (done - stored >= INTERVAL or done == len(faces)):
            try:
                _write(file, done, found)
                stored = done
            except AmpnetError as error:
                writable = False
                note(f"this calibration is not cached: {error}")
        progress(done)

    return collect(model, tensors, load(faces[start:]), advance, found)


def arrays(key: Sequence[object], names: Sequence[str], make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What `make()` gives, an array for each of `names`: from the cache, or put there.

    key: all that they depend on, as JSON, but for the versions of what reads and runs the data. That the cache cannot be
    written is not said: `histograms`, which comes first, does.
    """
    try:
        file = cache_folder("calibration") / f"{_key(*key)}.npz"
    except AmpnetError:
        return make()
    with contextlib.suppress(Exception), np.load(file, allow_pickle=False) as content:  # as in `_read`
        return {name: content[str(i)] for i, name in enumerate(names)}
    made = make()
    with contextlib.suppress(AmpnetError):
        _store(file, {str(i): made[name] for i, name in enumerate(names)})
    return made


def _key(*parts: object) -> str:
    """Hex digest of `parts` and the versions of what reads and runs the data."""
    return hashlib.sha256(json.dumps([VERSION, __version__, onnxruntime.__version__, *parts]).encode()).hexdigest()


def _read(file: Path, tensors: Sequence[str]) -> tuple[int, dict[str, Histogram]]:
    """Number of faces done and their histograms; none where there is no such file, or it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as content:
            done, counts, limit, amax = (content[name] for name in ("done", "counts", "limit", "amax"))
        rows = zip(tensors, counts, limit.tolist(), amax.tolist(), strict=True)
        return int(done), {name: Histogram(*row) for name, *row in rows}
    except Exception:  # damage meets numpy and zipfile with every kind of exception; the next store replaces the file
        return 0, {name: Histogram() for name in tensors}


def _write(file: Path, done: int, found: dict[str, Histogram]) -> None:
    """Store the state after `done` faces; errors as of `_store`."""
    counts, limit, amax = zip(*((h.counts, h.limit, h.amax) for h in found.values()), strict=True)
    _store(file, {"done": np.array(done), "counts": np.array(counts), "limit": np.array(limit), "amax": np.array(amax)})


def _store(file: Path, content: dict[str, np.ndarray]) -> None:
    """Write a file of arrays, and forget the oldest. Raises AmpnetError when it cannot be written."""
    with new_file(file, durable=False) as temporary:
        np.savez_compressed(temporary, **content)  # type: ignore[arg-type]
    forget_oldest(file.parent, "*.npz", LARGEST_CACHE)
