"""A bundle for Arm is built and run on an emulated arm64 system, where one is at hand (tools/try_arm64.py makes it)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bundled import make_bundle
from places import ROOT

SYSTEM = os.environ.get("AMPNET_OPT_ARM64", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SYSTEM, reason="AMPNET_OPT_ARM64 names no folder of tools/try_arm64.py"),
    pytest.mark.skipif(shutil.which("qemu-aarch64-static") is None, reason="needs qemu-user-static"),
]


@pytest.mark.parametrize(("target", "precision", "most"), [("arm", "fp32", 0.01), ("cpu", "int8", 10.0)])
def test_a_bundle_answers_on_arm_as_the_float_network(target: str, precision: str, most: float, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle.tar", target, [precision])
    tool = [sys.executable, ROOT / "tools" / "try_arm64.py", SYSTEM, bundle]
    done = subprocess.run([*map(str, tool)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"logits off by ([\d.]+)%", done.stdout)
    assert found and float(found[1]) < most
