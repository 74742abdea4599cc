"""`ampnet-opt train`: a network from faces."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Optional, Sequence

import typer

from ampnet_opt.cli.inputs import apart, read_checkpoint, require_extra, table_of
from ampnet_opt.cli.options import (
    FACES_PANEL,
    FORCE,
    LANDMARKS_FORMAT,
    LARGEST_BATCH,
    LARGEST_INTEGER,
    LARGEST_WIDTH,
    NETWORK_PANEL,
    TRAINING_PANEL,
    output_option,
)
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.messages import say
from ampnet_opt.core.progress import counter, steps

LARGEST_RATE = 10


def train(
    context: typer.Context,
    data: List[Path] = typer.Option(
        ...,
        "--data",
        help="Table of labelled faces, or its folder; repeatable, to mix several.",
        rich_help_panel=FACES_PANEL,
    ),
    form: str = LANDMARKS_FORMAT,
    width: Optional[float] = typer.Option(
        None,
        "--width",
        max=LARGEST_WIDTH,
        help=f"Factor on all channel counts, over 0 and at most {LARGEST_WIDTH} (default: 0.25).",
        rich_help_panel=NETWORK_PANEL,
    ),
    classes: Optional[str] = typer.Option(
        None,
        "--classes",
        help="A preset, or names separated by commas in the order of the outputs (default: the checkpoint's, or rafdb).",
        rich_help_panel=NETWORK_PANEL,
    ),
    start: Optional[Path] = typer.Option(
        None,
        "--from",
        help="Start from this checkpoint instead of seeded weights.",
        rich_help_panel=NETWORK_PANEL,
    ),
    qat: Optional[Path] = typer.Option(
        None,
        "--qat",
        help="Fine-tune this checkpoint for INT8, computing as its INT8 graph does; writes the scales beside it.",
        rich_help_panel=NETWORK_PANEL,
    ),
    epochs: Optional[int] = typer.Option(
        None,
        "--epochs",
        min=1,
        max=100_000,
        help="Passes over the training faces (default: 40; --qat: 2).",
        rich_help_panel=TRAINING_PANEL,
    ),
    batch: int = typer.Option(
        32, "--batch", min=2, max=LARGEST_BATCH, help="Faces in a step.", rich_help_panel=TRAINING_PANEL
    ),
    rate: Optional[float] = typer.Option(
        None,
        "--rate",
        max=LARGEST_RATE,
        help=f"Learning rate, over 0 and at most {LARGEST_RATE}, divided by 10 at 60 % and 85 % of the epochs (default: "
        "0.01; --qat: 0.0001).",
        rich_help_panel=TRAINING_PANEL,
    ),
    balance: float = typer.Option(
        0.5,
        "--balance",
        min=0,
        max=1,
        help="Class balance: from 0 (classes as often as in the data) to 1 (all equally often).",
        rich_help_panel=TRAINING_PANEL,
    ),
    seed: int = typer.Option(
        0,
        "--seed",
        min=0,
        max=LARGEST_INTEGER,
        help="Seed of weights, sampling and augmentation.",
        rich_help_panel=TRAINING_PANEL,
    ),
    device: str = typer.Option("cpu", "--device", help="cpu, cuda or cuda:1.", rich_help_panel=TRAINING_PANEL),
    bf16: bool = typer.Option(
        False, "--bf16", help="BF16 autocast: for GPUs, and CPUs with AMX.", rich_help_panel=TRAINING_PANEL
    ),
    output: Path = output_option(..., "The checkpoint; metrics, curve and state go beside it."),
    force: bool = FORCE,
) -> None:
    """Train a network on the splits train and val. Interrupted runs resume."""
    from ampnet_opt.core.files import require_apart, require_new_file, reserved, sha256
    from ampnet_opt.core.labels import PRESETS, parse_classes
    from ampnet_opt.faces.face import read_tables, spread

    if qat is not None:
        _require_qat_alone({"--from": start, "--width": width, "--bf16": bf16 or None})
    if start is not None and width is not None:
        raise MisuseError("--width would do nothing with --from: the network is as wide as its checkpoint's")
    names = PRESETS["rafdb"] if classes is None else parse_classes(classes)
    sets = [read_tables(data, split, form) for split in ("train", "val")]
    faces, held_out = apart(sets, ("the split train", "the split val"))
    require_extra()
    from ampnet_opt.network.checkpoint import seeded
    from ampnet_opt.training.loop import Outputs, best, require_device, require_faces
    from ampnet_opt.training.loop import train as run
    from ampnet_opt.training.recipe import TrainingRecipe

    require_faces(faces, held_out)
    outputs = Outputs(output)
    written = {"-o": outputs.checkpoint, "the metrics": outputs.metrics, "their picture": outputs.curve}
    written.update({"the state": outputs.state, "the scales": outputs.scales})
    tables = map(table_of, data)
    pictures = [face.file for face in [*faces, *held_out]]
    require_apart(written, [*tables, start, qat, *pictures])
    context.with_resource(reserved(output))  # to the end of the command
    if force or not outputs.state.exists():
        for path in (output, outputs.metrics, outputs.curve):
            require_new_file(path, force)
    require_device(device)
    base = qat or start
    begun = None if base is None else read_checkpoint(base, classes, None)
    if begun is not None:
        names = begun.classes
    _require_labels(names, [face.label for face in [*faces, *held_out]], assumed=begun is None and classes is None)
    recipe = TrainingRecipe(
        epochs=epochs or (40 if qat is None else 2),
        batch=batch,
        rate=rate if rate is not None else (0.01 if qat is None else 1e-4),
        balance=balance,
        seed=seed,
        bf16=bf16,
    )
    basis = ""
    if begun is None:
        model = seeded(seed, 0.25 if width is None else width, len(names))
    elif qat is None:
        model = begun.model
    else:
        from ampnet_opt.training.qat import CALIBRATING, for_int8

        with steps() as step:
            model = for_int8(begun, spread(faces, CALIBRATING), outputs.scales, step, force=force)
        basis = f"{begun.sha256} {sha256(outputs.scales)}"
    if force:  # only now: what is refused above keeps it
        outputs.state.unlink(missing_ok=True)
    with counter(f"training on {len(faces)} faces", recipe.epochs * len(faces)) as bar:

        def report(epoch: int, done: int, metrics: Dict[str, float]) -> None:
            figures = "".join(f", {key} {metrics[key]:.3f}" for key in ("loss", "top1", "macro_f1") if key in metrics)
            bar(epoch * len(faces) + done, f"epoch {epoch + 1} of {recipe.epochs}{figures}")

        rows = run(model, names, faces, held_out, recipe, output=output, device=device, report=report, basis=basis)
    kept = best(rows)
    say(
        f"{output}: epoch {kept['epoch']:.0f} of {recipe.epochs}, on {len(held_out)} validation faces "
        f"{'' if qat is None else 'in INT8 '}top-1 {kept['top1']:.1%}, macro-F1 {kept['macro_f1']:.3f}"
    )
    if qat is not None:
        from ampnet_opt.training.qat import give_scales

        give_scales(outputs.scales, output)
        say(f"{outputs.scales}: the scales of its INT8 engines (build --int8 --scales)")


def _require_labels(classes: Sequence[str], labels: List[str], assumed: bool) -> None:
    """Errors as of `label_indices`. assumed: whether nothing but the default names the classes."""
    from ampnet_opt.core.labels import label_indices

    try:
        label_indices(classes, labels)
    except MisuseError as error:
        raise MisuseError(f"{error}; name the network's with --classes") if assumed else error from None


def _require_qat_alone(others: Dict[str, object]) -> None:
    asked = [name for name, value in others.items() if value is not None]
    if asked:
        raise MisuseError(f"--qat trains the network of its checkpoint, in float32: leave out {' and '.join(asked)}")
