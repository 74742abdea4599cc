"""Which sources this machine can read, for `ampnet-opt doctor`."""

from __future__ import annotations

import shutil
import subprocess
from typing import Dict

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.text import listed
from ampnet_opt.pipeline.sources.camera import cameras, load_opencv
from ampnet_opt.pipeline.sources.csi import ELEMENT, LAUNCH
from ampnet_opt.pipeline.video_writer import load_av

INSPECT = "gst-inspect-1.0"
PATIENCE = 20.0  # seconds; GStreamer's first start lists all plugins


def available_sources() -> Dict[str, str]:
    """What reads each kind of source here, or a sentence that says what is missing; by kind, in words for people."""
    return {
        "videos and RTSP": _av(),
        "cameras": _opencv(),
        "CSI cameras": _gstreamer(),
    }


def _av() -> str:
    try:
        return f"PyAV {load_av().__version__}"
    except AmpnetError as error:
        return str(error)


def _opencv() -> str:
    try:
        version = load_opencv().__version__
    except AmpnetError as error:
        return str(error)
    return f"OpenCV {version}; {listed(cameras(), 8) or 'no camera'}"


def _gstreamer() -> str:
    if shutil.which(LAUNCH) is None or shutil.which(INSPECT) is None:
        return f"{LAUNCH} of GStreamer is not installed"
    try:
        found = subprocess.run([INSPECT, "--exists", ELEMENT], stdin=subprocess.DEVNULL, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return f"{INSPECT} does not answer"
    return f"GStreamer with {ELEMENT}" if found.returncode == 0 else f"GStreamer has no {ELEMENT}, which JetPack brings"
