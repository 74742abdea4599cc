"""`ampnet-opt report`: a page."""

from __future__ import annotations

from pathlib import Path

import pytest
from console_script import fails, succeeds
from world import AnalysedWorld

from ampnet_opt.sensitivity.analysis import read_sensitivity

pytestmark = pytest.mark.slow


def test_report_is_one_page_of_what_was_measured(analysed: AnalysedWorld, tmp_path: Path) -> None:
    common = ("--data", analysed.faces, "-o", tmp_path / "engines")
    succeeds("build", analysed.checkpoint, "--int8", "--backend", "cpu", *common)
    engine, page = tmp_path / "engines" / "cpu-int8", tmp_path / "report.html"
    measured = ("--data", analysed.faces, "--runs", 2, "--sensitivity", analysed.sensitivity)
    succeeds("report", analysed.checkpoint, engine, *measured, "-o", page)
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg") == 7
    assert read_sensitivity(analysed.sensitivity).rows[0].name in text
    fails(2, "--force", "report", analysed.checkpoint, engine, *measured, "-o", page)
    succeeds("init", tmp_path / "other.safetensors", "--width", 0.125, "--seed", 3)
    other = ("report", tmp_path / "other.safetensors", engine, *measured, "-o", tmp_path / "other.html")
    fails(2, "another checkpoint", *other)
    assert not (tmp_path / "other.html").exists()
