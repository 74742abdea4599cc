"""The page of file formats has a line for each field that is written, and none besides."""

from __future__ import annotations

import dataclasses
import re

import pytest
from places import ROOT

from ampnet_opt.calibration.table import CalibrationTable
from ampnet_opt.runtime.bundle import BundlePart, Contents
from ampnet_opt.runtime.sidecar import Accuracy, BatchRange, Sidecar

PAGE = (ROOT / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
TABLES = {
    "field of `engine.json`": Sidecar,
    "field of `batch`": BatchRange,
    "field of `accuracy`": Accuracy,
    "field of a calibration table": CalibrationTable,
    "field of `bundle.json`": Contents,
    "field of `parts`": BundlePart,
}


@pytest.mark.parametrize("head", TABLES)
def test_each_field_has_a_line(head: str) -> None:
    rows = PAGE.split(f"| {head} |")[1].split("\n\n")[0].splitlines()[2:]
    named = [name for row in rows for name in re.findall(r"`([a-z_0-9]+)`", row.split(" | ")[0])]
    assert sorted(named) == sorted(field.name for field in dataclasses.fields(TABLES[head]))
