"""`ampnet-opt doctor`: this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from console_script import succeeds

from ampnet_opt.runtime.backend import REGISTERED


def test_doctor_describes_this_machine() -> None:
    pytest.importorskip("openvino", reason="what the cpu backend builds with")
    findings = json.loads(succeeds("doctor", "--json", "-").stdout)
    assert findings["backends"]["cpu"]["builds"]
    assert set(findings["backends"]) == set(REGISTERED)
    assert all(backend["runs"] or backend["problem"] for backend in findings["backends"].values())
    assert set(findings["sources"]) == {"videos", "cameras", "csi"}
    assert all(source["problem"] is None or source["problem"] for source in findings["sources"].values())
    shown = succeeds("doctor").stdout
    assert "cpu" in shown and "GStreamer" in shown


def test_a_json_file_is_written_beside_the_table(tmp_path: Path) -> None:
    shown = succeeds("doctor", "--json", tmp_path / "doctor.json").stdout
    assert "processor" in shown and not shown.startswith("{")
    assert json.loads((tmp_path / "doctor.json").read_text()) == json.loads(succeeds("doctor", "--json", "-").stdout)
