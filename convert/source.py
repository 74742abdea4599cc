"""What engines and analyses start from: the float graph of a checkpoint, what INT8 and FP16 have to know, and its proof."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256

import numpy as np
import onnx

from ampnet_opt.calibration.histogram import Progress, arrays, collect, doubts, histograms
from ampnet_opt.calibration.ranges import METHODS
from ampnet_opt.calibration.table import CalibrationTable, shared_scales
from ampnet_opt.convert.bias_correction import bias_corrections
from ampnet_opt.convert.export import export, random_faces
from ampnet_opt.convert.float16 import too_large
from ampnet_opt.convert.graph import GraphIndex
from ampnet_opt.convert.placement import Placement, place
from ampnet_opt.convert.quantize import quantize
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.graph_interface import ImageInput
from ampnet_opt.core.onnx_bytes import serialised
from ampnet_opt.core.onnx_session import graph_logits
from ampnet_opt.core.processor import release_memory
from ampnet_opt.faces.face import Face, fingerprint, identity, load_batches, read_faces, spread
from ampnet_opt.network.checkpoint import Checkpoint
from ampnet_opt.runtime.engine import engine_inputs
from ampnet_opt.runtime.golden import Golden, Proof
from ampnet_opt.shipped import GOLDEN_FACES

log = logging.getLogger(__name__)

CORRECTING_FACES = 64  # means over all positions settle long before ranges do
RANGING_FACES = 8  # that FP16 is measured on
PROOF_FACES = 4  # of the calibration's, that engines are compared on


@dataclass(frozen=True)
class Source:
    """graph: float, with the image input `image_input`; sha256: of its bytes. placement: of Q/DQ pairs, all layers INT8.
    checkpoint_sha256: of the file that it was exported from."""

    graph: onnx.ModelProto
    sha256: str
    image_input: ImageInput
    placement: Placement
    checkpoint_sha256: str

    def batches(self, faces: Sequence[Face], size: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """(image, landmarks) of the faces, `size` at a time, as the graph takes them."""
        return [engine_inputs(images, points, self.image_input) for images, points in load_batches(faces, size)]


@dataclass(frozen=True)
class Int8:
    """What makes a float graph an INT8 one. table: all of it, so that a build from the table gives the same graph."""

    table: CalibrationTable

    @cached_property
    def corrections(self) -> Mapping[str, np.ndarray] | None:
        """Of the layers' biases, float32 [outputs]; None: they stay."""
        return self.table.decoded_corrections() or None

    def with_ranges(self, ranges: Mapping[str, float]) -> Int8:
        """The same, whose table names the large ones of `half_ranges`, measured on faces, for builds from the table."""
        return Int8(replace(self.table, large_tensors=too_large(ranges)))

    def quantize(self, graph: onnx.ModelProto, placement: Placement) -> onnx.ModelProto:
        """The Q/DQ graph of `graph`, which may be a part of the network."""
        return quantize(graph, placement, self.table.scales, self.corrections)


def float_ranges(graph: onnx.ModelProto, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Largest magnitude of every float tensor of a float graph: what FP16 has to hold."""
    nodes = graph.graph.node
    made = [name for node in nodes if node.op_type not in {"And", "Equal", "Less", "Not"} for name in node.output]
    return {name: histogram.amax for name, histogram in collect(graph, made, batches).items()}


def source_of(checkpoint: Checkpoint, image_input: ImageInput) -> Source:
    """Export a checkpoint; errors as of `export`."""
    graph = export(checkpoint, image_input)
    digest = sha256(serialised(graph)).hexdigest()
    return Source(graph, digest, image_input, place(graph), checkpoint.sha256)


def half_ranges(source: Source, faces: Sequence[Face], table: CalibrationTable | None = None) -> dict[str, float]:
    """Largest magnitude of each float tensor, which FP16 has to hold: on a few of the faces, or on noise without any.

    table: knows which tensors are large; without faces these are enough.
    """
    known = None if table is None else table.large_tensors
    if known is not None and not faces:
        return dict(known)
    few = spread(faces, RANGING_FACES)
    found = float_ranges(source.graph, source.batches(few, 1) if few else [random_faces(1, source.image_input)])
    return {name: max(largest, (known or {}).get(name, 0.0)) for name, largest in found.items()}


def calibrate(source: Source, faces: Sequence[Face], method: str, progress: Progress = lambda done: None) -> Int8:
    """Scales of every placed tensor, and corrections of every layer. method: of `METHODS`. progress: faces seen.

    What this graph has shown of these faces before comes from the cache. Faces that INT8 cannot learn its ranges from are
    warned of.
    """
    for doubt in doubts(faces):
        log.warning("%s", doubt)

    def load(left: Sequence[Face]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (engine_inputs(images, points, source.image_input) for images, points in load_batches(left, 1))

    data, tensors = fingerprint(faces), list(source.placement.tensors)
    found = histograms(
        source.graph,
        tensors,
        faces,
        load,
        graph_sha256=source.sha256,
        data_fingerprint=data,
        progress=progress,
        note=log.warning,
    )
    release_memory()  # the session's, before the next one
    amax = {name: METHODS[method](histogram) for name, histogram in found.items()}
    scales = shared_scales(amax, source.placement.groups())
    few = spread(faces, CORRECTING_FACES)
    corrections = arrays(
        ["bias", source.sha256, fingerprint(few), sorted(scales.items())],
        source.placement.layers,
        lambda: bias_corrections(source.graph, source.placement, scales, load(few)),
    )
    table = CalibrationTable(
        method=method,
        faces=len(faces),
        data_fingerprint=data,
        graph_sha256=source.sha256,
        scales=scales,
        checkpoint_sha256=source.checkpoint_sha256,
        seen=[identity(face) for face in faces],
    )
    return Int8(table.with_corrections(corrections))


def int8_of(source: Source, table: CalibrationTable) -> Int8:
    """What `calibrate` gave, from the table that it was written to.

    Warns of a table from before bias corrections were recorded. Raises MisuseError where the table is of another
    checkpoint, or lacks a tensor or a layer of this graph.
    """
    table.require_for(source.checkpoint_sha256, source.sha256)
    missing = [name for name in source.placement.tensors if name not in table.scales]
    if missing:
        raise MisuseError(f"the scales (--scales) lack {missing[0]}: they are of another --input; leave out --scales")
    int8 = Int8(table)
    if table.corrections is None:
        log.warning(
            "the scales (--scales) come without bias correction, which may cost accuracy: leave out --scales to calibrate "
            "again, unless they are of train --qat"
        )
    elif int8.corrections is not None:
        index = GraphIndex(source.graph.graph)
        for node in source.graph.graph.node:
            if node.name not in source.placement.layers:
                continue
            found = int8.corrections.get(node.name)
            if found is None or len(found) != index.constants[node.input[1]].dims[0]:
                raise MisuseError(
                    f"the scales (--scales) have no bias correction that fits {node.name}: leave out --scales to calibrate "
                    "again"
                )
    return int8


def float_proof(source: Source, calibration: Sequence[Face]) -> Proof:
    """A drawn face of each expression, then a few of `calibration` (may be none), with the float graph's logits.

    INT8 scales agree with the faces they were measured on, whatever these show; drawn faces are independent of them.
    """
    drawn, few = read_faces(GOLDEN_FACES, labelled=False), spread(calibration, PROOF_FACES)
    parts = [*source.batches(drawn, len(drawn)), *source.batches(few, PROOF_FACES)]
    pictures, points = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    golden = Golden(pictures, points, graph_logits(source.graph, [(pictures, points)]))
    return Proof(golden, calibration=len(few))


def proof_of(proof: Proof, model: onnx.ModelProto, precision: str) -> Proof:
    """`float_proof` for engines of `model`, which is the float graph, or for int8 the Q/DQ graph."""
    golden = proof.golden
    return proof.explained(graph_logits(model, [(golden.images, golden.landmarks)])) if precision == "int8" else proof
