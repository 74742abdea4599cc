"""The whole of `optimize`, from a checkpoint and from a bundle, with a small network and few faces."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from console_script import fails, succeeds

from ampnet_opt import synthetic
from ampnet_opt.benchmarks.noninferiority import Margin
from ampnet_opt.bundling.carried_faces import NAME, open_carried
from ampnet_opt.core.labels import PRESETS, label_indices
from ampnet_opt.faces.face import read_faces
from ampnet_opt.network.checkpoint import Checkpoint, read_checkpoint
from ampnet_opt.network.model import AMPNet
from ampnet_opt.optimize.candidates import Candidate, Faces, runnable
from ampnet_opt.optimize.contest import Request
from ampnet_opt.optimize.from_checkpoint import RANKING, CheckpointMaker, NetworkFile
from ampnet_opt.optimize.run import BEST, JSON, PAGE, STATE, Inputs, optimize
from ampnet_opt.optimize.speed import GOALS
from ampnet_opt.runtime import Engine
from ampnet_opt.runtime.build import compile_engine
from ampnet_opt.runtime.bundle import open_bundle
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.sidecar import read_sidecar
from ampnet_opt.sensitivity.effect import Effect

pytestmark = pytest.mark.slow
CLASSES = PRESETS["affectnet7"]
LENIENT = ("--max-drop", 60, "--min-agreement", 20)  # of few faces little is shown


@dataclass(frozen=True)
class Ground:
    checkpoint: Path
    data: Path


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("ground")
    succeeds("init", folder / "net.safetensors", "--width", 0.125, "--classes", "affectnet7")
    data = synthetic.write(folder / "faces", {"train": 2, "val": 2, "test": 2}, CLASSES, seed=3)
    return Ground(folder / "net.safetensors", data)


def options(ground: Ground, output: Path) -> tuple[object, ...]:
    return ground.checkpoint, "--data", ground.data, "--backend", "cpu", *LENIENT, "--seconds", 1, "-o", output


@pytest.fixture(scope="module")
def optimized(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where the result of one run is, and what it said."""
    output = tmp_path_factory.mktemp("optimized") / "engines"
    told = succeeds("optimize", *options(ground, output), timeout=400)
    return output, told.stdout


def test_the_best_engine_is_one_that_was_measured_and_says_why(ground: Ground, optimized: tuple[Path, str]) -> None:
    output, told = optimized
    assert {BEST, JSON, PAGE} <= {path.name for path in output.iterdir()}
    assert not (output / STATE).exists()
    found = json.loads((output / JSON).read_text())
    names = [Candidate(**row["candidate"]).name for row in found["rows"]]
    assert {"cpu-fp32", "cpu-int8-entropy"} <= {*names}
    best = found["rows"][names.index(found["best"])]
    assert best["fate"] == ""
    assert best["final"]["verdict"] == "non-inferior" or best["candidate"]["precision"] == "fp32"
    assert all(row["fate"] for row in found["rows"] if row is not best)
    assert found["choosing_faces"] == found["final_faces"] == 14
    assert found["reference"]["value"] > 0
    sidecar = read_sidecar(output / BEST)
    assert sidecar.precision == best["candidate"]["precision"]
    assert sidecar.optimized == {"goal": "latency", "why": found["why"]}
    assert found["why"] in told.replace("\n", "")
    assert found["why"] in " ".join(succeeds("inspect", output / BEST, variables={"COLUMNS": "2000"}).stdout.split())
    with Engine.load(output / BEST) as engine:
        assert engine.infer(np.zeros((1, 224, 224, 3), np.uint8), np.full((1, 5, 2), 112, np.float32)).shape == (1, 7)


def test_the_page_needs_nothing_else_and_names_every_candidate(optimized: tuple[Path, str]) -> None:
    output, _ = optimized
    page = (output / PAGE).read_text()
    found = json.loads((output / JSON).read_text())
    assert all(row["candidate"]["backend"] in page for row in found["rows"])
    assert "http:" not in page
    assert "https:" not in page
    assert "seeded, not trained" in page


def test_a_second_run_takes_what_was_measured(ground: Ground, optimized: tuple[Path, str]) -> None:
    output, told = optimized
    before = (output / JSON).read_bytes()
    again = succeeds("optimize", *options(ground, output))
    assert "nothing has changed since" in again.stderr
    assert again.stdout == told
    assert (output / JSON).read_bytes() == before
    fails(2, "exists already; pass --force", "optimize", *options(ground, output), "--max-drop", 50)


def test_the_candidates_are_listed_without_building_any(ground: Ground, tmp_path: Path) -> None:
    told = succeeds("optimize", ground.checkpoint, "--data", ground.data, "--dry-run", "-o", tmp_path / "none")
    assert "cpu-fp32" in told.stdout.split()
    assert "and 3 other calibrations" in told.stdout
    assert "minute" in told.stdout.splitlines()[-1]
    assert not (tmp_path / "none").exists()


def splits(ground: Ground) -> dict[str, Faces]:
    classes = read_checkpoint(ground.checkpoint).classes
    faces = {split: read_faces(ground.data, split) for split in ("train", "val", "test")}
    return {split: Faces(some, label_indices(classes, [face.label for face in some])) for split, some in faces.items()}


def maker_of(
    ground: Ground, sets: dict[str, Faces], precisions: tuple[str, ...], checkpoint: Checkpoint | None = None
) -> CheckpointMaker:
    return CheckpointMaker(
        checkpoint or read_checkpoint(ground.checkpoint),
        NetworkFile(ground.checkpoint),
        [("cpu", precisions)],
        image_input="uint8",
        calibrating=sets["train"].faces,
        choosing=sets["val"],
        compiling=CompileOptions(),
        threads=1,
    )


def test_a_result_is_of_its_classes_and_patch_radius_not_of_the_file_alone(ground: Ground) -> None:
    """Files of the authors hold neither."""
    sets, found = splits(ground), read_checkpoint(ground.checkpoint)
    config = found.model.config
    others = (
        found,
        replace(found, classes=[*reversed(found.classes)]),
        replace(found, assumed="the classes are assumed"),
        replace(found, model=AMPNet(config.num_classes, config.width, config.patch_radius - 2, config.beta)),
    )
    identities = [maker_of(ground, sets, ("fp32",), checkpoint).identity for checkpoint in others]
    assert all(identities.count(one) == 1 for one in identities)
    assert maker_of(ground, sets, ("fp32",)).identity == identities[0]


@contextmanager
def quiet(name: str, total: int) -> Iterator[Callable[[float], None]]:
    yield lambda done: None


def test_a_stopped_run_goes_on_with_what_it_built_and_what_does_not_run_is_left_out(ground: Ground, tmp_path: Path) -> None:
    sets = splits(ground)
    _, able = runnable(["cpu"])[0][0]
    missing = [precision for precision in ("fp16", "bf16") if precision not in able][:1]

    def run(step: Callable[..., object]) -> None:
        maker = maker_of(ground, sets, ("fp32", *missing, "int8"))
        request = Request(GOALS["latency"], Margin(60, 0.2), 1, 1, seconds=1)
        optimize(maker, Inputs("net", sets["val"], sets["test"]), request, tmp_path, step=step)  # type: ignore[arg-type]

    steps: list[str] = []

    @contextmanager
    def stopping(name: str, total: int) -> Iterator[Callable[[float], None]]:
        steps.append(name)
        if name == "timing":
            raise KeyboardInterrupt
        yield lambda done: None

    with pytest.raises(KeyboardInterrupt):
        run(stopping)
    assert "building cpu-fp32" in steps
    assert not (tmp_path / BEST).exists()
    assert (tmp_path / STATE / "cpu-fp32").is_dir()

    @contextmanager
    def noting(name: str, total: int) -> Iterator[Callable[[float], None]]:
        steps.append(name)
        yield lambda done: None

    steps.clear()
    run(noting)
    assert "building cpu-fp32" not in steps
    assert "building cpu-int8-entropy" not in steps
    assert (tmp_path / BEST).is_dir()
    assert not (tmp_path / STATE).exists()
    fates = {row["candidate"]["precision"]: row["fate"] for row in json.loads((tmp_path / JSON).read_text())["rows"]}
    assert all(
        fates[name].startswith("cannot be built and run here: this processor does not compute in") for name in missing
    )


@dataclass
class Better:
    """A limit: so many decibels more than the first choice that it is asked about, which has all layers in INT8."""

    decibels: float
    least: list[float] = field(default_factory=list)

    def holds(self, found: Effect, reference_top1: float) -> bool:
        self.least = self.least or [found.sqnr_db + self.decibels]
        return found.sqnr_db >= self.least[0]

    def describe(self, found: Effect, reference_top1: float) -> str:
        return f"{found.sqnr_db:.1f} dB"

    def record(self) -> dict[str, Any]:
        return {}


def test_layers_go_back_to_floating_point_until_a_limit_holds(ground: Ground, tmp_path: Path) -> None:
    """In one order without the engines whose layers are timed, in two with them; the ranking is made once."""
    maker = maker_of(ground, splits(ground), ("fp32", "int8"))
    fp32, int8 = maker.candidates()
    assert maker.mix(int8, tmp_path, Better(500.0), quiet) == []
    ranked = (tmp_path / RANKING).stat().st_mtime_ns
    (alone,) = maker.mix(int8, tmp_path, Better(3.0), quiet)
    assert alone.float_layers > 0

    def build(candidate: Candidate) -> dict[str, Any]:
        directory = tmp_path / candidate.name
        directory.mkdir()
        sidecar = compile_engine(maker.request(candidate, quiet), directory)[0]
        sidecar.write(directory)
        return sidecar.mixed_precision or {}

    assert build(fp32) == build(int8) == {}
    limit = Better(3.0)
    several = maker.mix(int8, tmp_path, limit, quiet)
    assert several
    assert (tmp_path / RANKING).stat().st_mtime_ns == ranked
    for mixed in several:
        told = build(mixed)
        assert len(told["float_layers"]) == mixed.float_layers
        assert told["sqnr_db"] >= limit.least[0]
    # The noisiest first needs as many as before; the other order is added only where it takes another number of layers.
    assert alone.float_layers in {mixed.float_layers for mixed in several}


def test_a_board_chooses_from_a_bundle_by_the_faces_that_it_carries(ground: Ground, tmp_path: Path) -> None:
    what = ("--target", "cpu", "--fp32", "--int8", "--data", ground.data, "--with-faces")
    succeeds("bundle", ground.checkpoint, *what, "-o", tmp_path / "board.tar")
    told = succeeds("optimize", tmp_path / "board.tar", *LENIENT, "-o", tmp_path / "engines")
    found = json.loads((tmp_path / "engines" / JSON).read_text())
    assert [row["candidate"]["precision"] for row in found["rows"]] == ["fp32", "int8"]
    assert (found["final_faces"], found["choosing_faces"], found["reference"], found["drawn"]) == (14, 0, None, False)
    assert read_sidecar(tmp_path / "engines" / BEST).optimized is not None
    assert "14 faces to prove" in told.stdout
    fails(2, "--data is for checkpoints", "optimize", tmp_path / "board.tar", "--data", ground.data)
    words = "no engine takes at most 0.001 ms: the fastest, cpu-"
    fails(1, words, "optimize", tmp_path / "board.tar", "--max-latency", 0.001, "-o", tmp_path / "none")
    assert not (tmp_path / "none" / BEST).exists()
    assert json.loads((tmp_path / "none" / JSON).read_text())["best"] is None


def test_data_without_splits_is_dealt_into_three(ground: Ground, tmp_path: Path) -> None:
    rows = ground.data.read_text().splitlines()
    columns = rows[0].split(",")
    drop = columns.index("split")
    table = ground.data.with_name("plain.csv")
    table.write_text("\n".join(",".join(c for i, c in enumerate(row.split(",")) if i != drop) for row in rows) + "\n")
    told = succeeds("optimize", ground.checkpoint, "--data", table, "--dry-run")
    assert "has no splits: 14 faces for --split, 14 faces for --held-out, 14 faces for --final" in told.stderr
    what = ("--target", "cpu", "--fp32", "--int8", "--data", table, "--with-faces")
    told = succeeds("bundle", ground.checkpoint, *what, "-o", tmp_path / "board.tar")
    assert "data without splits: 21 faces for --split, 21 faces for --final" in told.stderr
    with open_bundle(tmp_path / "board.tar") as bundle, open_carried(bundle.read(NAME), 7) as (faces, _):
        assert len(faces) == 21
