"""Where an engine begins to compute something else than its graph: its tensors beside those of ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper

from ampnet_opt.convert.graph import copy_of, reachable, replace_nodes, static_shapes, without_unneeded
from ampnet_opt.core.graph_interface import INPUTS, OUTPUT
from ampnet_opt.core.onnx_session import graph_logits
from ampnet_opt.runtime.backend import LoadOptions, pad_batch
from ampnet_opt.runtime.build import EngineRequest, compile_engine
from ampnet_opt.runtime.golden import tolerated_error

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}


@dataclass(frozen=True)
class Difference:
    """The first tensor that differs, the node that makes it, and the SQNR in dB of both it and the one before."""

    tensor: str
    node: str
    sqnr: float
    before: str
    sqnr_before: float

    def __str__(self) -> str:
        text = f"{self.node} is the first layer that differs from the CPU's, at {self.sqnr:.0f} dB of SQNR"
        return text + (f"; {self.before} before it is at {self.sqnr_before:.0f} dB" if self.before else "")


def first_difference(
    request: EngineRequest, reference: onnx.ModelProto, size: int, progress: Callable[[float], None] = lambda done: None
) -> Difference | None:
    """The first tensor that an engine computes otherwise than its graph; None where no tensor of the graph does.

    The graph is cut behind a tensor, built and run like the engine, again and again, between the last tensor that is right
    and the first that is wrong: some ten builds. Fusions behind the cut are lost, those before it stay.

    Args:
        request: what the engine was made of.
        reference: a graph that ONNX Runtime computes, with the same names of tensors.
        size: of the batch that showed it.
        progress: called with the share done.

    Raises:
        AmpnetError: a part of the graph cannot be built or run.
    """
    assert request.proof is not None
    model, golden = onnx.load_from_string(request.prepared.graph), request.proof.golden
    faces = golden.images[:size], golden.landmarks[:size]
    alike = -20 * np.log10(tolerated_error(request.proof.graph_error))
    names = _comparable(model, reference)
    found: dict[int, float] = {}

    def sqnr(place: int) -> float:
        if place not in found:
            wanted = graph_logits(cut(reference, names[place]), [faces])
            found[place] = _sqnr(_run(request, cut(model, names[place]), faces), wanted)
            progress(len(found) / (len(names).bit_length() + 1))
        return found[place]

    right, wrong = -1, len(names) - 1
    if sqnr(wrong) >= alike:
        return None
    while wrong - right > 1:
        middle = (right + wrong) // 2
        right, wrong = (middle, wrong) if sqnr(middle) >= alike else (right, middle)
    (maker,) = (node for node in model.graph.node if names[wrong] in node.output)
    before = "" if right < 0 else names[right]
    return Difference(names[wrong], f"{maker.op_type} {maker.name}", sqnr(wrong), before, sqnr(right) if before else 0.0)


def cut(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """`model` up to a float tensor, which becomes its output, in float32."""
    part = copy_of(model)
    graph = part.graph
    nodes = list(graph.node)
    if tensor != OUTPUT:
        nodes = [node for node in without_unneeded(nodes, [tensor]) if OUTPUT not in node.output]
        nodes.append(helper.make_node("Cast", [tensor], [OUTPUT], name="cut", to=TensorProto.FLOAT))
    del graph.output[:], graph.value_info[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, None))
    replace_nodes(graph, nodes)
    shape = static_shapes(graph, part.opset_import)[OUTPUT]
    graph.output[0].CopyFrom(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", *shape[1:]]))
    return part


def _comparable(model: onnx.ModelProto, reference: onnx.ModelProto) -> list[str]:
    """Names of the float tensors that both graphs make of images, with a batch first, in the order of the graph."""
    both = []
    for graph in (model, reference):
        bare = onnx.shape_inference.infer_shapes(graph).graph
        shapes = static_shapes(graph.graph, graph.opset_import)
        types = {value.name: value.type.tensor_type.elem_type for value in (*bare.value_info, *bare.output)}
        from_image = reachable(graph.graph, INPUTS[0])
        both.append(
            {
                name: None
                for node in graph.graph.node
                for name in node.output
                if name in from_image and types.get(name) in FLOATS and _has_batch(shapes.get(name, ()))
            }
        )
    return [name for name in both[0] if name in both[1]]


def _has_batch(shape: tuple[int | None, ...]) -> bool:
    return len(shape) > 1 and shape[0] is None and None not in shape[1:]


def _run(request: EngineRequest, model: onnx.ModelProto, faces: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """What the backend computes of a graph, built as the engine was."""
    prepared = replace(request.prepared, graph=model.SerializeToString(), table=None, float32_scales=None, expected={})
    with TemporaryDirectory(prefix="ampnet-opt-") as folder:
        directory = Path(folder)
        sidecar, _ = compile_engine(replace(request, prepared=prepared), directory)
        # What a part of the network makes are no classes.
        outputs = [""] * model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
        executor = request.backend.open(directory, replace(sidecar, classes=outputs), LoadOptions())
        try:
            least, most = sidecar.batch.min, sidecar.batch.max
            images, landmarks = (pad_batch(values, least) for values in faces)
            parts = [slice(start, start + most) for start in range(0, len(images), most)]
            return np.concatenate([executor.run(images[part], landmarks[part]) for part in parts])[: len(faces[0])]
        finally:
            executor.close()


def _sqnr(values: np.ndarray, wanted: np.ndarray) -> float:
    """Squares of the wanted values over those of the differences, in dB; -99 to 99."""
    noise, signal = (float(np.square(x, dtype=np.float64).sum()) for x in (values.reshape(wanted.shape) - wanted, wanted))
    if not np.isfinite(noise):
        return -99.0
    return float(np.clip(10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30)), -99, 99))
