"""Which Jetson this is, read from its files: board, JetPack, where TensorRT's module lies, CUDA and driver.

Standard library only. Every path is taken under `root`, so that the files of another board can be read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from ampnet_opt.system.clocks import (
    Clock,
    PowerMode,
    clock_advice,
    mode_advice,
    read_cpu_clock,
    read_gpu_clock,
    read_power_mode,
    read_text,
)

# JetPack of each L4T release, from NVIDIA's JetPack archive.
JETPACKS = {
    "32.6.1": "4.6",
    "32.7.1": "4.6.1",
    "32.7.2": "4.6.2",
    "32.7.3": "4.6.3",
    "32.7.4": "4.6.4",
    "32.7.5": "4.6.5",
    "32.7.6": "4.6.6",
    "35.1.0": "5.0.2",
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    "35.6.1": "5.1.5",
    "35.6.2": "5.1.5",
    "35.6.4": "5.1.6",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5.0": "6.2.2",
    "36.5.2": "6.2.3",
    "38.2.0": "7.0",
    "38.2.1": "7.0",
    "38.4.0": "7.1",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
}
# The first L4T release that ships them, and (TensorRT, CUDA, Python).
SHIPS: List[Tuple[Tuple[int, ...], Tuple[str, str, str]]] = [
    ((35, 2), ("8.5.2", "11.4", "3.8")),
    ((36, 2), ("8.6.2", "12.2", "3.10")),
    ((36, 4), ("10.3", "12.6", "3.10")),
    ((38, 0), ("10.13", "13.0", "3.12")),
    ((39, 0), ("10.16", "13.2", "3.12")),
]
COMPUTE_CAPABILITIES = {
    "tegra210": "5.3",
    "tegra186": "6.2",
    "tegra194": "7.2",
    "tegra23x": "8.7",  # as JetPack 5 also calls tegra234
    "tegra234": "8.7",
    "tegra264": "11.0",
}


@dataclass(frozen=True)
class Board:
    """A Jetson. None: its files do not tell. fastest: the power mode that allows most; ships: TensorRT, CUDA and Python.

    refusal: why nothing of TensorRT can be done here, and what to do.
    """

    model: Optional[str]
    soc: Optional[str]
    compute_capability: Optional[str]
    l4t: Optional[str]
    jetpack: Optional[str]
    ships: Optional[Dict[str, str]]
    power_mode: Optional[PowerMode]
    fastest: Optional[PowerMode]
    gpu_clock: Optional[Clock]
    cpu_clock: Optional[Clock]
    refusal: Optional[str]

    def advice(self) -> List[str]:
        """What keeps this board from its full speed, each with the command that changes it."""
        return mode_advice(self.power_mode, self.fastest) + clock_advice(self.gpu_clock)


def read_board(root: Path = Path("/")) -> Optional[Board]:
    """The Jetson whose files lie under `root`, or None for another machine."""
    l4t = _l4t(root)
    strings = read_text(root / "proc/device-tree/compatible").split("\0")
    socs = [name[len("nvidia,") :] for name in strings if name.startswith("nvidia,tegra")]
    if l4t is None and not socs:
        return None
    soc = next((name for name in socs if name in COMPUTE_CAPABILITIES), socs[0] if socs else None)
    jetpack = None if l4t is None else JETPACKS.get(l4t) or _series(l4t)
    mode, fastest = read_power_mode(root)
    return Board(
        model=read_text(root / "proc/device-tree/model").strip("\0\n ") or None,
        soc=soc,
        compute_capability=COMPUTE_CAPABILITIES.get(soc or ""),
        l4t=l4t,
        jetpack=jetpack,
        ships=None if l4t is None else _ships(l4t),
        power_mode=mode,
        fastest=fastest,
        gpu_clock=read_gpu_clock(root),
        cpu_clock=read_cpu_clock(root),
        refusal=None if l4t is None else _refusal(l4t, jetpack, soc),
    )


def _l4t(root: Path) -> Optional[str]:
    """ "36.4.3", from "# R36 (release), REVISION: 4.3, GCID: ..."."""
    found = re.search(r"R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", read_text(root / "etc/nv_tegra_release"))
    return None if found is None else f"{found.group(1)}.{found.group(2)}"


def _numbers(version: str) -> Tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _series(l4t: str) -> Optional[str]:
    """The JetPack series of a release that is not in the table: newer ones come out between ours."""
    return {32: "4.x", 34: "5.0", 35: "5.x", 36: "6.x", 38: "7.x", 39: "7.x"}.get(_numbers(l4t)[0])


def _ships(l4t: str) -> Optional[Dict[str, str]]:
    found = [what for first, what in SHIPS if first <= _numbers(l4t)]
    return dict(zip(("tensorrt", "cuda", "python"), found[-1])) if found else None


def _refusal(l4t: str, jetpack: Optional[str], soc: Optional[str]) -> Optional[str]:
    if _numbers(l4t) >= SHIPS[0][0]:
        return None
    fix = "install JetPack 5.1 or newer on this board"
    if soc in ("tegra186", "tegra210"):
        fix = "no newer JetPack exists for this board, so use a Xavier, an Orin or a Thor"
    return f"JetPack {jetpack or '(unknown)'} (L4T {l4t}) is not supported: its TensorRT is older than 8.5; {fix}"


@dataclass(frozen=True)
class Module:
    """tensorrt's Python module in the system's folders. python: the version it is for, "3.10"."""

    folder: str
    python: str
    version: Optional[str]


def system_tensorrt(root: Path = Path("/")) -> Optional[Module]:
    """The module that JetPack or a system package put there; of several, that of the newest Python."""
    found = []
    for folder in (root / "usr/lib").glob("python3*/dist-packages/tensorrt"):
        number = re.fullmatch(r"python(3\.\d+)", folder.parts[-3])
        version = re.search(r'^__version__ = "([^"]+)"', read_text(folder / "__init__.py"), re.MULTILINE)
        if number:
            place = "/" + str(folder.parent.relative_to(root))
            found.append(Module(place, number.group(1), version.group(1) if version else None))
    return max(found, key=lambda module: _numbers(module.python), default=None)


def missing_tensorrt(module: Optional[Module], python: str, virtual: bool) -> str:
    """Why a Jetson's Python, of version `python` ("3.10"), does not find tensorrt, and the exact fix.

    virtual: it runs in a virtual environment.
    """
    if module is None:
        return "JetPack's TensorRT module is not installed; install it with: sudo apt install python3-libnvinfer"
    where = f"TensorRT {module.version or ''}".strip() + f" is in {module.folder}, for Python {module.python}"
    fix = f"/usr/bin/python{module.python} -m venv --system-site-packages ENV"
    if python != module.python:
        why = f"but this is Python {python}"
    elif virtual:
        why = "which this virtual environment does not see"
    else:
        why = "but this Python does not look there"
    return f"{where}, {why}; make an environment of the system's and install ampnet-opt there: {fix}"


def cuda_version(root: Path = Path("/")) -> Optional[str]:
    """The CUDA toolkit's, where one is installed."""
    found = re.search(r'"cuda"\s*:\s*{[^}]*"version"\s*:\s*"([^"]+)"', read_text(root / "usr/local/cuda/version.json"))
    return None if found is None else found.group(1)


def driver_version(root: Path = Path("/")) -> Optional[str]:
    """The NVIDIA kernel driver's; a Xavier's is part of L4T and has none of its own."""
    found = re.search(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s", read_text(root / "proc/driver/nvidia/version"), re.MULTILINE)
    return None if found is None else found.group(1)
