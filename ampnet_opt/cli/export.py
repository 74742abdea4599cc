"""`ampnet-opt export`: one ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from ampnet_opt.cli.inputs import read_checkpoint
from ampnet_opt.cli.options import CKPT, CLASSES, FORCE, INPUT, RADIUS, ImageInput, output_option
from ampnet_opt.core.messages import say
from ampnet_opt.core.progress import steps


def export(
    checkpoint: Path = CKPT,
    output: Path = output_option(..., "The ONNX file."),
    image_input: ImageInput = INPUT,
    classes: Optional[str] = CLASSES,
    patch_radius: Optional[int] = RADIUS,
    force: bool = FORCE,
) -> None:
    """Write the network as one ONNX graph: image and landmarks in, logits out, any batch."""
    from ampnet_opt.core.files import new_file, require_apart, require_new_file

    require_new_file(output, force)
    require_apart({"-o": output}, [checkpoint])
    loaded = read_checkpoint(checkpoint, classes, patch_radius)
    from ampnet_opt.convert.export import OPSET
    from ampnet_opt.convert.export import export as export_graph
    from ampnet_opt.core.onnx_bytes import serialised

    with steps() as step:
        with step("exporting the graph", 0):
            graph = export_graph(loaded, image_input.value)
        with new_file(output) as temporary:
            temporary.write_bytes(serialised(graph))
    nodes, size = len(graph.graph.node), output.stat().st_size
    say(f"{output}: opset {OPSET}, {nodes} nodes, {size / 1e6:.1f} MB, equal to PyTorch in ONNX Runtime")
