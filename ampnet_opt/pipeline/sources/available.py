"""Which sources work on this machine, for `doctor`."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any, Dict

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.pyav import load_av
from ampnet_opt.pipeline.sources import camera, csi

INSPECT = "gst-inspect-1.0"
PATIENCE = 30  # seconds: its first call looks at every plugin


def available_sources() -> Dict[str, Dict[str, Any]]:
    """For videos (RTSP among them), cameras and CSI cameras: `problem`, one sentence or None, and what is there.

    videos: `version` of PyAV. cameras: `version` of OpenCV, `found`, the devices' paths, where the system lists them.
    """
    return {"videos": _videos(), "cameras": _cameras(), "csi": {"problem": _csi_problem()}}


def _videos() -> Dict[str, Any]:
    try:
        return {"problem": None, "version": load_av().__version__}
    except AmpnetError as error:
        return {"problem": str(error), "version": None}


def _cameras() -> Dict[str, Any]:
    found = camera.cameras()
    try:
        return {"problem": None, "version": camera.load_opencv().__version__, "found": found}
    except AmpnetError as error:
        return {"problem": str(error), "version": None, "found": found}


def _csi_problem() -> Any:
    if shutil.which(csi.LAUNCH) is None or shutil.which(INSPECT) is None:
        return f"{csi.LAUNCH} of GStreamer is not installed; JetPack brings it"
    try:
        done = subprocess.run(
            [INSPECT, "--exists", csi.ELEMENT], stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return f"{INSPECT} of GStreamer does not answer"
    return f"this GStreamer has no {csi.ELEMENT}, which JetPack brings" if done.returncode else None
