"""What is kept for the next process comes back as it was written, or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampnet_opt.core.cache import cache_folder, keep_bytes, kept_bytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


def keep(path: Path, data: bytes) -> bytes:
    """What then stands in the file."""
    keep_bytes(path, data, 1 << 20, 1)
    return path.read_bytes()


@settings(max_examples=50)
@given(data=st.binary(min_size=1, max_size=300), cut=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_kept_bytes_come_back_and_damaged_ones_do_not(data: bytes, cut: float, bit: int, folder: Path) -> None:
    path = folder / "plan"
    whole = keep(path, data)
    assert kept_bytes(path) == data
    place = int(cut * len(whole))
    path.write_bytes(whole[:place])
    assert kept_bytes(path) == b""
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
    assert kept_bytes(path) == b""


def test_what_others_may_have_written_is_not_taken(folder: Path) -> None:
    path = folder / "open"
    keep(path, b"a plan")
    path.chmod(0o666)
    assert kept_bytes(path) == b""
    assert kept_bytes(folder / "missing") == b""


def test_a_relative_folder_of_the_users_caches_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its specification has it: every working folder would have a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AMPNET_OPT_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder("plans") == tmp_path / "home/.cache/ampnet-opt/plans"
    assert not (tmp_path / "relative").exists()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert cache_folder("plans") == tmp_path / "own/ampnet-opt/plans"


def test_a_kept_file_is_read_once(folder: Path) -> None:
    """From a pipe, which can be read only once."""
    data = bytes(range(256)) * 100
    whole, pipe = keep(folder / "plan", data), folder / "pipe"
    os.mkfifo(pipe, 0o600)
    writer = threading.Thread(target=pipe.write_bytes, args=[whole], daemon=True)
    writer.start()
    assert kept_bytes(pipe) == data
    writer.join(10)
