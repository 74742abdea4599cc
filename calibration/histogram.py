"""Histograms of what the float graph holds on calibration faces, in fixed memory; and doubts about these faces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import sha256
from ampnet_opt.core.onnx_session import onnx_session
from ampnet_opt.core.text import count
from ampnet_opt.faces.face import Face, load_face, spread

BINS = 4096
SMALLEST_LIMIT = 1e-30  # under it, 1 / width leaves float32


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


Progress = Callable[[int], None]


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
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    session = onnx_session(tapped)
    del tapped
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


FEW = 32  # different pictures; with fewer, ranges that some faces need are missed
LOOKED_AT = 64  # pictures whose pixels are read: a millisecond each
BLANK = 4.0  # standard deviation of the pixels, in levels of 255; of pictures of faces it is 30 to 80, of dark ones 10


def doubts(faces: Sequence[Face]) -> list[str]:
    """A sentence for each reason why ranges measured on `faces` will not do for others; [] for good ones."""
    found = []
    different = len({sha256(face.file) for face in faces})
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
