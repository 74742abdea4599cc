"""An installation that is no checkout has every package: `packages` of pyproject.toml names each folder of modules."""

from __future__ import annotations

import sys

import pytest
from places import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 brings it")


def test_every_folder_of_modules_is_installed() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    named = set(tool["packages"])
    tops = {name: ROOT / folder for name, folder in tool["package-dir"].items()}
    lying = set()
    for name, top in tops.items():
        for file in top.rglob("__init__.py"):
            lying.add(".".join([name, *file.parent.relative_to(top).parts]))
    assert lying == named
