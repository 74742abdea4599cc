"""Tables as people have them: separators, encodings, pipes; and what is no table."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.tables import parse_number, read_table

TEXT = 'file,label,x\na.png,"fear, or so",1.5\n ü.png , anger ,2\n'


def refusal(path: Path, *columns: str) -> str:
    with pytest.raises(MisuseError) as caught:
        read_table(path, columns, "table")
    assert len(str(caught.value)) <= 400 and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_separators_encodings_and_line_ends(separator: str, encoding: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    text = TEXT.replace("fear, or so", "?").replace(",", separator).replace("?", "fear, or so").replace("\n", end)
    path.write_bytes(text.encode(encoding))
    table = read_table(path, ["file", "x"], "table")
    assert table.folder == tmp_path and table.columns == ("file", "label", "x")
    assert table.rows == [
        (2, {"file": "a.png", "label": "fear, or so", "x": "1.5"}),
        (3, {"file": "ü.png", "label": "anger", "x": "2"}),
    ]


def test_the_table_of_a_folder_is_its_faces_csv(tmp_path: Path) -> None:
    (tmp_path / "faces.csv").write_text(TEXT, encoding="utf-8")
    assert len(read_table(tmp_path, ["file"], "table").rows) == 2
    (tmp_path / "empty").mkdir()
    assert "is a folder without faces.csv" in refusal(tmp_path / "empty")


def test_a_pipe_is_read_once_and_its_files_are_in_the_working_folder() -> None:
    reading, writing = os.pipe()
    thread = threading.Thread(target=lambda: (os.write(writing, TEXT.encode()), os.close(writing)))
    thread.start()
    try:
        table = read_table(f"/dev/fd/{reading}", ["file"], "table")
    finally:
        thread.join()
        os.close(reading)
    assert table.folder == Path() and len(table.rows) == 2


def test_what_is_no_table_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"file,x\n\xff\xfe\xfa,1\n")
    assert "neither UTF-8 nor UTF-16" in refusal(path, "file")
    path.write_text('file,x\n"' + "a" * 200_000 + "\n")
    assert "over 131,072 characters; is a quotation mark never closed?" in refusal(path, "file")
    path.write_text("file,x\n" + "a" * 5000 + ",1,2\n")
    assert "more values than there are columns" in refusal(path, "file")
    path.write_text("emotion,pixels\n")
    assert "has no column file; it has emotion, pixels" in refusal(path, "file")
    path.write_text("\x1b]0;title\x07,b" + ",c" * 4000 + "\n")
    assert "\x1b" not in refusal(path, "file")
    path.write_text("file,x,x\na,1,2\n")
    assert "column x more than once" in refusal(path, "file", "x")
    assert "is a device" in refusal(Path("/dev/zero"), "file")
    assert "does not exist" in refusal(tmp_path / "none.csv")


@pytest.mark.parametrize("text", ["", "1,5,2", "left", "1;2"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError):
        parse_number(text)


def test_a_decimal_comma_is_named() -> None:
    assert parse_number("-1.5e1") == -15
    with pytest.raises(ValueError, match="decimal comma"):
        parse_number("70,25")
