"""Power, energy, temperature and clocks during a timed section, sampled in a thread. Python 3.8."""

from __future__ import annotations

import math
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Callable, Dict, List, Optional, Sequence, Tuple, Type

from ampnet_opt.benchmarks.nvml import Nvml
from ampnet_opt.benchmarks.sensors import Ina, NoSensor, Rapl, Reading, Sensor, Tegrastats
from ampnet_opt.runtime.backend import REGISTERED, find_backend
from ampnet_opt.system.board import read_board
from ampnet_opt.system.clocks import mode_advice, read_power_mode

INTERVAL = 0.05  # seconds between two readings
SHORTEST = 1.0  # seconds that a section has to last: drivers renew what they tell every 20 to 100 ms
METHOD = (
    "Power is the mean of all that its sensor sees, idle parts included, over a section in which one subject runs alone; "
    "energy per image is the section's energy over its images."
)
LONG = 1.5 * SHORTEST  # what `measure_power` aims at
COVERED = 0.9  # share of a section that lies between two readings, at least
IDLE = 0.8  # share of its highest clock below which a GPU is said to idle


def open_sensor(device: str, root: Path = Path("/")) -> Sensor:
    """The best sensor for work on `device`, "gpu" or "cpu". Raises NoSensor with the reason where there is none."""
    if read_board(root) is None:
        return Nvml() if device == "gpu" else Rapl(root)
    try:
        return Ina(root)
    except NoSensor as error:
        if shutil.which("tegrastats") is None:
            raise NoSensor(f"{error}, and tegrastats is not on the PATH") from error
        return Tegrastats(root)


@dataclass(frozen=True)
class Power:
    """What a section took, or the `problem` that left it unknown: then there are no numbers but those of clocks and warmth.

    sensor: what was measured, in words. watts: mean, all that the sensor sees, idle parts included. joules_per_image:
    energy of the section over its images. seconds: length of the section. samples: readings in it. temperatures: the
    highest of each place, °C. gpu_mhz: mean; gpu_mhz_max: the most it can. warnings: clocks and power modes that cost speed,
    each with the command that changes it.
    """

    problem: Optional[str] = None
    sensor: Optional[str] = None
    watts: Optional[float] = None
    joules_per_image: Optional[float] = None
    seconds: Optional[float] = None
    samples: int = 0
    temperatures: Dict[str, float] = field(default_factory=dict)
    gpu_mhz: Optional[float] = None
    gpu_mhz_max: Optional[float] = None
    warnings: List[str] = field(default_factory=list)


class Sampler:
    """with Sampler.open("gpu") as power: ...; power.result(images). Raises nothing for a sensor that is not there."""

    def __init__(self, sensor: Optional[Sensor], problem: Optional[str], device: str, root: Path) -> None:
        self.problem = problem
        self._sensor, self._device, self._root = sensor, device, root
        self._readings: List[Tuple[float, Reading]] = []
        self._failure = "the sensor answered too seldom"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._span = (0.0, 0.0)

    @classmethod
    def open(cls, device: str, root: Path = Path("/")) -> Sampler:
        """For one section of work on `device`, "gpu" or "cpu"; a Jetson's sensors stand for both.

        `problem` says why, where no power can be measured.
        """
        try:
            return cls(open_sensor(device, root), None, device, root)
        except NoSensor as error:
            return cls(None, f"no sensor: {error}", device, root)

    def __enter__(self) -> Sampler:
        if self._sensor is not None:
            self._sample()
            self._thread.start()
        self._span = (time.perf_counter(), 0.0)
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._span = (self._span[0], time.perf_counter())
        if self._sensor is not None:
            self._stop.set()
            self._thread.join()
            self._sample()
            self._sensor.close()

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._sample()

    def _sample(self) -> None:
        assert self._sensor
        try:
            self._readings.append((time.perf_counter(), self._sensor.read()))
        except NoSensor as error:  # a bus is busy at times: the readings beside it bridge the gap, if it is short
            self._failure = str(error)

    def result(self, images: int) -> Power:
        """Of the section that was left, in which `images` images (1 or more) were computed."""
        seconds = self._span[1] - self._span[0]
        problem = self._unknown(seconds)
        readings = [reading for _, reading in self._readings]
        clocks = [reading.gpu_mhz for reading in readings if reading.gpu_mhz is not None]
        gpu_mhz = sum(clocks) / len(clocks) if clocks else None
        gpu_mhz_max = max((reading.gpu_mhz_max for reading in readings if reading.gpu_mhz_max is not None), default=None)
        warmth: Dict[str, float] = {}
        for reading in readings:
            for name, value in reading.temperatures.items():
                warmth[name] = max(value, warmth.get(name, value))
        watts = None if problem else mean_power(self._readings)
        return Power(
            problem=problem,
            sensor=None if self._sensor is None else self._sensor.name,
            watts=watts,
            joules_per_image=None if watts is None else watts * seconds / images,
            seconds=None if self._sensor is None else seconds,
            samples=len(readings),
            temperatures=warmth,
            gpu_mhz=gpu_mhz,
            gpu_mhz_max=gpu_mhz_max,
            warnings=self._warnings(gpu_mhz, gpu_mhz_max),
        )

    def _unknown(self, seconds: float) -> Optional[str]:
        """Why the power of the section is not known, or None."""
        if self._sensor is None:
            return self.problem
        if seconds < SHORTEST:
            return f"no power: the section took {seconds:.2f} s, and {SHORTEST:.0f} s is the least that can be measured"
        times = [when for when, _ in self._readings]
        if len(times) < 2 or times[-1] - times[0] < COVERED * seconds:
            return f"no power: {self._failure}"
        return None

    def _warnings(self, gpu_mhz: Optional[float], gpu_mhz_max: Optional[float]) -> List[str]:
        found = mode_advice(*read_power_mode(self._root))
        if self._device == "gpu" and gpu_mhz is not None and gpu_mhz_max is not None and gpu_mhz < IDLE * gpu_mhz_max:
            jetson = read_board(self._root) is not None
            fix = "sudo jetson_clocks" if jetson else f"sudo nvidia-smi --lock-gpu-clocks={gpu_mhz_max:.0f}"
            found.append(f"the GPU ran at {gpu_mhz:.0f} of {gpu_mhz_max:.0f} MHz (mean); to hold its clock: {fix}")
        return found


def measure_power(
    run: Callable[[int], object], seconds_each: float, images: int, device: str, root: Path = Path("/")
) -> Power:
    """Of a section of its own: `run(count)` makes `count` inferences of `images` images, each about `seconds_each` long.

    Nothing is run where there is no sensor.
    """
    sampler = Sampler.open(device, root)
    if sampler.problem is not None:
        return sampler.result(images)
    count = math.ceil(LONG / seconds_each)
    with sampler:
        run(count)
    return sampler.result(count * images)


def power_notes(subjects: Sequence[Tuple[str, Optional[Power]]]) -> List[str]:
    """What a reader must know of the power of (name, power): why there is none, what costs speed, what the numbers are."""
    notes: List[str] = []
    measured = [(name, power) for name, power in subjects if power is not None]
    said = [(name, power.problem or power.sensor) for name, power in measured]
    for text in dict.fromkeys(text for _, text in said if text):
        notes.append(f"Power of {', '.join(name for name, its in said if its == text)}: {text}.")
    for warning in dict.fromkeys(warning for _, power in measured for warning in power.warnings):
        notes.append(f"{warning[0].upper()}{warning[1:]}")
    if any(power.watts is not None for _, power in measured):
        notes.append(METHOD)
    return notes


def mean_power(readings: Sequence[Tuple[float, Reading]]) -> float:
    """Mean W between the first and the last of at least two (seconds, reading).

    Of a counter the difference over the time; of a power meter the integral by the trapezoidal rule over the time.
    """
    first, last = readings[0][1].joules, readings[-1][1].joules
    span = readings[-1][0] - readings[0][0]
    if first is not None and last is not None:
        return (last - first) / span
    joules = 0.0
    for (before, left), (after, right) in zip(readings, readings[1:]):
        assert left.watts is not None and right.watts is not None  # a sensor that does not count tells its power
        joules += (after - before) * (left.watts + right.watts) / 2
    return joules / span


def device_of(backend: str) -> str:
    """What a subject computes on, "gpu" or "cpu". backend: of an engine, or the library of another subject, on the CPU."""
    return find_backend(backend).device if backend in REGISTERED else "cpu"
