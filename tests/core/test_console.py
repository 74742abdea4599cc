"""How wide tables are where no terminal says it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ampnet_opt.benchmarks.bench import Bench
from ampnet_opt.benchmarks.compare import Environment
from ampnet_opt.benchmarks.roofline import Floor, render_roofline
from ampnet_opt.benchmarks.roofline_peaks import Peaks
from ampnet_opt.core.console import WIDTH, console, new_table


def test_a_pipe_is_wide_enough_and_columns_has_the_last_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert not console().is_terminal and console().width == WIDTH
    monkeypatch.setenv("COLUMNS", "57")
    assert console().width == 57
    console().print(new_table("w" * 200, ["name"], ["ms"]))
    printed = capsys.readouterr().out
    assert printed.count("w") == 200 and max(map(len, printed.splitlines())) <= 57


def test_floors_fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    sizes, times = (238 * 10**6, 643 * 10**6), (1787.1, 442.2, 1788.0, 1925.9)
    widest = Floor("tensorrt-rtx-fp16", "fp16", 16, 75 * 10**9, *sizes, *times, 0.95, True)
    place = Environment("a processor", 2, "a system", {}, "2026-01-01")
    bench = Bench(2, [16], place, None, [], [], [])
    console().print(render_roofline([widest, replace(widest, engine="b", unsteady=False)], Peaks({"fp16": 1e9}, 1e9), bench))
    printed = capsys.readouterr().out
    assert "unsteady: tensorrt-rtx-fp16\n" in printed.replace(" \n", "\n") and "1925.9" in printed
    assert "…" not in printed and max(map(len, printed.splitlines())) <= WIDTH
