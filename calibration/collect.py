"""Run the float graph on faces and keep a histogram of every tensor that is to be quantised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx

from ampnet_opt.calibration.histogram import Histogram
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.network.onnx_session import onnx_session

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
