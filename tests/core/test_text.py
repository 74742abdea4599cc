"""Text for people: paths as they are passed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from ampnet_opt.core.text import shown_path


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("nets/a.pth", "nets/a.pth"),
        ("./nets/../nets/a.pth", "nets/../nets/a.pth"),
        ("{here}/nets/a.pth", "nets/a.pth"),
        ("{home}/nets/a.pth", "a.pth"),
        ("{here}", "work"),
    ],
)
def test_a_path_tells_no_folder_above_the_working_one(
    path: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert shown_path(path.format(here=tmp_path / "work", home=tmp_path)) == shown
