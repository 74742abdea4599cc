"""Histograms of what the float graph holds on calibration faces, in fixed memory, kept in the user's cache; doubts about
these faces.

A graph sees its data once, and an interrupted calibration resumes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from ampnet_opt import __version__
from ampnet_opt.core.cache import cache_folder, forget_oldest
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import new_file
from ampnet_opt.core.onnx_bytes import serialised
from ampnet_opt.core.onnx_session import onnx_session
from ampnet_opt.core.text import count
from ampnet_opt.faces.face import Face, load_face, spread
from ampnet_opt.faces.repeats import first_of_each

BINS = 4096
SMALLEST_LIMIT = 1e-30  # under it, 1 / width leaves float32
VERSION = 1  # of what is stored: raise it when the same graph and faces would give other histograms, or another file
INTERVAL = 32  # faces between two stores, at least
LARGEST_CACHE = 256 << 20  # bytes; a calibration is 2 MB
FEW = 32  # different pictures; with fewer, ranges that some faces need are missed
LOOKED_AT = 64  # pictures whose pixels are read: a millisecond each
BLANK = 4.0  # standard deviation of the pixels, in levels of 255; of pictures of faces it is 30 to 80, of dark ones 10

Progress = Callable[[int], None]
# The faces given, in batches of (images, landmarks) as the graph takes them.
Load = Callable[[Sequence[Face]], Iterable[tuple[np.ndarray, np.ndarray]]]


@dataclass(eq=False)
class Histogram:
    """Counts of |x| in equal bins over [0, limit]; the range doubles, merging bins in pairs, when a larger value comes.

    Zeros are not counted: INT8 holds them exactly whatever the range is, and after a ReLU they would outnumber all else.

    counts: int64 [BINS]. limit: upper end of the last bin, 0 before any non-zero value. amax: largest |x| seen. Values
    that are not finite raise ValueError. These three fields are all there is to store.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    limit: float = 0.0
    amax: float = 0.0

    def add(self, values: np.ndarray) -> None:
        magnitudes = np.abs(values, dtype=np.float32).ravel()
        largest = float(magnitudes.max(initial=0))
        if not np.isfinite(largest):
            raise ValueError("values are not finite")
        if not largest:
            return
        self.amax = max(self.amax, largest)
        if not self.limit:
            self.limit = max(largest, SMALLEST_LIMIT)
        while self.limit < largest:
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.concatenate([merged, np.zeros_like(merged)])
            self.limit *= 2
        bins = np.minimum((magnitudes * np.float32(BINS / self.limit)).astype(np.int32), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)
        self.counts[0] -= magnitudes.size - np.count_nonzero(magnitudes)

    @property
    def width(self) -> float:
        """Width of a bin."""
        return self.limit / BINS


def collect(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    progress: Progress | None = None,
    histograms: dict[str, Histogram] | None = None,
) -> dict[str, Histogram]:
    """Histograms of `tensors` over all batches of (images, landmarks) as the graph takes them.

    Memory does not depend on the number of batches. progress: called after every batch with the number of faces done.
    histograms: those of `tensors` over earlier faces, which are added to. Raises AmpnetError when a tensor holds NaN or
    infinity.
    """
    session = onnx_session(serialised(_tapped(model, tensors)))
    if histograms is None:
        histograms = {name: Histogram() for name in tensors}
    done = 0
    for images, landmarks in batches:
        values = session.run(None, {"image": images, "landmarks": landmarks})
        for name, value in zip(tensors, values, strict=True):
            try:
                histograms[name].add(value)
            except ValueError as error:
                raise AmpnetError(
                    f"tensor {name} holds NaN or infinity on the calibration faces; FP16 or FP32 it is"
                ) from error
        done += len(images)
        if progress is not None:
            progress(done)
    return histograms


def _tapped(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """The graph with these outputs."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    return tapped


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


def doubts(faces: Sequence[Face]) -> list[str]:
    """A sentence for each reason why ranges measured on `faces` will not do for others; [] for good ones."""
    found = []
    different = len(set(first_of_each(faces)))
    if different < min(FEW, len(faces)) or 2 * different < len(faces):
        found.append(f"of the {len(faces)} calibration faces only {different} are different pictures")
    if different < FEW:
        found.append(f"INT8 is calibrated on {count(different, 'picture')}: take {FEW} or more, as varied as those to come")
    looked_at = spread(faces, LOOKED_AT)
    blank = [face for face in looked_at if load_face(face)[0].std() < BLANK]
    if blank:
        share = f"{len(blank)} of {count(len(looked_at), 'calibration picture')}"
        found.append(f"{share} {'is' if len(blank) == 1 else 'are'} blank, {blank[0].file.name} for one")
    return found
