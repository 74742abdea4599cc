"""`ampnet-opt compare`: engines against their checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from console_script import fails, left_in, succeeds
from world import World

pytestmark = pytest.mark.slow


@pytest.mark.slow
def test_compare_measures_engines_against_the_checkpoint(world: World, tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    options = ("--data", world.data, "--runs", 2, "--json", target, "--pipeline")
    result = succeeds("compare", world.checkpoint, world.fp32, world.int8, *options)
    assert "Untrained" in result.stdout
    report = json.loads(target.read_text())
    assert report["faces"] == 2
    assert [found["name"] for found in report["results"]] == ["PyTorch", "cpu-fp32", "cpu-int8"]
    assert not any(found["trained"] for found in report["results"])
    assert left_in(tmp_path) == ["report.json"]
    assert "What detection costs" in result.stdout
    assert report["detected"]["faces"]["found"]["value"] == 0  # the pictures are noise
    assert [scores["top1"]["value"] for scores in report["detected"]["scores"]] == [0, 0, 0]
    fails(2, "--detector needs --pipeline", "compare", world.checkpoint, world.fp32, "--detector", "yunet.onnx")


def test_without_arguments_the_shipped_checkpoint_meets_drawn_faces(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the engines of these tests run in OpenVINO")
    fails(2, "ampnet-opt build --int8", "compare", cwd=tmp_path)
    here = {"cwd": tmp_path}
    built = succeeds("build", "--int8", "--backend", "cpu", "--faces", 14, **here)
    assert "untrained" not in built.stdout and (tmp_path / "engines" / "cpu-int8" / "engine.json").is_file()
    compared = succeeds("compare", "--faces", 70, "--runs", 2, "--json", tmp_path / "report.json", **here)
    assert "drawn faces, split test" in compared.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert [found["name"] for found in report["results"]] == ["PyTorch", "cpu-int8"]
    assert report["faces"] == 70
    for found in report["results"]:  # a guess is right on one in seven
        assert found["accuracy"]["top1"]["low"] > 0.5
