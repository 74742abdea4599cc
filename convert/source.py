"""What engines and analyses start from: the float graph of a checkpoint, its INT8 scales and its bias corrections."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from ampnet_opt.calibration.histogram import Progress, arrays, collect, doubts, histograms
from ampnet_opt.calibration.ranges import METHODS
from ampnet_opt.calibration.table import CalibrationTable, shared_scales
from ampnet_opt.convert.export import export
from ampnet_opt.convert.graph import GraphIndex, replace_nodes, without_unneeded
from ampnet_opt.convert.placement import Placement, place
from ampnet_opt.convert.quantize import quantize
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.graph_interface import INPUTS, ImageInput
from ampnet_opt.core.onnx_bytes import serialised
from ampnet_opt.core.onnx_session import graph_logits, onnx_session
from ampnet_opt.core.processor import release_memory
from ampnet_opt.faces.face import Face, fingerprint, load_batches, read_faces, spread
from ampnet_opt.faces.repeats import identity
from ampnet_opt.network.checkpoint import Checkpoint
from ampnet_opt.runtime.engine import engine_inputs
from ampnet_opt.runtime.golden import Golden, Proof, require_right
from ampnet_opt.shipped import GOLDEN_FACES

log = logging.getLogger(__name__)

CORRECTING_FACES = 64  # means over all positions settle long before ranges do
IN_INT8 = "_in_int8"  # end of the names of the INT8 copy's nodes and tensors
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


def bias_corrections(
    graph: onnx.ModelProto,
    placement: Placement,
    scales: Mapping[str, float],
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    progress: Callable[[int], object] = lambda done: None,
) -> dict[str, np.ndarray]:
    """What to add to the bias of every placed layer, float32 [outputs], by the layer's name: bias correction.

    It cancels the mean error that quantisation adds to each output channel: E[W x + b] - E[Wq Q(x) + b] over faces and
    positions, where x is what the layer reads in the float network (Nagel et al. 2019, "Data-Free Quantization Through
    Weight Equalization and Bias Correction", section 4.2, with means from faces). It thus depends on no other layer, and
    holds for every choice of INT8 layers.

    graph: float; batches: (image, landmarks) as it takes them; progress: called with the number of faces seen.
    """
    session = onnx_session(serialised(_differences(graph, placement, scales)))
    totals = {name: np.zeros(()) for name in placement.layers}
    seen = 0
    for images, landmarks in batches:
        means = session.run(placement.layers, dict(zip(INPUTS, (images, landmarks), strict=True)))
        for name, mean in zip(placement.layers, means, strict=True):
            totals[name] = totals[name] + len(images) * mean.astype(np.float64)
        seen += len(images)
        progress(seen)
    return {name: (total / seen).astype(np.float32) for name, total in totals.items()}


def _differences(graph: onnx.ModelProto, placement: Placement, scales: Mapping[str, float]) -> onnx.ModelProto:
    """The float network beside its INT8 layers, each fed from the float network; an output per layer, named like it."""
    both = onnx.ModelProto()
    both.CopyFrom(graph)
    quantized = quantize(graph, placement, scales)
    float_constants = {tensor.name for tensor in graph.graph.initializer}
    both.graph.initializer.extend(t for t in quantized.graph.initializer if t.name not in float_constants)
    constants = {tensor.name for tensor in both.graph.initializer}
    nodes = list(both.graph.node)
    for original in quantized.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        node.name += IN_INT8
        for i, name in enumerate(node.input):
            # A pair reads the float network's tensor; all behind it is the INT8 copy's own.
            from_float = name in constants or name in INPUTS or (node.op_type == "QuantizeLinear" and i == 0)
            node.input[i] = name if from_float or not name else name + IN_INT8
        for i, name in enumerate(node.output):
            node.output[i] = name + IN_INT8
        nodes.append(node)
    for node in graph.graph.node:
        if node.name in placement.layers:
            difference = f"{node.output[0]}_difference"
            axes = [0, 2, 3] if node.op_type == "Conv" else [0]
            nodes.append(helper.make_node("Sub", [node.output[0], node.output[0] + IN_INT8], [difference]))
            nodes.append(helper.make_node("ReduceMean", [difference], [node.name], axes=axes, keepdims=0))
    del both.graph.output[:]
    both.graph.output.extend(onnx.ValueInfoProto(name=name) for name in placement.layers)
    replace_nodes(both.graph, without_unneeded(nodes, placement.layers))
    return both


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


def verify(
    directory: Path, model: onnx.ModelProto, graph: onnx.ModelProto, images: np.ndarray, landmarks: np.ndarray
) -> None:
    """AmpnetError when the engine's logits are further from the float graph's than the graph it was built from explains.

    model: what the engine was built from; graph: the float graph; both run in ONNX Runtime as the second opinion. images,
    landmarks: as the graph takes them, more than one.
    """
    golden = Golden(images, landmarks, graph_logits(graph, [(images, landmarks)]))
    own = 0.0 if model is graph else golden.error(graph_logits(model, [(images, landmarks)]))
    require_right(directory, golden, own)
