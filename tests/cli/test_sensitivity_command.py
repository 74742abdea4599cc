"""`ampnet-opt sensitivity`: an analysis."""

from __future__ import annotations

from pathlib import Path

import pytest
from console_script import fails, left_in
from world import AnalysedWorld

pytestmark = pytest.mark.slow


def test_an_analysis_is_not_overwritten_and_asks_for_what_there_is(analysed: AnalysedWorld, tmp_path: Path) -> None:
    before = analysed.sensitivity.read_bytes()
    fails(2, "--force", "sensitivity", analysed.checkpoint, "--data", analysed.faces, "-o", analysed.sensitivity)
    assert analysed.sensitivity.read_bytes() == before
    assert not analysed.sensitivity.with_name("sensitivity.json.partial").exists()
    fails(
        2,
        "--units",
        "sensitivity",
        analysed.checkpoint,
        "--data",
        analysed.faces,
        "--units",
        "row",
        "-o",
        tmp_path / "x.json",
    )
    fails(2, "no rows of split", "sensitivity", analysed.checkpoint, "--split", "none", "--data", analysed.faces)
    assert left_in(tmp_path) == []
