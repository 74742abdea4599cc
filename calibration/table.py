"""The calibration table: one INT8 scale a tensor, as a file that people can read and compare.

Beside the scales it holds all that a build needs to make the same engine again without the faces.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Optional

import numpy as np

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.field_types import require_types
from ampnet_opt.core.files import PathLike, write_text
from ampnet_opt.core.json_files import read_json
from ampnet_opt.core.text import one_line

__all__ = ["CalibrationTable", "read_table", "scale_of", "shared_scales"]

FORMAT = "ampnet-opt-calibration/1"
LARGEST = 127
HALF = np.finfo(np.float16)
SMALLEST, HIGHEST = float(HALF.tiny), float(HALF.max)  # of scales: what float16 holds with all digits
STORED = np.dtype("<f4")  # of bias corrections


@dataclass(frozen=True)
class CalibrationTable:
    """INT8 scales, what else calibration gave, and what it was measured on.

    Attributes:
        method: how ranges became scales, of `ranges.METHODS`.
        faces: how many were seen.
        data_fingerprint: of those faces (`faces.face.fingerprint`).
        graph_sha256: of the float graph they ran through.
        scales: tensor -> scale; a real value is scale * INT8.
        checkpoint_sha256: of the checkpoint that the scales are for; "" in tables from before that was recorded.
        corrections: layer -> what is added to its bias, one number an output, as base64 of little-endian float32; empty
            where the biases belong to the scales already; None in tables from before they were recorded.
        large_tensors: tensor -> its largest magnitude, of those too large to be computed in FP16; None where no build
            needed to know.
        seen: `faces.face.identity` of each of those faces; None in tables from before that was recorded.
    """

    method: str
    faces: int
    data_fingerprint: str
    graph_sha256: str
    scales: Mapping[str, float]
    checkpoint_sha256: str = ""
    corrections: Optional[Mapping[str, str]] = None
    large_tensors: Optional[Mapping[str, float]] = None
    seen: Optional[Sequence[str]] = None

    def with_corrections(self, corrections: Mapping[str, np.ndarray]) -> CalibrationTable:
        """The table with these bias corrections, float32 [outputs] by the name of the layer."""
        stored = {layer: b64encode(values.astype(STORED).tobytes()).decode() for layer, values in corrections.items()}
        return replace(self, corrections=stored)

    def decoded_corrections(self) -> dict[str, np.ndarray]:
        """Bias corrections, float32 [outputs] by the name of the layer; none where the table holds none.

        Raises:
            ValueError: one of them is not what `with_corrections` stores.
        """
        return {layer: _decoded(text, layer) for layer, text in (self.corrections or {}).items()}

    def write(self, path: PathLike) -> None:
        """Write the file that `read_table` reads, whole or not at all."""
        write_text(path, self.to_json())

    def to_json(self) -> str:
        """The contents of that file."""
        # An old table stays the file that it was, byte for byte.
        content = {name: value for name, value in asdict(self).items() if value is not None}
        return json.dumps({"format": FORMAT, **content}, indent=2) + "\n"

    def require_for(self, checkpoint_sha256: str, graph_sha256: str) -> None:
        """Require that the scales are of this network.

        Raises:
            MisuseError: they were measured on another checkpoint, or, where that was not recorded, on another graph.
        """
        known = self.checkpoint_sha256
        if (known or self.graph_sha256) != (checkpoint_sha256 if known else graph_sha256):
            raise MisuseError(
                "the scales (--scales) are of another checkpoint: take the calibration table that belongs to this one, or "
                "leave out --scales to calibrate it"
            )


def read_table(path: PathLike) -> CalibrationTable:
    """Read a calibration table.

    Raises:
        MisuseError: there is no such file.
        AmpnetError: it is no calibration table, or holds a scale that `scale_of` never gives, or a damaged correction.
    """
    file = Path(path)
    try:
        content = read_json(file, "calibration table")
        if content.pop("format") != FORMAT:
            raise AmpnetError(f"{file} is a calibration table of another format than {FORMAT}")
        table = CalibrationTable(**content)
        require_types(table, CalibrationTable)
        table.decoded_corrections()
        good = all(SMALLEST <= scale <= HIGHEST for scale in table.scales.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AmpnetError(f"{file} is not a calibration table: {one_line(error, 120)}") from error
    if not good:
        raise AmpnetError(f"{file} holds a scale that is not a number from {SMALLEST:.2g} to {HIGHEST:g}: calibrate again")
    return table


def _decoded(text: str, layer: str) -> np.ndarray:
    try:
        values = np.frombuffer(b64decode(text, validate=True), STORED).astype(np.float32)
    except ValueError:
        values = np.empty(0, np.float32)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"the bias correction of {layer!r} is no base64 of finite float32 numbers")
    return values


def scale_of(amax: float) -> float:
    """The INT8 scale of a range: `amax / 127`, rounded up to a number that float16 holds exactly.

    FP16 and FP32 graphs so have equal scales.

    Args:
        amax: largest magnitude that INT8 has to hold.

    Returns:
        At least 2**-14, the smallest normal float16: a tensor of zeros has no range, but its scale must be over 0.

    Raises:
        AmpnetError: float16 does not hold the scale.
    """
    exact = max(amax / LARGEST, SMALLEST)
    if not exact <= HIGHEST:
        raise AmpnetError(
            f"activations of up to {amax:.3g} are too large for INT8 scales; are the checkpoint's weights right?"
        )
    half = np.float16(exact)
    return float(half if float(half) >= exact else np.nextafter(half, np.float16(np.inf)))


def shared_scales(amax: Mapping[str, float], groups: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Scale of every tensor.

    Args:
        amax: tensor -> its range.
        groups: name -> the tensors of a group, which share the scale of their largest range.
    """
    return {
        tensor: scale
        for members in groups.values()
        for scale in [scale_of(max(amax[t] for t in members))]
        for tensor in members
    }
