"""A Jetson's power mode and clocks, read from its files, and how to set them for speed. Standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Tuple

GPU_CLOCKS = ("gpu-gpc-0", "*.gpu", "*.ga10b", "*.gv11b", "*.gp10b")  # names under /sys/class/devfreq


@dataclass(frozen=True)
class Clock:
    """MHz: now, and the range that the governor may choose from. Locked at its highest when `low` is `high`."""

    now: float
    low: float
    high: float


@dataclass(frozen=True)
class PowerMode:
    id: int
    name: str


def read_power_mode(root: Path = Path("/")) -> Tuple[Optional[PowerMode], Optional[PowerMode]]:
    """(the mode that nvpmodel set, the fastest that this board has by their names); None where the files do not tell.

    Mode numbers differ from board to board: MAXN is 0 on an AGX Orin and 2 on an Orin Nano, a Xavier NX has none.
    """
    config = read_text(root / "etc/nvpmodel.conf")
    found = re.findall(r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", config, re.MULTILINE)
    modes = [PowerMode(int(number), name) for number, name in found]
    # Until somebody chooses a mode there is no status file, and the board runs in its default.
    current = re.search(r"pmode:(\d+)", read_text(root / "var/lib/nvpmodel/status")) or re.search(
        r"^\s*<\s*PM_CONFIG\s+DEFAULT=(\d+)\s*>", config, re.MULTILINE
    )
    number = None if current is None else int(current.group(1))
    fastest = max(modes, key=_allowance, default=None)
    return next((mode for mode in modes if mode.id == number), None), fastest if fastest and any(
        _allowance(fastest)
    ) else None


def _allowance(mode: PowerMode) -> Tuple[bool, bool, int, int]:
    """How much a mode allows by its name: MAXN_SUPER over MAXN over watts, then cores."""
    watts, cores = re.search(r"(\d+)W", mode.name), re.search(r"(\d+)CORE", mode.name)
    return (
        mode.name.startswith("MAXN"),
        "SUPER" in mode.name,
        int(watts.group(1)) if watts else 0,
        int(cores.group(1)) if cores else 0,
    )


def read_gpu_clock(root: Path = Path("/")) -> Optional[Clock]:
    folders = [found for pattern in GPU_CLOCKS for found in sorted((root / "sys/class/devfreq").glob(pattern))]
    return next(filter(None, (_clock(folder, "", 1e6) for folder in folders)), None)


def read_cpu_clock(root: Path = Path("/")) -> Optional[Clock]:
    """Mean of the clusters' clocks, their lowest minimum and highest maximum."""
    folders = (root / "sys/devices/system/cpu/cpufreq").glob("policy*")
    clusters = list(filter(None, (_clock(folder, "scaling_", 1e3) for folder in folders)))
    if not clusters:
        return None
    mean = sum(cluster.now for cluster in clusters) / len(clusters)
    return Clock(mean, min(cluster.low for cluster in clusters), max(cluster.high for cluster in clusters))


def _clock(folder: Path, prefix: str, per_mhz: float) -> Optional[Clock]:
    values = [read_number(folder / f"{prefix}{name}_freq") for name in ("cur", "min", "max")]
    known = [value / per_mhz for value in values if value is not None]
    return Clock(*known) if len(known) == len(values) else None


def mode_advice(mode: Optional[PowerMode], fastest: Optional[PowerMode]) -> List[str]:
    if mode is None or fastest is None or _allowance(mode) == _allowance(fastest):
        return []
    command = f"sudo nvpmodel -m {fastest.id}"
    return [f"power mode {mode.name}; the fastest is {fastest.name}: {command} (it stays set, and may ask for a restart)"]


def clock_advice(gpu: Optional[Clock]) -> List[str]:
    if gpu is None or gpu.low == gpu.high:
        return []
    falls = f"the GPU's clock may fall to {gpu.low:.0f} of {gpu.high:.0f} MHz between images"
    return [f"{falls}; for steady times, until the next start: sudo jetson_clocks"]


def read_text(path: Path) -> str:
    """Contents of a file, "" when it cannot be read: what is not there is not told."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def read_number(path: Path) -> Optional[float]:
    try:
        return float(read_text(path))
    except ValueError:
        return None
