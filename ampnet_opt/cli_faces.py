"""The commands before there is a checkpoint: faces from pictures, a network from faces."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional

import typer

from ampnet_opt.errors import MisuseError
from ampnet_opt.messages import remark, say
from ampnet_opt.terminal import FORCE, LANDMARKS_FORMAT, counter, read_checkpoint, require_extra, steps


def prepare(
    pictures: Path = typer.Argument(..., metavar="IMAGES_OR_DATASET", help="A picture, a folder of them, or a data set."),
    output: Path = typer.Option(..., "-o", "--output", help="Folder for faces.csv and images/."),
    format: Optional[str] = typer.Option(None, "--format", help="Layout of the data set, or whose numbers its classes are."),
    classes: Optional[str] = typer.Option(
        None, "--classes", help="Classes of numbered folders or labels, in order, or those to take; or label=class, ..."
    ),
    detector: Optional[Path] = typer.Option(None, "--detector", help="A YuNet ONNX file (default: CenterFace of [detect])."),
    crop: bool = typer.Option(True, help="Cut out the face; --no-crop keeps aligned pictures whole."),
    form: str = LANDMARKS_FORMAT,
    every: bool = typer.Option(False, "--all-faces", help="Every face of a picture, not only the largest."),
    workers: Optional[int] = typer.Option(None, min=1, max=4096, help="Processes (default: one per core)."),
    force: bool = typer.Option(
        False, "--force", help="Replace an earlier preparation: its tables and its pictures; your own files in images/ stay."
    ),
) -> None:
    """Find faces and their landmarks: pictures or a data set in, faces.csv and images/ of 224 x 224 out."""
    from ampnet_opt.datasets.disk import SKIPPED
    from ampnet_opt.datasets.registry import read_dataset
    from ampnet_opt.preparing.prepare import prepare as run

    dataset = read_dataset(pictures, format, classes)
    for note in dataset.notes:
        remark(f"note: {note}")
    total = len(dataset.pictures)
    with counter(f"{dataset.format}: {total} pictures", total) as bar:
        done = run(
            dataset.pictures,
            output,
            detector,
            crop=crop,
            form=form,
            faces="all" if every else "largest",
            workers=workers,
            force=force,
            progress=lambda count: bar(count, f"{dataset.format}: {total} pictures"),
            skipped=dataset.skipped,
        )
    several = f", {done.several} pictures had several" if done.several else ""
    say(f"{done.table}: {done.faces} faces{several}")
    for reason, count in done.skipped.items():
        remark(f"skipped: {count}, {reason} (listed in {done.table.with_name(SKIPPED)})")


def train(
    context: typer.Context,
    data: List[Path] = typer.Option(..., "--data", help="CSV of labelled faces, or its folder; repeatable: they are mixed."),
    form: str = LANDMARKS_FORMAT,
    output: Path = typer.Option(..., "-o", "--output", help="The checkpoint; metrics, curve and state go beside it."),
    width: Optional[float] = typer.Option(None, help="Factor on every channel count (default: 0.25)."),
    classes: Optional[str] = typer.Option(
        None,
        "--classes",
        help="A preset or names, by commas, in the order of the outputs (default: the checkpoint's, or rafdb).",
    ),
    start: Optional[Path] = typer.Option(None, "--from", help="Go on from this checkpoint instead of from seeded weights."),
    qat: Optional[Path] = typer.Option(
        None, "--qat", help="Fine-tune this checkpoint for INT8: trained as its INT8 graph computes; scales go beside it."
    ),
    epochs: Optional[int] = typer.Option(
        None, min=1, max=100_000, help="Passes over the training faces (default: 40; --qat: 2)."
    ),
    batch: int = typer.Option(32, min=2, max=1 << 16, help="Faces a step."),
    rate: Optional[float] = typer.Option(
        None, help="Learning rate, divided by 10 at 60 % and 85 % of the epochs (default: 0.01; --qat: 0.0001)."
    ),
    balance: float = typer.Option(0.5, min=0, max=1, help="0: classes as they come, 1: all equally often."),
    seed: int = typer.Option(0, min=0, help="Of weights, draws and augmentation."),
    device: str = typer.Option("cpu", help="cpu or cuda."),
    bf16: bool = typer.Option(False, "--bf16", help="BF16 autocast: for GPUs, and CPUs with AMX."),
    force: bool = FORCE,
) -> None:
    """Train a network on faces of the splits train and val; a killed run goes on where it stood."""
    from ampnet_opt.faces import read_faces, spread
    from ampnet_opt.files import require_new_file, reserved, sha256
    from ampnet_opt.labels import PRESETS, label_indices, parse_classes

    if qat is not None:
        _require_qat_alone(qat, output, {"--from": start, "--width": width, "--bf16": bf16 or None})
    names = PRESETS["rafdb"] if classes is None else parse_classes(classes)
    faces, held_out = (
        [face for table in data for face in read_faces(table, split, form=form)] for split in ("train", "val")
    )
    require_extra()
    from ampnet_opt.checkpoint import seeded
    from ampnet_opt.training.loop import Outputs, best, require_device
    from ampnet_opt.training.loop import train as run
    from ampnet_opt.training.recipe import Recipe

    outputs = Outputs(output)
    context.with_resource(reserved(output))  # to the end of the command
    if force:
        outputs.state.unlink(missing_ok=True)
    if not outputs.state.exists():
        require_new_file(output, force)
    require_device(device)
    basis = ""
    if qat is not None:
        from ampnet_opt.training.qat import CALIBRATING, for_int8

        loaded = read_checkpoint(qat, classes, None)
        names = loaded.classes
        label_indices(names, [face.label for face in [*faces, *held_out]])  # known to fail before minutes of work
        with steps() as step:
            model = for_int8(loaded, spread(faces, CALIBRATING), outputs.scales, outputs.state.exists(), step)
        basis = f"{loaded.sha256} {sha256(outputs.scales)}"
    elif start is not None:
        begun = read_checkpoint(start, classes, None)
        model, names = begun.model, begun.classes
    else:
        if classes is None:
            _require_rafdb([face.label for face in [*faces, *held_out]])
        model = seeded(seed, 0.25 if width is None else width, len(names))
    recipe = Recipe(
        epochs=epochs or (40 if qat is None else 2),
        batch=batch,
        rate=rate if rate is not None else (0.01 if qat is None else 1e-4),
        balance=balance,
        seed=seed,
        bf16=bf16,
    )
    with counter(f"training on {len(faces)} faces", recipe.epochs * len(faces)) as bar:

        def report(epoch: int, done: int, metrics: dict[str, float]) -> None:
            figures = "".join(f", {key} {metrics[key]:.3f}" for key in ("loss", "top1", "macro_f1") if key in metrics)
            bar(epoch * len(faces) + done, f"epoch {epoch + 1} of {recipe.epochs}{figures}")

        rows = run(model, names, faces, held_out, recipe, output, device, report=report, basis=basis)
    kept = best(rows)
    say(
        f"{output}: epoch {kept['epoch']:.0f} of {recipe.epochs}, on {len(held_out)} validation faces "
        f"{'' if qat is None else 'in INT8 '}top-1 {kept['top1']:.1%}, macro-F1 {kept['macro_f1']:.3f}"
    )
    if qat is not None:
        from ampnet_opt.training.qat import give_scales

        give_scales(outputs.scales, output)
        say(f"{outputs.scales}: the scales of its INT8 engines (build --int8 --scales)")


def _require_rafdb(labels: List[str]) -> None:
    from ampnet_opt.labels import PRESETS, label_indices

    try:
        label_indices(PRESETS["rafdb"], labels)
    except MisuseError as error:
        raise MisuseError(f"{error}; name the network's with --classes") from error


def _require_qat_alone(qat: Path, output: Path, others: dict[str, object]) -> None:
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise MisuseError(f"--qat trains the network of its checkpoint, in float32: leave out {' and '.join(given)}")
    if output.resolve() == qat.resolve():
        raise MisuseError(f"-o would replace {qat}, which --qat starts from: take another name")
