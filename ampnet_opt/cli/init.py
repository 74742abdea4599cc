"""`ampnet-opt init`: a checkpoint to try things with."""

from __future__ import annotations

from pathlib import Path

import typer

from ampnet_opt.cli.inputs import require_extra
from ampnet_opt.cli.options import FORCE, LARGEST_INTEGER, LARGEST_WIDTH
from ampnet_opt.core.messages import say


def init(
    checkpoint: Path = typer.Argument(..., metavar="CKPT", help="The checkpoint to write, such as seeded.safetensors."),
    seed: int = typer.Option(0, "--seed", min=0, max=LARGEST_INTEGER, help="Seed of the random weights."),
    width: float = typer.Option(
        1.0, "--width", max=LARGEST_WIDTH, help=f"Factor on all channel counts, over 0 and at most {LARGEST_WIDTH}."
    ),
    classes: str = typer.Option("rafdb", "--classes", help="A preset, or names separated by commas."),
    force: bool = FORCE,
) -> None:
    """Write an untrained checkpoint with seeded weights, to measure speed without one of your own."""
    require_extra()
    from ampnet_opt.core.files import require_new_file
    from ampnet_opt.core.labels import parse_classes
    from ampnet_opt.network.checkpoint import init_checkpoint

    model = init_checkpoint(require_new_file(checkpoint, force), seed, width, parse_classes(classes))
    count = sum(parameter.numel() for parameter in model.parameters())
    say(f"{checkpoint}: {count / 1e6:.1f} M parameters, seed {seed}, untrained: its answers mean nothing")
