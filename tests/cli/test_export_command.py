"""`ampnet-opt export`: a graph, or why there is none."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from console_script import fails, left_in, succeeds
from world import World


def test_export_writes_a_graph_of_image_and_landmarks(world: World, tmp_path: Path) -> None:
    import onnx

    target = tmp_path / "narrow.onnx"
    succeeds("export", world.checkpoint, "-o", target, "--input", "float32")
    graph = onnx.load(target).graph
    assert [value.name for value in graph.input] == ["image", "landmarks"]
    assert left_in(tmp_path) == ["narrow.onnx"]
    before = target.read_bytes()
    fails(2, "exists already", "export", world.checkpoint, "-o", target)
    assert target.read_bytes() == before


@pytest.mark.parametrize("kind", ["text", "empty", "torch", "zip"])
def test_foreign_files_are_no_checkpoints(tmp_path: Path, kind: str) -> None:
    foreign = tmp_path / "foreign.pth"
    if kind == "text":
        foreign.write_text("no weights here\n" * 100)
    elif kind == "empty":
        foreign.touch()
    elif kind == "torch":
        torch.save({"layer.weight": torch.zeros(3, 3)}, foreign)
    else:
        with zipfile.ZipFile(foreign, "w") as archive:
            archive.writestr("notes.txt", "no weights here")
    fails(1, "foreign.pth", "export", foreign, "-o", tmp_path / "foreign.onnx")
    assert left_in(tmp_path) == ["foreign.pth"]


def test_export_refuses_other_classes_than_the_checkpoint_names(world: World, tmp_path: Path) -> None:
    fails(2, "leave out --classes", "export", world.checkpoint, "-o", tmp_path / "a.onnx", "--classes", "a,b")
    assert left_in(tmp_path) == []
