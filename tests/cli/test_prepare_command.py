"""`ampnet-opt prepare`: faces from photos."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from console_script import fails, succeeds
from PIL import Image
from places import SHARED

pytestmark = pytest.mark.slow

YUNET = SHARED / "models" / "yunet_n_320_320.onnx"


def test_prepare_from_photos_to_faces(tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="faces are found with OpenCV")
    if not YUNET.is_file() or not (SHARED / "faces").is_dir():
        pytest.skip("the detector's file and the photos lie in ../shared, which is absent")
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("00000", "00001"):
        (photos / f"{name}.jpg").write_bytes((SHARED / "faces" / "images" / f"{name}.jpg").read_bytes())
    Image.new("RGB", (300, 200)).save(photos / "black.png")
    (photos / "broken.jpg").write_bytes(b"no picture")
    result = succeeds("prepare", photos, "-o", tmp_path / "faces", "--detector", YUNET, "--workers", 1)
    assert "faces.csv: 2 faces" in result.stdout and result.stderr.count("skipped: 1") == 2
    with open(tmp_path / "faces" / "faces.csv", encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream))) == 2
    fails(2, "--force", "prepare", photos, "-o", tmp_path / "faces", "--detector", YUNET)
    fails(2, "does not exist", "prepare", tmp_path / "nowhere", "-o", tmp_path / "x", "--detector", YUNET)
    fails(2, "does not exist", "prepare", photos, "-o", tmp_path / "x", "--detector", tmp_path / "no.onnx")
    fails(2, "fer2013", "prepare", photos, "-o", tmp_path / "x", "--format", "fer2013", "--detector", YUNET)
    assert not (tmp_path / "x").exists()
