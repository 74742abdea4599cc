"""From a float checkpoint to a network that trains as its INT8 graph computes, and the scales that belong to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ampnet_opt.calibration.ranges import DEFAULT
from ampnet_opt.calibration.table import CalibrationTable, read_table
from ampnet_opt.convert.source import Int8, Source, calibrate, source_of
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.files import sha256
from ampnet_opt.core.progress import Steps
from ampnet_opt.faces.face import Face, fingerprint
from ampnet_opt.network.checkpoint import Checkpoint
from ampnet_opt.network.model import AMPNet
from ampnet_opt.training.fake_quantised import add_to_biases, insert_pairs

CALIBRATING = 256  # faces


def give_scales(table: Path, checkpoint: Path) -> None:
    """Record in the calibration table that its scales are those of the finished checkpoint.

    The corrections go: they are of the weights before training, and the biases of the finished ones were trained from there.
    """
    replace(read_table(table), checkpoint_sha256=sha256(checkpoint), corrections={}).write(table)


def for_int8(checkpoint: Checkpoint, faces: Sequence[Face], table: Path, step: Steps, *, force: bool) -> AMPNet:
    """The checkpoint's own network, changed to compute what its exported INT8 graph does; its parameters stay in place.

    It starts where calibration on `faces` ends: with the same scales, which are written to `table`, and with the biases
    corrected. Training moves the weights, not the scales, so that engines of the fine-tuned checkpoint take the same table,
    and no further correction. Without `force`, a table that stands there is taken: it is that of an interrupted
    run, or a MisuseError.
    """
    with step("exporting the graph", 0):
        source = source_of(checkpoint, "uint8")
    if table.exists() and not force:
        int8 = Int8(read_table(table))
        _require_own(int8.table, table, source, faces)
    else:
        with step(f"calibrating ({DEFAULT})", len(faces)) as progress:
            int8 = calibrate(source, faces, DEFAULT, progress)
        int8.table.write(table)
    insert_pairs(checkpoint.model, source.graph, source.placement, int8.table.scales)
    add_to_biases(checkpoint.model, int8.corrections or {})
    return checkpoint.model


def _require_own(found: CalibrationTable, file: Path, source: Source, faces: Sequence[Face]) -> None:
    own = (source.checkpoint_sha256, fingerprint(faces), DEFAULT, source.placement.tensors.keys())
    if (found.checkpoint_sha256, found.data_fingerprint, found.method, found.scales.keys()) != own:
        raise MisuseError(f"{file} exists already and is not of an interrupted run like this; pass --force to replace it")
