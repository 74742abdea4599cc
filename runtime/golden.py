"""Whether an engine computes what its graph does: its logits on a few faces, beside those of the float graph."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Dict, List, Sequence

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.npy import read_header, read_numbers
from ampnet_opt.runtime.accuracy import CALIBRATION, DRAWN, Accuracy, measure
from ampnet_opt.runtime.engine import Engine
from ampnet_opt.runtime.sidecar import Sidecar

# Twice the graph's own error, and what rounding to half precision costs: above it the backend computes something else.
FACTOR = 2.0
HALF_ERROR = 0.05
LARGEST = 32 << 20  # bytes; seven faces are 4 million


@dataclass(frozen=True)
class Golden:
    """images, landmarks: as the graph takes them, more than one; logits float32 [N, classes]: the float graph's."""

    images: np.ndarray
    landmarks: np.ndarray
    logits: np.ndarray

    def to_bytes(self) -> bytes:
        stream = io.BytesIO()
        np.savez_compressed(stream, images=self.images, landmarks=self.landmarks, logits=self.logits)
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Golden:
        """What `to_bytes` gave. Raises ValueError when it is something else."""
        golden = cls(**_arrays(data))
        count = len(golden.images) if golden.images.ndim == 4 else 0
        shapes = golden.landmarks.shape == (count, 5, 2) and golden.logits.ndim == 2 and len(golden.logits) == count
        if count < 2 or not shapes or {golden.landmarks.dtype.kind, golden.logits.dtype.kind} != {"f"}:
            raise ValueError("its faces and logits do not fit together")
        if not np.isfinite(golden.logits).all() or not golden.logits.any():
            raise ValueError("the logits of its faces say nothing")
        return golden

    def error(self, logits: np.ndarray) -> float:
        return relative_error(logits, self.logits)


def _arrays(data: bytes) -> Dict[str, np.ndarray]:
    """The arrays of a .npz file. Raises ValueError, before memory is taken for them, when they are not those of `Golden`."""
    names = [field.name for field in fields(Golden)]
    if len(data) > LARGEST or data.count(b"PK\1\2") > 2 * len(names):  # the entries, before zipfile makes objects of them
        raise ValueError("its faces are too large")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            if sorted(sizes) != sorted(f"{name}.npy" for name in names) or sum(sizes.values()) > LARGEST:
                raise ValueError("its faces are not those of a bundle")
            arrays = {}
            for name in names:
                with archive.open(f"{name}.npy") as stream:
                    header = read_header(stream)
                    if header.dtype.kind not in "uf":
                        raise ValueError("its faces are no numbers")
                    arrays[name] = read_numbers(stream, header, sizes[f"{name}.npy"])
            return arrays
    except ValueError:
        raise
    except Exception as error:  # damage meets zipfile with every kind of exception, some without a word
        raise ValueError(str(error) or "its faces are damaged") from error


@dataclass(frozen=True)
class Proof:
    """What an engine has to answer.

    golden: faces with the float network's logits, the last `calibration` of which are of the calibration, the others drawn.
    graph_error: as of `Golden.error`, of the graph that the engine is built from. accuracy: of int8, what was measured of
    that graph.
    """

    golden: Golden
    graph_error: float = 0.0
    accuracy: Sequence[Accuracy] = ()
    calibration: int = 0

    def measure(self, logits: np.ndarray, engine: bool) -> List[Accuracy]:
        """How far logits float32 [N, classes] of the golden faces are from the float network's, by kind of face."""
        drawn = len(self.golden.logits) - self.calibration
        kinds = {DRAWN: slice(0, drawn), CALIBRATION: slice(drawn, None)}
        pairs = ((on, logits[rows], self.golden.logits[rows]) for on, rows in kinds.items())
        return [measure(on, got, wanted, engine) for on, got, wanted in pairs if len(wanted) > 1]

    def explained(self, logits: np.ndarray) -> Proof:
        """The same for engines of an INT8 graph that has these logits, float32 [N, classes], on the golden faces."""
        return replace(self, graph_error=self.golden.error(logits), accuracy=self.measure(logits, engine=False))

    def drawn(self) -> Proof:
        """With the drawn faces alone."""
        rows = slice(0, len(self.golden.logits) - self.calibration)
        golden = Golden(self.golden.images[rows], self.golden.landmarks[rows], self.golden.logits[rows])
        return replace(self, golden=golden, calibration=0)


def relative_error(logits: np.ndarray, reference: np.ndarray) -> float:
    """Root of the mean square of the difference, over that of the reference."""
    return float(np.sqrt(np.mean((logits - reference) ** 2) / np.mean(reference**2)))


def require_right(directory: Path, golden: Golden, graph_error: float) -> np.ndarray:
    """The logits of an engine, float32 [N, classes], face by face; AmpnetError when it is further from the float graph than
    `graph_error`, that of the graph it was built from, explains. It runs the faces in all the ways that backends compile
    apart.
    """
    images, landmarks, count = golden.images, golden.landmarks, len(golden.images)
    with Engine.load(directory) as engine:
        ways = {
            f"{size} at a time": np.concatenate(
                [engine.infer(images[rows], landmarks[rows]) for rows in _batches(count, size)]
            )
            for size in sorted({1, engine.sidecar.batch.opt, count})
        }
        ways["as many faces"] = np.stack(list(engine.infer_each(zip(images, landmarks))))
        for how, logits in ways.items():
            error = golden.error(logits[:count])
            if not error <= FACTOR * graph_error + HALF_ERROR:
                raise AmpnetError(
                    f"{engine.sidecar.backend} {engine.sidecar.backend_version} computes this graph wrongly: run {how}, its "
                    f"logits are off by {error:.0%}, the graph's own by {graph_error:.0%}; {_advice(engine.sidecar)}"
                )
    return ways["1 at a time"]


def _advice(sidecar: Sidecar) -> str:
    """TensorRT 10.3 computes some graphs wrongly where shapes are dynamic (its issues 4330 and 4419)."""
    another, batch = "install another version of it", sidecar.batch
    if batch.min == batch.max:
        return another
    return f"build for one batch size (--min-batch {batch.opt} --max-batch {batch.opt}), or {another}"


def _batches(count: int, size: int) -> List[np.ndarray]:
    """Numbers of `count` faces in batches of `size`, the last filled up with the first faces again."""
    filled = np.arange(-(-count // size) * size) % count
    return list(filled.reshape(-1, size))
