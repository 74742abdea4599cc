"""tools/train_landmarks.py: what it shows the network, and a training of a few steps from faces to a file."""

from __future__ import annotations

import csv
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ampnet_opt.core.files import sha256
from ampnet_opt.detection.refinement import APART, SHAPE, SIDE
from ampnet_opt.faces.face import read_faces
from ampnet_opt.shipped import GOLDEN_FACES

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    return import_module("train_landmarks")


def test_a_training_from_faces_to_a_file(tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces, output = tmp_path / "faces.csv", tmp_path / "out.onnx"
    with (GOLDEN_FACES / "faces.csv").open(newline="") as source, faces.open("w", newline="") as stream:
        header, *rows = csv.reader(source)
        writer = csv.writer(stream)
        writer.writerow([*header, "split"])
        for number, row in enumerate(rows):
            name = GOLDEN_FACES / "images" / row[0]
            writer.writerow([name, *row[1:], "test" if number == 0 else "train"])
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["", str(faces), "-o", str(output), "--seeds", "1", "--steps", "2"])
    try:
        tool.main()
    finally:
        torch.set_num_threads(threads)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces.csv", "out.onnx"]
    about = {entry.key: entry.value for entry in onnx.load(output).metadata_props}
    real, _, drawn = about.pop("trained_on").partition(" real faces, split train; ")
    assert int(real) == len(rows) - 1 and 1 <= int(drawn.split()[0]) <= 5, "of five frames with one person"
    own = {"drawn_seeds": "100000 to 100000", "faces_sha256": sha256(faces), "steps": "2"}
    assert {key: about[key] for key in own} == own
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    (points,) = session.run(None, {"image": np.full((1, 3, SIDE, SIDE), 90, np.float32)})
    assert points.shape == (1, 10) and np.abs(points.reshape(5, 2) + SHAPE).max() < 0.5 / APART, "within the square"


def test_training_that_was_stopped_goes_on_as_if_it_had_not_been(
    tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops, points = tool.real_faces(read_faces(GOLDEN_FACES / "faces.csv", "all"))
    sources = [(torch.from_numpy(crops), torch.from_numpy(points))] * 2
    monkeypatch.setattr(tool, "BATCH", 16)
    monkeypatch.setattr(tool, "KEPT", 2)  # the third step is done again
    state = tmp_path / "out.pt"
    once = tool.train(sources, 3, state, {"steps": "3"})
    again = tool.train(sources, 3, state, {"steps": "3"})
    assert torch.load(state, weights_only=True)["step"] == 2
    for name, value in once.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=1e-4, atol=1e-4)
    with pytest.raises(SystemExit, match="is of other faces or steps"):
        tool.train(sources, 4, state, {"steps": "4"})


def test_answers_lie_where_the_points_are_seen(tool: Any) -> None:
    """White discs at the points, on black: after every shift, turn and mirroring, an answer is in the middle of one."""
    count = 64
    points = (SHAPE * APART / tool.WIDER + 0.5) * tool.STORED
    y, x = np.mgrid[: tool.STORED, : tool.STORED] + 0.5
    discs = np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1]).min(2) < 3
    crops = torch.from_numpy(np.stack([discs * 255] * 3 + [np.full_like(x, 255)]).astype(np.uint8)).expand(count, -1, -1, -1)
    given = torch.from_numpy(points.astype(np.float32)).expand(count, -1, -1)
    images, answers = tool.augmented(crops, given, torch.Generator().manual_seed(3))
    assert images.shape == (count, 3, SIDE, SIDE) and images.min() >= 0 and images.max() <= 255
    at = ((answers.reshape(count, 5, 2).numpy() + SHAPE) * APART + 0.5) * SIDE
    assert (at[:, 0, 0] < at[:, 1, 0]).all() and (at[:, 3, 0] < at[:, 4, 0]).all(), "image-left first"
    assert np.ptp(at[:, 0], axis=0).min() > 5, "faces are moved"
    offset = np.stack(np.meshgrid(np.arange(-4, 5), np.arange(-4, 5)), 2)  # x, y
    hits = []
    for image, places in zip(images.mean(1).numpy(), at):
        for place in places:
            corner = np.floor(place).astype(int)
            columns, rows = (corner + offset).reshape(-1, 2).T
            if not (corner >= 4).all() or not (corner < SIDE - 5).all():
                continue
            light = image[rows, columns] - np.median(image)
            light = np.where(light > 60, light, 0)
            if light.sum() > 0:  # else it is covered
                middle = (light[:, None] * (corner + offset + 0.5).reshape(-1, 2)).sum(0) / light.sum()
                hits.append(np.hypot(*(middle - place)))
    assert len(hits) > 4 * count and np.median(hits) < 0.3 and np.quantile(hits, 0.9) < 1
