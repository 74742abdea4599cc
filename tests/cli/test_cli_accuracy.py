"""The commands that explain INT8, from outside: sensitivity, a choice of layers, the report, scales from a file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from console_script import fails, left_in, succeeds

from ampnet_opt import synthetic
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.sensitivity.analysis import read_sensitivity

pytest.importorskip("openvino", reason="the engines of these tests run in OpenVINO")
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class World:
    """A seeded checkpoint, labelled faces of three splits, and the sensitivity of its blocks."""

    checkpoint: Path
    faces: Path
    sensitivity: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    made = World(folder / "net.safetensors", folder / "faces" / "faces.csv", folder / "sensitivity.json")
    succeeds("init", made.checkpoint, "--width", 0.125)
    synthetic.write(folder / "faces", {"train": 1, "val": 1, "test": 1}, PRESETS["rafdb"], seed=9)
    options = ("--data", made.faces, "--units", "block", "--picture", folder / "picture.png")
    told = succeeds("sensitivity", made.checkpoint, *options, "-o", made.sensitivity).stdout
    assert "(all in INT8)" in told and "40 blocks" not in told and "39 blocks" in told
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert {"net.safetensors", "faces", "sensitivity.json", "picture.png"} == {path.name for path in folder.iterdir()}
    return made


def test_an_analysis_is_not_overwritten_and_asks_for_what_there_is(world: World, tmp_path: Path) -> None:
    before = world.sensitivity.read_bytes()
    fails(2, "--force", "sensitivity", world.checkpoint, "--data", world.faces, "-o", world.sensitivity)
    assert world.sensitivity.read_bytes() == before
    fails(2, "--units", "sensitivity", world.checkpoint, "--data", world.faces, "--units", "row", "-o", tmp_path / "x.json")
    fails(2, "no rows of split", "sensitivity", world.checkpoint, "--split", "none", "--data", world.faces)
    assert left_in(tmp_path) == []


def test_layers_stay_in_floating_point_until_the_budget_holds(world: World, tmp_path: Path) -> None:
    options = ("--int8", "--backend", "cpu", "--data", world.faces, "-o", tmp_path)
    chosen = ("--max-drop", 0, "--min-agreement", 100, "--sensitivity", world.sensitivity)
    said = succeeds("build", world.checkpoint, *options, *chosen).stdout
    record = json.loads((tmp_path / "cpu-int8" / "engine.json").read_text())["mixed_precision"]
    assert record["agreement"] == 1 and record["top1"] >= record["float_top1"]
    assert record["held_out_faces"] == 7 and record["judged_in"].startswith("OpenVINO")
    known = {row.name for row in read_sensitivity(world.sensitivity).rows}
    assert {row["name"] for row in record["float_layers"]} <= known
    for text in (said, succeeds("inspect", tmp_path / "cpu-int8").stdout):
        assert "kept in floating point" in " ".join(text.split()) and "on 7 held-out faces" in " ".join(text.split())
    plain = json.loads((tmp_path / "cpu-int8" / "calibration.json").read_text())
    assert plain["method"] == "entropy"


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("--int8", ["--fp32", "--max-drop", "1"]),
        ("--int8", ["--fp32", "--min-sqnr", "25"]),
        ("'nan' is not a finite number", ["--int8", "--min-sqnr", "nan"]),
        (
            "--held-out, --sensitivity would do nothing without --max-drop or --min-sqnr",
            ["--int8", "--held-out", "val", "--sensitivity", "FILE"],
        ),
        ("--calibration would do nothing without --int8", ["--fp32", "--calibration", "mse"]),
        ("run ampnet-opt sensitivity", ["--int8", "--max-drop", "1", "--calibration", "mse", "--sensitivity", "FILE"]),
        ("does not exist", ["--int8", "--max-drop", "1", "--sensitivity", "nowhere.json"]),
        ("no rows of split", ["--int8", "--max-drop", "1", "--held-out", "none"]),
        ("does not exist", ["--int8", "--scales", "nowhere.json"]),
    ],
)
def test_build_refuses_a_choice_it_cannot_make(world: World, tmp_path: Path, words: str, arguments: list[str]) -> None:
    given = [str(world.sensitivity) if argument == "FILE" else argument for argument in arguments]
    common = ("--backend", "cpu", "--data", world.faces, "-o", tmp_path / "engines")
    fails(2, words, "build", world.checkpoint, *common, *given)
    assert left_in(tmp_path) == []


def test_scales_are_taken_from_a_table(world: World, tmp_path: Path) -> None:
    options = ("--int8", "--backend", "cpu", "--data", world.faces)
    succeeds("build", world.checkpoint, *options, "-o", tmp_path / "first", "--calibration", "minmax")
    table = tmp_path / "first" / "cpu-int8" / "calibration.json"
    succeeds("build", world.checkpoint, *options, "-o", tmp_path / "second", "--scales", table)
    assert (tmp_path / "second" / "cpu-int8" / "calibration.json").read_bytes() == table.read_bytes()
    content = json.loads(table.read_text())
    del content["scales"][next(iter(content["scales"]))]
    table.write_text(json.dumps(content))
    fails(2, "they are of another --input", "build", world.checkpoint, *options, "-o", tmp_path / "third", "--scales", table)
    assert not (tmp_path / "third").exists()


def test_report_is_one_page_of_what_was_measured(world: World, tmp_path: Path) -> None:
    common = ("--data", world.faces, "-o", tmp_path / "engines")
    succeeds("build", world.checkpoint, "--int8", "--backend", "cpu", *common)
    engine, page = tmp_path / "engines" / "cpu-int8", tmp_path / "report.html"
    measured = ("--data", world.faces, "--runs", 2, "--sensitivity", world.sensitivity)
    succeeds("report", world.checkpoint, engine, *measured, "-o", page)
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg") == 7
    assert read_sensitivity(world.sensitivity).rows[0].name in text
    fails(2, "--force", "report", world.checkpoint, engine, *measured, "-o", page)
    succeeds("init", tmp_path / "other.safetensors", "--width", 0.125, "--seed", 3)
    other = ("report", tmp_path / "other.safetensors", engine, *measured, "-o", tmp_path / "other.html")
    fails(2, "another checkpoint", *other)
    assert not (tmp_path / "other.html").exists()
