"""The training loop: epochs of steps, averaged weights, the best of them by validation kept."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ampnet_opt.core.cache import cache_or_temporary
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.files import new_file
from ampnet_opt.core.metrics import confusion_matrix, macro_f1
from ampnet_opt.faces.face import Face, fingerprint
from ampnet_opt.network.checkpoint import save_checkpoint
from ampnet_opt.network.model import AMPNet
from ampnet_opt.training.curve import draw_curve
from ampnet_opt.training.faces import LabelledFaces, as_input, batches
from ampnet_opt.training.recipe import TrainingRecipe, averaging, draw
from ampnet_opt.training.state import Metrics, load_state, save_state

EVALUATION_BATCH = 64
Tensors = tuple[Tensor, ...] | list[Tensor]
# Called with the epoch (from 0), the faces of it that are done, and the metrics of the last finished epoch.
Report = Callable[[int, int, Metrics], None]


@dataclass(frozen=True)
class Outputs:
    """Files of a run that writes the checkpoint `checkpoint`: the metrics, their picture, and the state to go on from."""

    checkpoint: Path

    @property
    def metrics(self) -> Path:
        return self.checkpoint.with_suffix(".csv")

    @property
    def curve(self) -> Path:
        return self.checkpoint.with_suffix(".png")

    @property
    def state(self) -> Path:
        return self.checkpoint.with_suffix(".state")

    @property
    def scales(self) -> Path:
        """The calibration table of quantisation-aware training."""
        return self.checkpoint.with_suffix(".calibration.json")


def train(
    model: AMPNet,
    classes: Sequence[str],
    training: Sequence[Face],
    validation: Sequence[Face],
    recipe: TrainingRecipe,
    *,
    output: Path,
    device: str = "cpu",
    workers: int = 1,
    report: Report = lambda epoch, done, metrics: None,
    basis: str = "",
) -> list[Metrics]:
    """Train `model` and write to `output` the averaged weights of the epoch that was best on `validation`, as float16.

    Best is the highest mean of top-1 and macro-F1: top-1 alone would not notice a rare class. A state file beside `output`
    lets a killed run go on at its last finished epoch, to the same result; it is removed at the end. basis: what the run
    starts from, by which its state is known again; by default the weights of `model`. Returns the metrics of every epoch.
    Raises MisuseError for too few faces, labels that are no classes or a state of another run, AmpnetError when the loss is
    no longer finite.
    """
    # Torch's optimizers load its compiler, which makes a folder in the system's temporary one otherwise.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_or_temporary("torch")))
    outputs = Outputs(output)
    require_faces(training, validation)
    faces, held_out = LabelledFaces(training, classes), LabelledFaces(validation, classes)
    run = _name(model, classes, recipe, training=training, validation=validation, basis=basis)
    model = model.to(device, memory_format=_layout(device))  # type: ignore[call-overload]
    ema = averaged(model, recipe.ema)
    optimizer = torch.optim.SGD(
        model.parameters(), recipe.rate, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
    )
    modules: dict[str, nn.Module] = {"model": model, "ema": ema}
    rows: list[Metrics] = []
    last: Metrics = {}

    def publish() -> None:
        if best(rows) is last:
            save_checkpoint(output, cast(AMPNet, ema.module), classes, dtype=torch.float16)
        _record(outputs, rows)

    if outputs.state.exists():
        rows = load_state(outputs.state, run, modules, optimizer)
        last = rows[-1]
        if best(rows) is not last and not output.exists():
            raise AmpnetError(f"{output}, which {outputs.state} goes on from, is gone; pass --force to start over")
        publish()  # the run may have been stopped before it did
    for epoch in range(len(rows), recipe.epochs):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate_of(epoch)
        loss = _epoch(
            model,
            ema,
            optimizer,
            faces,
            recipe,
            epoch=epoch,
            device=device,
            workers=workers,
            done=lambda n: report(epoch, n, last),  # noqa: B023
        )
        predicted = _predict(ema.module, held_out, device, workers)
        truth = np.array(held_out.labels)
        last = {
            "epoch": epoch + 1,
            "rate": recipe.rate_of(epoch),
            "loss": loss,
            "top1": float((predicted == truth).mean()),
            "macro_f1": float(macro_f1(confusion_matrix(truth, predicted, len(classes)))),
        }
        rows.append(last)
        save_state(outputs.state, run, rows, modules, optimizer)  # first, so that whatever stands here, a run can go on
        publish()
        report(epoch, len(faces), last)
    outputs.state.unlink(missing_ok=True)
    return rows


def require_faces(training: Sequence[Face], validation: Sequence[Face]) -> None:
    """MisuseError for faces that no epoch can be made of: a step takes two, as batch norm has no variance of one."""
    if len(training) < 2:
        raise MisuseError(f"training takes two different faces or more, and there are {len(training)}")
    if not validation:
        raise MisuseError("there are no validation faces, by which the best epoch is chosen")


def best(rows: Sequence[Metrics]) -> Metrics:
    """The epoch of the highest mean of top-1 and macro-F1, the first of equals."""
    return max(rows, key=lambda row: (row["top1"] + row["macro_f1"]) / 2)


def _epoch(
    model: AMPNet,
    ema: AveragedModel,
    optimizer: torch.optim.Optimizer,
    faces: LabelledFaces,
    recipe: TrainingRecipe,
    *,
    epoch: int,
    device: str,
    workers: int,
    done: Callable[[int], None],
) -> float:
    """One pass; returns the mean loss. All that is random in it follows from the recipe's seed and the epoch."""
    seed = (recipe.seed * 1_000_003 + epoch) % (1 << 64)  # torch takes no larger one
    torch.manual_seed(seed)  # dropout
    generator = torch.Generator().manual_seed(seed)
    model.train()
    total, seen = 0.0, 0
    order = draw(faces.labels, recipe.balance, recipe.seed, epoch)
    for image, landmarks, label in batches(faces, order.tolist(), recipe.batch, workers):
        if len(label) == 1:
            continue  # batch norm has no variance of one
        pictures, points = recipe.augmentation(as_input(image), landmarks, generator)
        pictures = pictures.to(device, memory_format=_layout(device))
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=recipe.bf16):
            patch, whole = model.heads(pictures, points.to(device))
        loss = head_loss(patch.float(), whole.float(), label.to(device), model.config.beta, recipe.smoothing)
        if not torch.isfinite(loss):
            raise AmpnetError(f"the loss of epoch {epoch + 1} is {loss.item()}: lower the learning rate (--rate)")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema.update_parameters(model)
        total, seen = total + loss.item() * len(label), seen + len(label)
        done(seen)
    return total / seen


def _layout(device: str) -> torch.memory_format:
    """Channels last is what tensor cores want. On CPUs torch 2.13 corrupts its memory with it, in the backward pass of a
    1 x 1 convolution of stride 2 from 8 to 16 channels."""
    return torch.channels_last if torch.device(device).type == "cuda" else torch.contiguous_format


def averaged(model: AMPNet, decay: float) -> AveragedModel:
    """A copy of the network whose weights and statistics follow it as `averaging` says."""

    def average(kept: Tensors, new: Tensors, steps: Tensor | int) -> None:
        get_ema_multi_avg_fn(averaging(decay, int(steps)))(kept, new, steps)

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def head_loss(patch: Tensor, whole: Tensor, label: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """beta * cross-entropy of the patch head + (1 - beta) * that of the global head: Liu et al. 2022, the joint loss."""
    first, second = (F.cross_entropy(logits, label, label_smoothing=smoothing) for logits in (patch, whole))
    return beta * first + (1 - beta) * second


@torch.inference_mode()
def _predict(model: nn.Module, faces: LabelledFaces, device: str, workers: int) -> np.ndarray:
    """Top-1 int64 [len(faces)]."""
    model.eval()
    found = []
    for image, landmarks, _ in batches(faces, range(len(faces)), EVALUATION_BATCH, workers):
        found.append(model(as_input(image).to(device), landmarks.to(device)).argmax(1).cpu().numpy())
    return np.concatenate(found)


def _name(
    model: AMPNet,
    classes: Sequence[str],
    recipe: TrainingRecipe,
    *,
    training: Sequence[Face],
    validation: Sequence[Face],
    basis: str,
) -> str:
    """Digest of all that a run follows from; faces by their bytes, so that a moved data set is the same."""
    labels = [face.label for face in [*training, *validation]]
    start = hashlib.sha256()
    for value in model.state_dict().values():
        start.update(value.cpu().numpy().tobytes())
    parts = [asdict(model.config), list(classes), asdict(recipe), labels, fingerprint(training), fingerprint(validation)]
    return hashlib.sha256(json.dumps([*parts, basis or start.hexdigest()]).encode()).hexdigest()


def _record(outputs: Outputs, rows: list[Metrics]) -> None:
    with new_file(outputs.metrics) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with new_file(outputs.curve) as temporary:
        draw_curve(temporary, rows)


def require_device(name: str) -> None:
    """MisuseError that says why torch cannot use the device `name` ("cpu", "cuda", "cuda:1"), where it cannot."""
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise MisuseError(f"torch cannot use the device {name}: {str(error).splitlines()[0]}") from error
