"""From a float checkpoint to a network that trains as its INT8 graph computes, and the scales that belong to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ampnet_opt.calibration.ranges import DEFAULT
from ampnet_opt.calibration.table import read_table
from ampnet_opt.convert.source import calibrate, source_of
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import sha256
from ampnet_opt.core.progress import Steps
from ampnet_opt.faces.face import Face
from ampnet_opt.network.checkpoint import Checkpoint
from ampnet_opt.network.model import AMPNet
from ampnet_opt.training.fake_quantised import add_to_biases, insert_pairs

CALIBRATING = 256  # faces


def give_scales(table: Path, checkpoint: Path) -> None:
    """Record in the calibration table that its scales are those of the finished checkpoint.

    The corrections go: they are of the weights before training, and the biases of the finished ones were trained from there.
    """
    replace(read_table(table), checkpoint_sha256=sha256(checkpoint), corrections={}).write(table)


def for_int8(checkpoint: Checkpoint, faces: Sequence[Face], table: Path, resumed: bool, step: Steps) -> AMPNet:
    """The checkpoint's own network, changed to compute what its exported INT8 graph does; its parameters stay in place.

    It starts where calibration on `faces` ends: with the same scales, which are written to `table`, and with the biases
    corrected. Training moves the weights, not the scales, so that engines of the fine-tuned checkpoint take the same table,
    and no further correction. A resumed run reads the scales from `table` and has its biases from its state. Raises
    AmpnetError when the table is not of this network.
    """
    with step("exporting the graph", 0):
        source = source_of(checkpoint, "uint8")
    if resumed:
        scales, corrections = read_table(table).scales, None
        if scales.keys() != source.placement.tensors.keys():
            raise AmpnetError(f"{table} is not of this network; pass --force to start over")
    else:
        with step(f"calibrating ({DEFAULT})", len(faces)) as progress:
            int8 = calibrate(source, faces, DEFAULT, progress)
        int8.table.write(table)
        scales, corrections = int8.table.scales, int8.corrections
    insert_pairs(checkpoint.model, source.graph, source.placement, scales)
    if corrections is not None:
        add_to_biases(checkpoint.model, corrections)
    return checkpoint.model
