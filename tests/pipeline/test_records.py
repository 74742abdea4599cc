"""JSON lines and CSV."""

from __future__ import annotations

import csv
import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from faces_of_a_frame import CLASSES, face, result
from full_disk import no_file_beyond
from PIL import Image

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.faces.face import read_landmarks
from ampnet_opt.pipeline.frames import FrameResult
from ampnet_opt.pipeline.outputs import Outputs
from ampnet_opt.pipeline.records import FORMAT, FaceTable, JsonLines, Lines
from ampnet_opt.pipeline.sources.pictures import Pictures

IMAGE = np.zeros((48, 64, 3), np.uint8)


def test_a_line_of_json_holds_a_frame_and_its_faces(tmp_path: Path) -> None:
    writer = JsonLines(Lines(tmp_path / "f.jsonl"), CLASSES)
    writer.write(result(IMAGE, face(10, 20, 30, 7), time=0.48, index=12))
    writer.write(result(IMAGE, index=13, time=0.52))
    first, second = map(json.loads, (tmp_path / "f.jsonl").read_text().splitlines())
    assert (first["format"], first["frame"], first["time"], first["file"]) == (FORMAT, 12, 0.48, None)
    [found] = first["faces"]
    assert (found["track"], found["label"], found["box"]) == (7, "happiness", [10, 20, 30, 30])
    assert found["smoothed"]["happiness"] == pytest.approx(0.7) and len(found["landmarks"]) == 5
    assert second["faces"] == []


def test_numbers_that_json_does_not_know_are_null(tmp_path: Path) -> None:
    broken = replace(face(1, 2, 3), probabilities=np.array([np.nan, np.inf, 0, 1], np.float32))
    JsonLines(Lines(tmp_path / "f.jsonl"), CLASSES).write(result(IMAGE, broken))
    text = (tmp_path / "f.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text)["faces"][0]["probabilities"]["fear"] is None


def test_pixels_are_those_of_the_file_when_a_picture_was_scaled_down(tmp_path: Path) -> None:
    one = result(IMAGE, face(10, 20, 30, None))
    JsonLines(Lines(tmp_path / "f.jsonl"), CLASSES).write(replace(one, frame=replace(one.frame, scale=2.0)))
    assert json.loads((tmp_path / "f.jsonl").read_text())["faces"][0]["box"] == [20, 40, 60, 60]


def written(path: Path, one: FrameResult) -> None:
    table = FaceTable(Lines(path), CLASSES)
    table.begin()
    table.write(one)
    table.close()


def test_earlier_results_stay_until_all_files_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").write_text("old\n" * 100)
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    source = Pictures([tmp_path / "a.png"])
    with pytest.raises(AmpnetError, match="cannot write"):
        Outputs(source, CLASSES, json_lines=tmp_path / "old.jsonl", table=tmp_path / "a.png" / "new.csv")
    with pytest.raises(AmpnetError, match="cannot write"):
        Outputs(source, CLASSES, json_lines=tmp_path / "new.jsonl", table=tmp_path / "a.png" / "new.csv")
    assert (tmp_path / "old.jsonl").read_text() == "old\n" * 100
    assert {path.name for path in tmp_path.iterdir()} == {"old.jsonl", "a.png"}
    with Outputs(source, CLASSES, json_lines=tmp_path / "old.jsonl", table=tmp_path / "new.csv") as outputs:
        assert (tmp_path / "old.jsonl").read_text() == "" and len((tmp_path / "new.csv").read_text().splitlines()) == 1
        outputs.write(result(IMAGE, face(1, 2, 3, None), name="a.png"))
    assert len((tmp_path / "old.jsonl").read_text().splitlines()) == 1


def test_a_file_name_is_no_formula_in_a_spreadsheet(tmp_path: Path) -> None:
    written(tmp_path / "f.csv", result(IMAGE, face(1, 2, 3, None), name="=cmd()\n.jpg"))
    [row] = csv.DictReader((tmp_path / "f.csv").open(newline=""))
    assert row["file"] == "'=cmd()\\n.jpg" and row["track"] == ""


def test_the_table_of_pictures_gives_landmarks_to_run(tmp_path: Path) -> None:
    one = face(10, 20, 30, None)
    written(tmp_path / "f.csv", result(IMAGE, one, name="a.jpg"))
    (tmp_path / "a.jpg").touch()
    [read] = read_landmarks(tmp_path / "f.csv", [tmp_path / "a.jpg"])
    np.testing.assert_allclose(read.landmarks, one.detection.landmarks, atol=0.05)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_what_a_device_refuses_is_said() -> None:
    with pytest.raises(AmpnetError) as raised:
        FaceTable(Lines("/dev/full"), CLASSES).begin()
    assert str(raised.value) == f"cannot write on in /dev/full: {os.strerror(errno.ENOSPC)}"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_pipe_whose_reader_left_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    lines = Lines(tmp_path / "pipe")
    lines.add("one\n")
    assert os.read(reader, 100) == b"one\n"
    os.close(reader)
    with pytest.raises(AmpnetError, match=rf"pipe: {os.strerror(errno.EPIPE)}$"):
        lines.add("two\n")
    lines.close()


def test_a_line_after_one_that_had_no_room_follows_the_whole_ones(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "f.jsonl")
    lines.add("one\n")
    with no_file_beyond(2000), pytest.raises(AmpnetError):
        lines.add("x" * 3000 + "\n")
    lines.add("two\n")
    lines.close()
    assert (tmp_path / "f.jsonl").read_text() == "one\ntwo\n"


def test_a_full_disk_leaves_whole_lines_and_says_so(tmp_path: Path) -> None:
    writer = JsonLines(Lines(tmp_path / "f.jsonl"), CLASSES)
    with no_file_beyond(2000), pytest.raises(AmpnetError, match="lines before are kept"):
        for index in range(100):
            writer.write(result(IMAGE, face(10, 20, 30), index=index))
    lines = (tmp_path / "f.jsonl").read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == list(range(len(lines))) and lines
