"""`ampnet-opt serve-files`: a model repository for Triton Inference Server, from engines."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional

import typer

from ampnet_opt.cli.options import DETECTOR, FORCE, output_option
from ampnet_opt.core.messages import remark, say


def serve_files(
    engines: List[Path] = typer.Argument(
        ..., metavar="ENGINES...", help="Engine directories of tensorrt, cpu or onnxruntime; their names become the models'."
    ),
    output: Path = output_option(..., "The folder to write, for tritonserver --model-repository."),
    detector: Optional[Path] = DETECTOR,
    force: bool = FORCE,
) -> None:
    """Write a model repository for Triton: for each engine, a model that takes faces and one that takes pictures.

    OpenVINO Model Server reads the same files of cpu engines. The README in the folder says which server images fit.
    """
    from ampnet_opt.serving.guide import warnings
    from ampnet_opt.serving.repository import write_repository

    models = write_repository(engines, output, detector=detector, force=force)
    for model in models:
        say(f"{output / model.name}: faces and landmarks to logits, {model.sidecar.backend} {model.sidecar.precision}")
        say(f"{output / model.pictures}: encoded pictures to faces")
    for warning in warnings(models):
        remark(f"note: {warning}")
    say(f"how to start it: {output / 'README.md'}")
