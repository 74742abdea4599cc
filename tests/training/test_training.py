"""Augmentation moves landmarks with the picture, sampling balances, and a killed run ends where an unbroken one does."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from ampnet_opt.cli.options import LARGEST_INTEGER
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.faces.face import Face
from ampnet_opt.network.checkpoint import read_checkpoint, seeded
from ampnet_opt.network.tensors import read_tensors, write_tensors
from ampnet_opt.training.augment import FLIPPED, Augmentation, recolour, view
from ampnet_opt.training.faces import LabelledFaces
from ampnet_opt.training.loop import Outputs, head_loss, require_device, train
from ampnet_opt.training.recipe import TrainingRecipe, draw

CLASSES = ("dark", "bright")
POINTS = torch.tensor([[80.0, 90.0], [140.0, 95.0], [110.0, 120.0], [85.0, 150.0], [135.0, 155.0]])


def marked(points: torch.Tensor) -> torch.Tensor:
    """Black pictures [5, 3, 224, 224], each with one soft white spot, centred on one of the points."""
    axis = torch.arange(224) + 0.5
    spots = [torch.exp(-((axis[None] - x) ** 2 + (axis[:, None] - y) ** 2) / 18) for x, y in points]
    return torch.stack(spots)[:, None].expand(-1, 3, -1, -1)


def centre_of(picture: torch.Tensor) -> torch.Tensor:
    axis = torch.arange(224) + 0.5
    weight = picture[0] / picture[0].sum()
    return torch.stack([(weight.sum(0) * axis).sum(), (weight.sum(1) * axis).sum()])


@settings(max_examples=15, deadline=None)
@given(st.floats(-0.4, 0.4), st.floats(0.85, 1.15), st.floats(-12, 12), st.floats(-12, 12), st.booleans())
def test_what_is_drawn_at_a_landmark_stays_there(angle: float, zoom: float, x: float, y: float, flip: bool) -> None:
    pictures = marked(POINTS)
    n = len(pictures)
    views, moved = view(
        pictures,
        POINTS.expand(n, 5, 2),
        angle=torch.full((n,), angle),
        zoom=torch.full((n,), zoom),
        shift=torch.tensor([[x, y]]).expand(n, 2),
        flipped=torch.full((n,), flip),
    )
    for i in range(n):
        position = FLIPPED.index(i) if flip else i
        assert torch.dist(centre_of(views[i]), moved[i, position]) < 0.1


def test_a_positive_angle_turns_clockwise_and_a_flip_mirrors() -> None:
    one, none = torch.ones(1), torch.zeros(1)
    corner = torch.tensor([[[200.0, 112.0]] * 5])
    picture = torch.zeros(1, 3, 224, 224)
    still, stay, quarter = torch.zeros(1, 2), torch.tensor([False]), torch.tensor([math.pi / 2])
    centred = {"zoom": one, "shift": still}
    assert torch.allclose(
        view(picture, corner, angle=quarter, flipped=stay, **centred)[1][0, 0], torch.tensor([112.0, 200.0]), atol=1e-4
    )
    assert torch.equal(view(picture, corner, angle=none, flipped=~stay, **centred)[1][0, 0], torch.tensor([24.0, 112.0]))
    flipped = view(marked(POINTS)[:1], POINTS[None], angle=none, flipped=~stay, **centred)[0]
    assert torch.allclose(flipped, marked(POINTS)[:1].flip(3), atol=1e-5)


def test_after_a_flip_the_first_eye_is_the_one_on_the_left() -> None:
    never = Augmentation(0, 0, 0, 1.0, 0, 0, 0)
    _, moved = never(torch.zeros(1, 3, 224, 224), POINTS[None], torch.Generator().manual_seed(0))
    assert torch.allclose(moved[0, :, 0], torch.tensor([84.0, 144.0, 114.0, 89.0, 139.0]), atol=1e-4)
    assert torch.allclose(moved[0, :, 1], torch.tensor([95.0, 90.0, 120.0, 155.0, 150.0]), atol=1e-4)


def test_colours() -> None:
    grey, one, none = torch.full((1, 3, 4, 4), 0.25), torch.ones(1), torch.zeros(1)
    assert torch.allclose(recolour(grey, none + 0.5, one, one), torch.full((1, 3, 4, 4), 0.75))
    coloured = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    without = recolour(coloured, none, one, none)
    assert torch.allclose(without[:, 0], without[:, 2]) and without.std() > 0.05
    assert recolour(coloured, none, none, one).std((2, 3)).max() < 1e-5  # contrast 0 is the mean everywhere, per picture
    assert torch.allclose(recolour(coloured, none, one, one), coloured, atol=1e-6)


@pytest.mark.parametrize(("balance", "share"), [(0.0, 0.1), (0.5, 0.25), (1.0, 0.5)])
def test_sampling_follows_the_counts_to_the_power_of_one_minus_balance(balance: float, share: float) -> None:
    labels = [0] * 18000 + [1] * 2000
    drawn = np.array(labels)[draw(labels, balance, seed=3, epoch=0)]
    assert len(drawn) == len(labels) and abs(drawn.mean() - share) < 0.015


def test_epochs_draw_differently_and_repeatably() -> None:
    labels = [0, 1] * 50
    assert (draw(labels, 0.5, 1, 0) == draw(labels, 0.5, 1, 0)).all()
    assert (draw(labels, 0.5, 1, 0) != draw(labels, 0.5, 1, 1)).any()
    assert (draw(labels, 0.5, 1, 0) != draw(labels, 0.5, 2, 0)).any()


def test_the_rate_falls_by_ten_at_each_step() -> None:
    recipe = TrainingRecipe(epochs=20, rate=0.5, decay_at=(0.5, 0.75))
    assert [round(recipe.rate_of(epoch), 6) for epoch in (0, 9, 10, 14, 15, 19)] == [0.5, 0.5, 0.05, 0.05, 0.005, 0.005]


def test_loss_weighs_the_heads_by_beta() -> None:
    label = torch.tensor([1])
    sure, unsure = torch.tensor([[-20.0, 20.0]]), torch.zeros(1, 2)
    assert head_loss(unsure, sure, label, 0.25).item() == pytest.approx(0.25 * math.log(2), abs=1e-5)
    assert head_loss(sure, unsure, label, 0.25).item() == pytest.approx(0.75 * math.log(2), abs=1e-5)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> list[Face]:
    folder, rng = tmp_path_factory.mktemp("faces"), np.random.default_rng(0)
    made = []
    for i in range(12):
        bright = i % 2
        pixels = (rng.integers(0, 80, (224, 224, 3)) + 170 * bright).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        made.append(Face(folder / f"{i}.png", POINTS.numpy(), CLASSES[bright]))
    return made


RECIPE = TrainingRecipe(epochs=4, batch=4, rate=0.05, ema=0.5, seed=1)


class Killed(BaseException):
    pass


def learn(
    faces: list[Face], output: Path, recipe: TrainingRecipe = RECIPE, stop_at: int | None = None
) -> dict[str, torch.Tensor]:
    def report(epoch: int, done: int, metrics: dict[str, float]) -> None:
        if epoch == stop_at and 0 < done < 12:
            raise Killed

    model = seeded(0, 0.125, len(CLASSES))
    train(model, CLASSES, faces, faces[:6], recipe, output=output, workers=0, report=report)
    return load_file(output)


def test_too_few_faces_are_refused_in_words(faces: list[Face], tmp_path: Path) -> None:
    for training, validation, words in (
        (faces[:1], faces[1:], "two different faces or more, and there are 1"),
        ([], faces, "two different faces or more, and there are 0"),
        (faces, [], "there are no validation faces"),
    ):
        with pytest.raises(MisuseError, match=words):
            train(seeded(0, 0.125, 2), CLASSES, training, validation, RECIPE, output=tmp_path / "x.safetensors", workers=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(faces: list[Face], tmp_path: Path) -> None:
    whole = learn(faces, tmp_path / "whole.safetensors")
    output = tmp_path / "broken.safetensors"
    with pytest.raises(Killed):
        learn(faces, output, stop_at=2)
    assert Outputs(output).state.exists()
    resumed = learn(faces, output)
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert Outputs(output).metrics.read_text() == (tmp_path / "whole.csv").read_text()
    assert not Outputs(output).state.exists()
    assert {file.name for file in tmp_path.iterdir()} == {
        f"{n}.{s}" for n in ("whole", "broken") for s in ("safetensors", "csv", "png")
    }


def test_a_run_that_was_killed_before_its_checkpoint_stood_goes_on(faces: list[Face], tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1)
    whole = learn(faces, tmp_path / "whole.safetensors", recipe)
    output = tmp_path / "broken.safetensors"
    output.mkdir()  # so that the first epoch's checkpoint cannot be written
    with pytest.raises(MisuseError, match="is a directory"):
        learn(faces, output, recipe)
    output.rmdir()
    assert [file.name for file in tmp_path.glob("broken*")] == ["broken.state"]
    resumed = learn(faces, output, recipe)
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert Outputs(output).metrics.read_text() == (tmp_path / "whole.csv").read_text()


def test_a_state_whose_best_epoch_is_gone_is_refused(faces: list[Face], tmp_path: Path) -> None:
    output = tmp_path / "net.safetensors"
    with pytest.raises(Killed):
        learn(faces, output, stop_at=2)
    tensors, metadata = read_tensors(Outputs(output).state)
    rows = json.loads(metadata["rows"])
    best_first = json.dumps([{**rows[0], "top1": 1.0, "macro_f1": 1.0}, {**rows[1], "top1": 0.0}])
    write_tensors(Outputs(output).state, tensors, {**metadata, "rows": best_first})
    output.unlink()
    with pytest.raises(AmpnetError, match="is gone; pass --force"):
        learn(faces, output)


def test_every_seed_that_the_command_takes_trains(faces: list[Face], tmp_path: Path) -> None:
    assert learn(faces, tmp_path / "net.safetensors", replace(RECIPE, epochs=1, seed=LARGEST_INTEGER))


@pytest.mark.slow
def test_what_a_run_leaves(faces: list[Face], tmp_path: Path) -> None:
    output = tmp_path / "net.safetensors"
    kept = learn(faces, output, replace(RECIPE, epochs=8, rate=0.02, ema=0.3))
    assert {tensor.dtype for tensor in kept.values()} == {torch.float16}
    read = read_checkpoint(output)
    assert read.trained and read.classes == CLASSES and read.model.config.width == 0.125
    with open(Outputs(output).metrics, encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == [str(n) for n in range(1, 9)]
    assert float(rows[-1]["loss"]) < 0.5 * float(rows[0]["loss"])  # dark and bright are told apart
    with Image.open(Outputs(output).curve) as picture:
        assert picture.size == (840, 480) and len(picture.convert("RGB").getcolors(1 << 20) or []) > 10


def test_the_state_of_another_run_is_refused(faces: list[Face], tmp_path: Path) -> None:
    output = tmp_path / "net.safetensors"
    with pytest.raises(Killed):
        learn(faces, output, stop_at=1)
    with pytest.raises(MisuseError, match="another recipe or other faces"):
        learn(faces, output, replace(RECIPE, rate=0.1))
    with pytest.raises(MisuseError, match="another recipe or other faces"):
        learn(faces[:10], output)
    Outputs(output).state.write_bytes(b"x" * 100)
    with pytest.raises(AmpnetError, match="damaged"):
        learn(faces, output)


def test_a_loss_that_is_no_number_stops_the_run(faces: list[Face], tmp_path: Path) -> None:
    recipe = replace(RECIPE)
    object.__setattr__(recipe, "rate", 1e30)  # more than it takes, so that the loss grows at once
    with pytest.raises(AmpnetError, match="--rate"):
        learn(faces, tmp_path / "net.safetensors", recipe)
    assert not list(tmp_path.iterdir())


def test_labels_and_devices_that_do_not_fit(faces: list[Face]) -> None:
    with pytest.raises(MisuseError, match="lacks: 'bright'; its classes are dark, light"):
        LabelledFaces(faces, ("dark", "light"))
    if not torch.cuda.is_available():
        with pytest.raises(MisuseError, match="cannot use the device cuda"):
            require_device("cuda")
