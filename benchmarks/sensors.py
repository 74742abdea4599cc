"""Where power can be read: a Jetson's INA sensors or tegrastats, NVML for other NVIDIA GPUs, RAPL for x86 processors.

Python 3.8; pynvml, of the package nvidia-ml-py, is optional.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.system.clocks import read_gpu_clock, read_number, read_text

TEGRASTATS_INTERVAL = 0.1  # seconds
TEGRASTATS_PATIENCE = 5.0  # seconds until its first line
# The rails that together are the whole, of which a board has the first that fits. Sources: NVIDIA's guides to each board
# (VDD_IN is a module's input; an AGX Orin's VDDQ_VDD2_1V8AO is within VIN_SYS_5V0), and for VIN the INA238 of an AGX Thor.
WHOLES: List[Tuple[Tuple[str, ...], str]] = [
    (("VIN",), "the whole board"),
    (("VDD_IN",), "the whole module"),
    (("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), "the whole module"),
    (("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"), "the whole module"),
    (("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"), "the whole module"),
]


class NoSensor(AmpnetError):
    """Why power cannot be read here: a line in a table, never the end of a command."""


@dataclass(frozen=True)
class Reading:
    """One look: the `watts` of now or, from sensors that count, the `joules` since some start; °C by place; GPU clocks."""

    watts: Optional[float] = None
    joules: Optional[float] = None
    temperatures: Dict[str, float] = field(default_factory=dict)
    gpu_mhz: Optional[float] = None
    gpu_mhz_max: Optional[float] = None


class Sensor:
    """name: what it measures, in words."""

    name: str

    def read(self) -> Reading:
        """Raises NoSensor when it does not answer (any more)."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what it holds."""


def whole_of(rails: Sequence[str]) -> Tuple[Tuple[str, ...], str]:
    """(the rails to add up, their name for the reader), or NoSensor when those of this board are only parts of it."""
    for names, what in WHOLES:
        if set(names) <= set(rails):
            return names, f"{what} ({' + '.join(names)})"
    raise NoSensor(f"this board's rails ({', '.join(rails) or 'none'}) do not add up to the whole of it")


class Ina(Sensor):
    """INA3221 and INA238 in sysfs. A rail's power is the product of its files, in µW: mV and mA, or µW itself."""

    def __init__(self, root: Path) -> None:
        self._root = root
        rails: Dict[str, List[Path]] = {}
        for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
            chip = read_text(folder / "name").strip()
            if chip == "ina3221":
                for label in sorted(folder.glob("in[1-3]_label")):  # what follows are voltages over the shunts
                    channel = label.name[2]
                    rails[read_text(label).strip()] = [folder / f"in{channel}_input", folder / f"curr{channel}_input"]
            elif chip == "ina238":  # an AGX Thor's, at the board's input
                rails["VIN"] = [folder / "power1_input"]
        if not rails:
            raise NoSensor("no INA power sensor can be read in /sys/class/hwmon")
        names, what = whole_of(list(rails))
        self._whole = [rails[name] for name in names]
        self.name = f"INA sensors, {what}"
        self.read()

    def read(self) -> Reading:
        watts = 0.0
        for files in self._whole:
            power = 1e-6
            for file in files:
                value = read_number(file)
                if value is None:
                    raise NoSensor(f"the power sensor's {file} cannot be read")
                power *= value
            watts += power
        clock = read_gpu_clock(self._root)
        now, most = (None, None) if clock is None else (clock.now, clock.high)
        return Reading(watts, None, zone_temperatures(self._root), now, most)


def zone_temperatures(root: Path) -> Dict[str, float]:
    """°C of the thermal zones. Those that do not answer are left out: a sleeping GPU's does not."""
    found = {}
    for folder in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        value = read_number(folder / "temp")
        if value is not None:
            found[re.sub(r"-therm(al)?$", "", read_text(folder / "type").strip())] = value / 1000
    return _believable(found)


def _believable(temperatures: Dict[str, float]) -> Dict[str, float]:
    """Without what is switched off (-256 °C) and the PMIC, whose temperature is a constant."""
    return {name: value for name, value in temperatures.items() if value > -40 and not name.startswith("PMIC")}


class Tegrastats(Sensor):
    """NVIDIA's tegrastats: its newest line."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._line: Optional[Line] = None
        self._whole: Tuple[str, ...] = ()
        self._arrived = threading.Event()
        command = ["tegrastats", "--interval", str(int(1000 * TEGRASTATS_INTERVAL))]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True)
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()
        try:
            self._arrived.wait(TEGRASTATS_PATIENCE)
            if self._line is None:
                raise NoSensor("tegrastats prints nothing")
            self._whole, what = whole_of(list(self._line.rails))
            self.name = f"tegrastats, {what}"
        except BaseException:
            self.close()
            raise

    def _follow(self) -> None:
        assert self._process.stdout
        for text in self._process.stdout:
            self._line = parse_tegrastats(text)
            self._arrived.set()
        self._arrived.set()

    def read(self) -> Reading:
        line = self._line
        if line is None or self._process.poll() is not None:
            raise NoSensor("tegrastats has ended")
        if not set(self._whole) <= set(line.rails):
            raise NoSensor("tegrastats no longer prints this board's power")
        clock = read_gpu_clock(self._root)
        now, most = (line.gpu_mhz, None) if clock is None else (clock.now, clock.high)
        return Reading(sum(line.rails[name] for name in self._whole), None, line.temperatures, now, most)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stdout:
            self._process.stdout.close()


@dataclass(frozen=True)
class Line:
    """What tegrastats printed: W of every rail, °C by place, MHz of the GPU (mean of its clusters)."""

    rails: Dict[str, float]
    temperatures: Dict[str, float]
    gpu_mhz: Optional[float]


def parse_tegrastats(text: str) -> Line:
    """A line of JetPack 5 and later, in which several values of one thing are now / mean (/ highest).

    Rails are "VDD_IN 4654mW/4650mW", temperatures "gpu@50.2C", the GPU's load and clocks "GR3D_FREQ 62%@[1020,1020]".
    """
    rails = re.findall(r"(?<!\S)([A-Z][A-Z0-9_]*) (-?\d+)mW", text)
    degrees = re.findall(r"(?<!\S)([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C", text)
    clocks = re.search(r"(?<!\S)GR3D_FREQ (?:\d+%)?@\[?(\d+(?:,\d+)*)", text)
    mhz = [] if clocks is None else [int(value) for value in clocks.group(1).split(",")]
    return Line(
        {name: int(value) / 1000 for name, value in rails},
        _believable({name: float(value) for name, value in degrees}),
        sum(mhz) / len(mhz) if mhz else None,
    )


class Rapl(Sensor):
    """The energy counters of x86 processors: all packages together, µJ, each starting anew after its range."""

    def __init__(self, root: Path) -> None:
        self._zones = []
        for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
            if read_text(folder / "name").startswith("package"):
                self._zones.append(folder)
        if not self._zones:
            raise NoSensor("this processor, or the virtual machine around it, offers no energy counter (RAPL)")
        for folder in self._zones:
            if not os.access(str(folder / "energy_uj"), os.R_OK):
                raise NoSensor(f"only root may read the processor's energy counter ({folder / 'energy_uj'}): use sudo")
        self._last = [self._counter(folder) for folder in self._zones]
        self._joules = 0.0
        self.name = "RAPL, the processor's packages"

    def _counter(self, folder: Path) -> float:
        value = read_number(folder / "energy_uj")
        if value is None:
            raise NoSensor(f"the processor's energy counter {folder / 'energy_uj'} cannot be read")
        return value

    def read(self) -> Reading:
        for i, folder in enumerate(self._zones):
            now = self._counter(folder)
            span = now - self._last[i]
            if span < 0:
                span += read_number(folder / "max_energy_range_uj") or 0.0
            self._joules += span * 1e-6
            self._last[i] = now
        return Reading(joules=self._joules)
