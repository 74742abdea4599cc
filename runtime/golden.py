"""Whether an engine computes what its graph does: its logits on a few faces, beside those of the float graph."""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.npy import read_header, read_numbers
from ampnet_opt.runtime.engine import Engine
from ampnet_opt.runtime.sidecar import Accuracy, Sidecar

DRAWN, CALIBRATION = "drawn", "calibration"  # faces that are measured on
# SQNR in dB. Networks that were calibrated on faces are at 20 or more, on black pictures or noise of the wrong brightness
# at 6 or less, where half of their answers may be others; docs/results/int8.md has the numbers.
REFUSED, DOUBTED = 6.0, 14.0
LOWEST = -99.0


def accuracy_of(on: str, logits: np.ndarray, reference: np.ndarray, engine: bool) -> Accuracy:
    """logits, reference: float32 [N, classes], N > 1; the reference is the float network's."""
    same = float((logits.argmax(1) == reference.argmax(1)).mean())
    return Accuracy(on, len(logits), same, spread_sqnr(logits, reference), engine)


def spread_sqnr(logits: np.ndarray, reference: np.ndarray) -> Optional[float]:
    """10 log10 of the squared distances of the reference's rows from their mean, over those of `logits` from it, dB.

    The plain ratio would count what all faces have in common as signal: logits of untrained networks are little else.
    None: no noise at all; LOWEST: no signal, or logits that are not finite.
    """
    wanted = reference.astype(np.float64)
    noise = float(np.square(logits - wanted).sum())
    signal = float(np.square(wanted - wanted.mean(0)).sum())
    if noise == 0:
        return None
    return max(10 * math.log10(signal / noise), LOWEST) if signal > 0 and math.isfinite(noise) else LOWEST


def require_close(found: Sequence[Accuracy], trained: bool) -> None:
    """AmpnetError when INT8 does not answer like the float network. Untrained weights mean nothing, and are not judged."""
    for accuracy in found if trained else ():
        if not _at_least(accuracy, REFUSED):
            raise AmpnetError(
                f"INT8 does not answer like the float network ({accuracy}; needed: {REFUSED:g} dB): calibrate on more, and "
                "more varied, pictures of faces (--data, --faces), or take --fp16"
            )


def doubts(found: Sequence[Accuracy], trained: bool) -> Sequence[str]:
    """A sentence where INT8 moves the answers further than it should."""
    doubted = [accuracy for accuracy in found if trained and not _at_least(accuracy, DOUBTED)]
    advice = f"under {DOUBTED:g} dB: calibrate on more, and more varied, faces, or keep layers out of INT8 (--min-sqnr)"
    return [f"INT8 moves the answers far: {accuracy}, {advice}" for accuracy in doubted]


def _at_least(accuracy: Accuracy, bound: float) -> bool:
    return accuracy.sqnr_db is None or accuracy.sqnr_db >= bound


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
        return [accuracy_of(on, got, wanted, engine) for on, got, wanted in pairs if len(wanted) > 1]

    def explained(self, logits: np.ndarray) -> Proof:
        """The same for engines of an INT8 graph that has these logits, float32 [N, classes], on the golden faces."""
        return replace(self, graph_error=self.golden.error(logits), accuracy=self.measure(logits, engine=False))

    def drawn(self) -> Proof:
        """With the drawn faces alone."""
        rows = slice(0, len(self.golden.logits) - self.calibration)
        golden = Golden(self.golden.images[rows], self.golden.landmarks[rows], self.golden.logits[rows])
        return replace(self, golden=golden, calibration=0)


def tolerated_error(graph_error: float) -> float:
    """The largest `relative_error` of an engine whose graph has `graph_error` itself."""
    return FACTOR * graph_error + HALF_ERROR


class WrongAnswers(AmpnetError):
    """An engine computes something else than its graph. size: of the batch that showed it."""

    def __init__(self, size: int, message: str) -> None:
        super().__init__(message)
        self.size = size


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
            (size, f"{size} at a time"): np.concatenate(
                [engine.infer(images[rows], landmarks[rows]) for rows in _batches(count, size)]
            )
            for size in sorted({1, engine.sidecar.batch.opt, count})
        }
        ways[count, "as many faces"] = np.stack(list(engine.infer_each(zip(images, landmarks))))
        for (size, how), logits in ways.items():
            error = golden.error(logits[:count])
            if not error <= tolerated_error(graph_error):
                raise WrongAnswers(
                    size,
                    f"{engine.sidecar.backend} {engine.sidecar.backend_version} computes this graph wrongly: run {how}, its "
                    f"logits are off by {error:.0%}, the graph's own by {graph_error:.0%}; {_advice(engine.sidecar)}",
                )
    return ways[1, "1 at a time"]


def _advice(sidecar: Sidecar) -> str:
    """TensorRT 10.3 computes some graphs wrongly where shapes are dynamic (its issues 4330 and 4419)."""
    another, batch = "install another version of it", sidecar.batch
    if batch.min == batch.max:
        return another
    return f"build for one batch size (--static-batch {batch.opt}), or {another}"


def _batches(count: int, size: int) -> List[np.ndarray]:
    """Numbers of `count` faces in batches of `size`, the last filled up with the first faces again."""
    filled = np.arange(-(-count // size) * size) % count
    return list(filled.reshape(-1, size))
