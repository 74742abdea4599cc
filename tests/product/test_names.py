"""Names of files that are no text: other encodings, control characters, formulas, dashes, lengths."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from drawn_points import FACE
from engines import save_engine
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small import CLASSES, float_graph

from ampnet_opt.core.text import plain_cell, spreadsheet_cell
from ampnet_opt.datasets.labelled_picture import Picture
from ampnet_opt.faces.face import COLUMNS, read_faces
from ampnet_opt.preparing.prepare import prepare

GBK = b"\xd0\xc2".decode("utf-8", "surrogateescape")
NAMES = [
    f"{GBK}.jpg",
    "a\nb.jpg",
    "a\x1b[31mb.jpg",
    "-x.jpg",
    "--force.jpg",
    "=1+1.jpg",
    "@x.jpg",
    "'=x.jpg",
    unicodedata.normalize("NFD", "é.jpg"),
    "日本 語.jpg",
    "x" * 250 + ".jpg",
    "a,b;\"c'.jpg",
    "\u202egpj.exe.jpg",
    "%s{0}[red].jpg",
]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs names of any bytes")


def rows(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def faces(names: list[str], label: str = "") -> list[Picture]:
    return [Picture(name, label, pixels=np.full((48, 60), 9, np.uint8), landmarks=FACE / 5) for name in names]


@given(st.text())
def test_a_cell_is_read_back_as_it_was_and_is_no_formula(text: str) -> None:
    cell = spreadsheet_cell(text)
    assert plain_cell(cell) == text and not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_prepare_finishes_with_names_that_are_no_text(tmp_path: Path) -> None:
    done = prepare(faces(NAMES), tmp_path / "out", crop=False, workers=1)
    found = read_faces(done.table, labelled=False, repeats=True)  # of one picture under many names
    assert len(found) == len(NAMES)
    assert all(face.file.name.isascii() and face.file.name.isprintable() and face.file.name[0] != "-" for face in found)


def test_skipped_names_are_escaped_and_no_formulas(tmp_path: Path) -> None:
    (tmp_path / "none.jpg").write_bytes(b"none")
    broken = [Picture(name, file=tmp_path / "none.jpg", landmarks=FACE) for name in NAMES]
    prepare([*faces(["good"]), *broken], tmp_path / "out", crop=False, workers=1)
    head, *listed = rows(tmp_path / "out" / "skipped.csv")
    assert head[0] == "file" and len(listed) == len(NAMES)
    assert all(cell.isprintable() and cell[:1] not in "=+-@" for row in listed for cell in row if cell)
    assert [row[0] for row in listed][:4] == [r"\udcd0\udcc2.jpg", r"a\nb.jpg", r"a\x1b[31mb.jpg", "'-x.jpg"]


@pytest.mark.parametrize(
    ("label", "cell", "read"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0", "=cmd|' /C calc'!A0"),
        ("'@x", "''@x", "'@x"),
        (GBK, r"\udcd0\udcc2", r"\udcd0\udcc2"),
        ("-3.5", "-3.5", "-3.5"),
        ("fear", "fear", "fear"),
    ],
)
def test_labels_are_no_formulas_and_are_read_back(tmp_path: Path, label: str, cell: str, read: str) -> None:
    done = prepare(faces(["x"], label), tmp_path / "out", crop=False, workers=1)
    head, row = rows(done.table)
    assert row[head.index("label")] == cell
    assert read_faces(done.table)[0].label == read
    assert [float(row[head.index(column)]) for column in COLUMNS]  # numbers stay numbers


def test_negative_landmarks_stay_numbers(tmp_path: Path) -> None:
    done = prepare(
        [Picture("x", pixels=np.full((48, 60), 9, np.uint8), landmarks=FACE / 5 - FACE.min() / 5 - 2)],
        tmp_path,
        crop=False,
        workers=1,
    )
    assert (read_faces(done.table, labelled=False)[0].landmarks < 0).any()
    assert "'" not in done.table.read_text()


def test_a_stopped_run_goes_on_with_such_names(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(faces(NAMES), tmp_path / "out", crop=False, workers=1, progress=stop)
    done: list[int] = []
    assert prepare(faces(NAMES), tmp_path / "out", crop=False, workers=1, progress=done.append).faces == len(NAMES)
    assert done[0] == 2


@pytest.mark.parametrize(("locale", "extra"), [("C.UTF-8", ["--json", "-"]), ("C.UTF-8", []), ("C", [])])
def test_run_prints_such_names(tmp_path: Path, locale: str, extra: list[str], engine: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    names = [name for name in NAMES if (name.isascii() and "\n" not in name) or name == "日本 語.jpg"]
    for name in [*names, f"{GBK}.jpg"]:
        Image.new("RGB", (224, 224), (120, 90, 80)).save(folder / name)
    with open(tmp_path / "points.csv", "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["file", *COLUMNS], *([name, *FACE.ravel()] for name in names)])
    environment = {**os.environ, "LC_ALL": locale}
    command = [sys.executable, "-c", "from ampnet_opt.cli.main import main; main()"]
    files = [str(folder / name) for name in names]
    done = subprocess.run(
        [*command, "run", str(engine), *files, "--landmarks", str(tmp_path / "points.csv"), *extra],
        capture_output=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr and done.stdout.count(b"\n") == len(names) and b"\x1b[31mb" not in done.stdout
    if extra:
        assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == files


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_engine(float_graph(), "0" * 64, tmp_path_factory.mktemp("names") / "engine", CLASSES)
