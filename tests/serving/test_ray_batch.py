"""A batch on a local Ray cluster of two workers: one is killed, and every picture is in the results once."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from console_script import fails
from engines import save_engine
from PIL import Image
from small import CLASSES, float_graph

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.serving.ray_batch import Totals, Work, Worker, run_batch
from ampnet_opt.shipped import GOLDEN_FACES

parquet = pytest.importorskip("pyarrow.parquet", reason="the extra [ray] is not installed")
PICTURES, BLOCK = 16, 2


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_engine(float_graph(), "0" * 64, tmp_path_factory.mktemp("batch") / "small", CLASSES)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Drawn faces, one picture without a face and one that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    files = [folder / f"{number:02}.jpg" for number in range(PICTURES)]
    drawn = sorted((GOLDEN_FACES / "images").glob("*.jpg"))
    for number, file in enumerate(files):
        shutil.copy(drawn[number % len(drawn)], file)
    Image.new("RGB", (64, 64), (40, 60, 80)).save(files[1])
    files[4].write_bytes(b"no picture")
    return files


def write_block(worker: Worker, pictures: list[Path], number: int) -> None:
    """What Ray Data has a worker do, without Ray."""
    names = [os.fsencode(file) for file in pictures[number * BLOCK : (number + 1) * BLOCK]]
    batch = {"block": np.array([number]), "first": np.array([number * BLOCK]), "files": np.array([names], np.object_)}
    assert worker(batch) == {"pictures": [len(names)]}


def descendants(name: str) -> list[int]:
    """Processes below this one whose command begins with `name`."""
    parents, commands = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                commands[int(entry.name)] = (entry / "cmdline").read_text()
            except OSError:  # it is gone
                continue

    def below(process: int) -> bool:
        while process in parents and process != os.getpid():
            process = parents[process]
        return process == os.getpid()

    return [process for process, command in commands.items() if command.startswith(name) and below(process)]


def rows(folder: Path) -> list[dict[str, object]]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in parquet.read_table(file).to_pylist()]


def test_a_worker_writes_a_row_a_face_and_keeps_a_block_that_is_there(
    engine: Path, pictures: list[Path], tmp_path: Path
) -> None:
    worker = Worker(Work(engine, tmp_path))
    for number in (0, 2):
        write_block(worker, pictures, number)
    found = {row["picture"]: row for row in rows(tmp_path)}
    assert list(found) == [0, 1, 4, 5]
    assert found[0]["file"] == str(pictures[0]) and found[0]["face"] == 0 and found[0]["label"] in CLASSES
    assert found[0]["probability"] == max(found[0]["probabilities"]) and len(found[0]["landmarks"]) == 10
    assert found[1]["face"] is None and found[1]["error"] is None
    assert found[4]["face"] is None and "it is no picture" in str(found[4]["error"])
    before = (tmp_path / "part-00000000.parquet").stat()
    write_block(worker, pictures, 0)
    after = (tmp_path / "part-00000000.parquet").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_repeats_nothing(engine: Path, pictures: list[Path], tmp_path: Path) -> None:
    if find_spec("ray") is None:
        pytest.skip("the extra [ray] is not installed")
    output, killed = tmp_path / "results", []
    with pytest.raises(AmpnetError, match="no Ray cluster at"):  # what is begun is resumed
        run_batch(pictures, Work(engine, output), address="127.0.0.1:1", block=BLOCK)
    worker = Worker(Work(engine, output))
    for number in (0, 5):
        write_block(worker, pictures, number)
    kept = {file: file.stat().st_mtime_ns for file in output.glob("*.parquet")}
    (output / ".part-00000003.parquet.01234567.parquet").touch()  # what a worker leaves that is killed while it writes

    def kill_one(done: int) -> None:
        if done > 2 * BLOCK and not killed:
            killed.extend(descendants("ray::MapWorker")[:1])
            os.kill(killed[0], signal.SIGKILL)

    totals = run_batch(pictures, Work(engine, output), workers=2, block=BLOCK, progress=kill_one)
    assert killed and totals == Totals(PICTURES, faces=PICTURES - 2, failures=1, resumed=2)
    assert [row["picture"] for row in rows(output)] == list(range(PICTURES))  # each has one face, or a row that says none
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert sorted(file.name for file in output.iterdir()) == [
        "_job.json",
        *(f"part-{number:08d}.parquet" for number in range(PICTURES // BLOCK)),
    ]
    assert "RAY_AUTH_TOKEN" not in os.environ and descendants("ray::") == []


def test_without_ray_nothing_is_written(
    engine: Path, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    with pytest.raises(AmpnetError, match=r"needs Ray Data; install it with: .*\[ray\]"):
        run_batch(pictures, Work(engine, tmp_path / "results"))
    assert not (tmp_path / "results").exists()


def test_a_folder_of_other_results_is_refused(engine: Path, pictures: list[Path], tmp_path: Path) -> None:
    with pytest.raises(AmpnetError, match="no Ray cluster at"):
        run_batch(pictures, Work(engine, tmp_path), address="127.0.0.1:1")
    with pytest.raises(MisuseError, match=r"results of another job \(pictures, pictures_sha256 differ\)"):
        run_batch(pictures[1:], Work(engine, tmp_path))
    (tmp_path / "_job.json").rename(tmp_path / "part-0.parquet")
    with pytest.raises(MisuseError, match="Parquet files of something else"):
        run_batch(pictures, Work(engine, tmp_path))


def test_run_refuses_what_does_not_go_with_ray(engine: Path, pictures: list[Path], tmp_path: Path) -> None:
    fails(2, "go together", "run", engine, pictures[0], "--ray", "local")
    batch = ("--ray", "local", "--parquet", tmp_path / "new")
    fails(2, "--csv, --blur: not with --ray", "run", engine, pictures[0], *batch, "--blur", "--csv", tmp_path / "a.csv")
    fails(2, "does not exist", "run", engine, tmp_path / "missing.jpg", *batch)
    assert not (tmp_path / "new").exists()
