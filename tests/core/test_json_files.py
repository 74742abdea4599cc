"""JSON that nobody's program wrote: refused in words by every reader, quickly, and never by a traceback."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sidecars import SIDECAR

from ampnet_opt.benchmarks.regression import read_accuracy, read_benchmark
from ampnet_opt.calibration.table import CalibrationTable, read_table
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.json_files import DEEPEST, parse_json, read_json
from ampnet_opt.preparing.journal import Journal
from ampnet_opt.runtime.sidecar import NAME, parse_sidecar
from ampnet_opt.sensitivity.analysis import read_sensitivity

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's devices")
READERS: dict[str, Callable[[Path], object]] = {
    "engine.json": lambda path: parse_sidecar(path.parent),
    "calibration.json": read_table,
    "sensitivity.json": read_sensitivity,
    "benchmark.json": read_benchmark,
    "compare.json": lambda path: read_accuracy(path, []),
}
reader = pytest.mark.parametrize("name", READERS)
HOSTILE = {
    "nothing": b"",
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "closed deep lists": b"[" * 900 + b"]" * 900,
    "a number of 5,000 digits": b'{"format": ' + b"9" * 5000 + b"}",
    "a number of a million digits": b"9" * 1_000_000,
    "too large a float": b'{"format": 1e999}',
    "not a number": b'{"format": NaN}',
    "infinity": b'{"format": -Infinity}',
    "half a character": b'{"format": "\\ud800"}',
    "half a character as a key": b'{"\\udfff": 1}',
    "a key twice": b'{"format": "a", "format": "b"}',
    "UTF-16": json.dumps({"format": "a"}).encode("utf-16"),
    "no UTF-8": b'{"format": "\xff"}',
    "a list": b"[]",
    "a text": b'"format"',
    "null": b"null",
    "zeros": bytes(10_000),
    "terminal codes": b'{"format": "\\u001b[2J\\u202e"}',
}


@reader
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_json_is_refused_by_every_reader(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(HOSTILE[kind])
    start = time.process_time()
    with pytest.raises(AmpnetError, match=name) as refused:
        READERS[name](path)
    assert time.process_time() - start < 1
    assert len(str(refused.value)) < 300 + len(str(path))


@reader
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(MisuseError, match=r"does not exist|has no engine\.json"):
        READERS[name](path)
    path.mkdir()
    with pytest.raises(MisuseError, match=r"is a directory|has no engine\.json"):
        READERS[name](path)
    path.rmdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)
        with pytest.raises(MisuseError, match=r"is no regular file|has no engine\.json"):
            READERS[name](path)
        path.unlink()
        path.symlink_to("/dev/zero")
        with pytest.raises(MisuseError, match=r"is no regular file|has no engine\.json"):
            READERS[name](path)


@linux
def test_a_file_that_cannot_be_read_is_refused() -> None:
    # Which root may open, as every file, and the kernel still does not let it read.
    with pytest.raises(AmpnetError, match=r"table /proc/self/mem cannot be read: Input/output error"):
        read_table("/proc/self/mem")


@linux
def test_a_file_of_any_size_takes_no_more_than_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with open(path, "wb") as stream:
        stream.truncate(1 << 40)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AmpnetError, match="larger than 4 MiB"):
        read_json(path, "table")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@given(
    st.binary()
    | st.text().map(lambda text: json.dumps(text).encode())
    | st.integers(0, 60).map(lambda n: b"[" * n + b"]" * n)
)
def test_json_is_a_value_that_can_be_written_again_or_a_value_error(data: bytes) -> None:
    try:
        value = parse_json(data)
    except ValueError as error:
        assert len(str(error)) < 200
    else:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


def test_what_our_files_hold_is_read_as_python_reads_it() -> None:
    value = {"a": [1, -2, 1.5, 1e-300, 2**63, 10**300, None, True], "é\U0001f600": {"b": "\x1b \u202e"}}
    for text in (json.dumps(value), json.dumps(value, indent=2), json.dumps(value, ensure_ascii=False)):
        assert parse_json(text) == parse_json(text.encode()) == parse_json(text.encode("utf-8-sig")) == value
    deepest = "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1)
    assert parse_json(deepest) == json.loads(deepest)
    with pytest.raises(ValueError, match="nested deeper"):
        parse_json(f"[[{deepest}]]")


@pytest.mark.parametrize(
    "layers",
    [
        {},
        {"not_listed": 5},
        {"list": []},
        {"list": [[]]},
        {"list": [["Convolution", "int8", 8]]},
        {"list": [["Convolution", "int8", "8", "a"]]},
        {"list": [[["Convolution"], "int8", 8, "a"]]},
        {"list": [{"kind": "Convolution"}]},
        {"downgraded": ["a"]},
        {"downgraded": {"a": 8}},
        {"untold": "abc"},
        {"by_design": {"fp32": "two"}},
        {"as_asked": [1]},
        {"precision": None},
        {"reformats": True},
    ],
)
def test_a_list_of_layers_that_cannot_be_shown_is_damage(tmp_path: Path, layers: dict[str, object]) -> None:
    whole = {
        "precision": "fp32",
        "as_asked": {},
        "by_design": {},
        "downgraded": {},
        "untold": [],
        "reformats": 0,
        "list": [],
    }
    write(tmp_path, layers=whole)
    parse_sidecar(tmp_path)
    write(tmp_path, layers={**whole, **layers} if layers and "not_listed" not in layers else layers)
    if layers == {"list": []}:
        parse_sidecar(tmp_path)
    else:
        with pytest.raises(AmpnetError, match=r"engine\.json is damaged"):
            parse_sidecar(tmp_path)


@pytest.mark.parametrize("target", [{"compute_capabilities": "8.6"}, {"compute_capabilities": [8.6]}, [], None, "x"])
def test_a_target_that_cannot_be_shown_is_damage(tmp_path: Path, target: object) -> None:
    write(tmp_path, target=target)
    with pytest.raises(AmpnetError, match=r"engine\.json is damaged"):
        parse_sidecar(tmp_path)


def write(engine: Path, **changed: object) -> None:
    SIDECAR.write(engine)
    path = engine / NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


@pytest.mark.parametrize(
    "changed",
    [
        {"scales": {"a": "1"}},
        {"scales": {"a": True}},
        {"scales": []},
        {"faces": "4"},
        {"method": 5},
        {"scales": {"a": 10**30 * -1}},
    ],
)
def test_a_calibration_table_of_other_types_is_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    path = tmp_path / "calibration.json"
    CalibrationTable("minmax", 4, "ab", "cd", {"a": 1.0}).write(path)
    read_table(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(AmpnetError, match=r"calibration\.json"):
        read_table(path)


def test_a_journal_of_hostile_lines_is_damage(tmp_path: Path) -> None:
    for kind in ("deep lists", "a number of 5,000 digits", "half a character", "UTF-16", "terminal codes"):
        (tmp_path / "faces.partial.jsonl").write_bytes(b'{"version": 1}\n' + HOSTILE[kind].replace(b"\n", b"") + b"\n")
        with pytest.raises(MisuseError, match="is damaged; pass --force"):
            Journal(tmp_path, {"version": 1}, [], force=False)
