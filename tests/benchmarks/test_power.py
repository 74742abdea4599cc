"""Power from trees of files like a system's, from a real tegrastats script and pynvml, and the formulas behind it."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import BOARDS, SUPPORT
from rich.console import Console

from ampnet_opt.benchmarks import power as power_module
from ampnet_opt.benchmarks.compare import Report, Result, environment
from ampnet_opt.benchmarks.nvml import first_gpu
from ampnet_opt.benchmarks.power import SHORTEST, Power, Sampler, device_of, mean_power, measure_power, power_notes
from ampnet_opt.benchmarks.report import render_comparison
from ampnet_opt.benchmarks.sensors import WHOLES, Ina, NoSensor, Rapl, Reading, open_sensor, parse_tegrastats, whole_of
from ampnet_opt.core.metrics import accuracy, agreement, latency

WATTS = {"orin-nano": 9.250, "agx-orin": 8.693, "xavier-nx": 2.763, "thor": 19.78}  # of the recorded trees, whole
NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{1,20}", fullmatch=True)
LONG_ENOUGH = SHORTEST + 0.2


def board(name: str, tmp_path: Path) -> Path:
    shutil.copytree(BOARDS / name, tmp_path / name)
    return tmp_path / name


@contextmanager
def changing(write: Callable[[float], None], every: float = 0.01) -> Iterator[None]:
    """`write(seconds since the start)` over and over in a thread, as a driver renews its files."""
    stop, start = threading.Event(), time.perf_counter()

    def loop() -> None:
        while not stop.wait(every):
            write(time.perf_counter() - start)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def put(path: Path, text: object) -> None:
    """As the kernel does: a reader sees the old contents or the new, never half of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.parent / f".{path.name}"
    new.write_text(f"{text}\n")
    new.replace(path)


# --- the formulas ----------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.floats(0.001, 1), st.floats(0, 100)), min_size=2, max_size=30),
    st.floats(-1e3, 1e3),
)
def test_mean_power_is_that_of_the_trapezoids(steps: list[tuple[float, float]], start: float) -> None:
    times, readings, joules = [start], [(start, Reading(watts=steps[0][1]))], 0.0
    for (_, before), (span, after) in zip(steps, steps[1:], strict=False):
        times.append(times[-1] + span)
        readings.append((times[-1], Reading(watts=after)))
        joules += span * (before + after) / 2
    assert mean_power(readings) == pytest.approx(joules / (times[-1] - times[0]), rel=1e-6, abs=1e-9)


@given(st.lists(st.floats(0, 50), min_size=2, max_size=20), st.integers(1, 10))
def test_uneven_sampling_does_not_change_a_constant(gaps: list[float], watts: int) -> None:
    times = [sum(gaps[: i + 1]) + i * 1e-3 for i in range(len(gaps))]
    assert mean_power([(when, Reading(watts=float(watts))) for when in times]) == pytest.approx(watts)


def test_counter_needs_its_ends_only() -> None:
    readings = [(10.0, Reading(joules=100.0)), (10.1, Reading(joules=900.0)), (14.0, Reading(joules=160.0))]
    assert mean_power(readings) == pytest.approx(15)


# --- tegrastats ------------------------------------------------------------------------------------------------------


@given(
    st.dictionaries(NAMES, st.integers(-500, 150_000), max_size=6),
    st.dictionaries(
        NAMES.filter(lambda name: not name.startswith("PMIC")), st.floats(-39, 120).map(lambda v: round(v, 3)), max_size=6
    ),
    st.one_of(st.none(), st.lists(st.integers(0, 3000), min_size=1, max_size=3)),
    st.integers(1, 3),
    st.booleans(),
)
def test_tegrastats_line_is_read_back(
    rails: dict[str, int], degrees: dict[str, float], mhz: list[int] | None, values: int, percent: bool
) -> None:
    """However many values there are of one thing, the first, that of now, is taken."""
    load = "62%" if percent else ""
    gpu = f"GR3D_FREQ {load}@[{','.join(map(str, mhz))}]" if mhz is not None else "GR3D_FREQ 0%"
    parts = [
        "04-21-2026 15:50:52 RAM 105265/125772MB (lfb 34x4MB) SWAP 0/3810MB (cached 0MB) CPU [0%@972,off] EMC_FREQ 0%@2750",
        gpu,
    ]
    parts += [f"{name}@{'/'.join([f'{value}C'] + ['99C'] * (values - 1))}" for name, value in degrees.items()]
    parts += [f"{name} {'/'.join([f'{value}mW'] + ['7mW'] * (values - 1))}" for name, value in rails.items()]
    line = parse_tegrastats(" ".join(parts) + "\n")
    assert line.rails == {name: value / 1000 for name, value in rails.items()}
    assert line.temperatures == degrees
    assert line.gpu_mhz == (None if mhz is None else pytest.approx(sum(mhz) / len(mhz)))


@given(st.text())
def test_tegrastats_takes_any_text(text: str) -> None:
    line = parse_tegrastats(text)
    assert all(math.isfinite(value) for value in [*line.rails.values(), *line.temperatures.values()])


@pytest.mark.parametrize(
    "name, watts, gpu_mhz, hottest",
    [
        ("orin-nano", [4.654, 4.541], [None, 612], ["gpu", "gpu"]),
        ("agx-orin", [2.399 + 0.4 + 4.032], [0], ["CPU"]),
        ("xavier-nx", [2.763], [114], ["CPU"]),
        ("thor", [19.78, 124.486], [314, 1574], ["tj", "tj"]),
    ],
)
def test_recorded_tegrastats_lines(name: str, watts: list[float], gpu_mhz: list[float | None], hottest: list[str]) -> None:
    lines = [parse_tegrastats(line) for line in (BOARDS / name / "tegrastats.txt").read_text().splitlines()]
    rails = [whole_of(list(line.rails))[0] for line in lines]
    assert [sum(line.rails[rail] for rail in whole) for line, whole in zip(lines, rails, strict=True)] == pytest.approx(
        watts
    )
    assert [line.gpu_mhz for line in lines] == gpu_mhz
    assert [max(line.temperatures, key=lambda place: line.temperatures[place]) for line in lines] == hottest
    assert all("PMIC" not in line.temperatures and min(line.temperatures.values()) > 0 for line in lines)


@pytest.fixture
def tegrastats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tegrastats on the PATH that prints the recorded lines of an Orin Nano, and what it was called with."""
    script = tmp_path / "bin/tegrastats"
    script.parent.mkdir()
    lines = (BOARDS / "orin-nano/tegrastats.txt").read_text().splitlines()[1]
    script.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/called; echo $$ > {tmp_path}/pid\n'
        f'while true; do echo "{lines}"; sleep 0.1; done\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    return script


def no_ina(root: Path) -> Path:
    shutil.rmtree(root / "sys/class/hwmon")
    return root


def test_tegrastats_where_sysfs_has_no_sensor(tmp_path: Path, tegrastats: Path) -> None:
    root = no_ina(board("orin-nano", tmp_path))
    with Sampler.open("gpu", root) as sampler:
        time.sleep(LONG_ENOUGH)
    found = sampler.result(10)
    assert found.problem is None and found.watts == pytest.approx(4.541)
    assert found.sensor == "tegrastats, the whole module (VDD_IN)"
    assert found.temperatures["gpu"] == 50 and "VDD_IN" not in found.temperatures
    assert (tmp_path / "called").read_text() == "--interval 100\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("script, why", [("exit 1", "prints nothing"), ("echo VDD_SOC 3mW/3mW; sleep 9", "do not add up")])
def test_tegrastats_that_is_of_no_use(tmp_path: Path, tegrastats: Path, script: str, why: str) -> None:
    tegrastats.write_text(f"#!/bin/sh\n{script.replace('sleep', 'exec sleep')}\n")
    sampler = Sampler.open("gpu", no_ina(board("orin-nano", tmp_path)))
    assert sampler.problem is not None and sampler.problem.startswith("no sensor: ") and why in sampler.problem


def test_tegrastats_that_ends_early_leaves_no_number(tmp_path: Path, tegrastats: Path) -> None:
    tegrastats.write_text("#!/bin/sh\necho VDD_IN 3000mW/3000mW\nexec sleep 0.3\n")
    with Sampler.open("gpu", no_ina(board("orin-nano", tmp_path))) as sampler:
        time.sleep(LONG_ENOUGH)
    found = sampler.result(1)
    assert (found.watts, found.joules_per_image, found.problem) == (None, None, "no power: tegrastats has ended")


def test_board_without_any_sensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with Sampler.open("cpu", no_ina(board("orin-nano", tmp_path))) as sampler:
        pass
    found = sampler.result(1)
    assert found.problem == (
        "no sensor: no INA power sensor can be read in /sys/class/hwmon, and tegrastats is not on the PATH"
    )
    assert (found.watts, found.joules_per_image, found.seconds, found.sensor) == (None, None, None, None)


# --- INA sensors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WATTS)
def test_power_of_the_recorded_boards(name: str) -> None:
    reading = open_sensor("gpu", BOARDS / name).read()
    assert reading.watts == pytest.approx(WATTS[name], abs=2e-3)
    assert reading.joules is None


def test_temperatures_without_what_sleeps_or_is_constant() -> None:
    assert open_sensor("cpu", BOARDS / "xavier-nx").read().temperatures == {"AO": 45, "CPU": 46.5, "GPU": 45.5}
    assert open_sensor("cpu", BOARDS / "thor").read().temperatures == {"tj": 38.875, "cpu": 37.343}


def test_voltages_over_the_shunts_are_no_rails(tmp_path: Path) -> None:
    """in4 to in7 are not channels, whatever they are called."""
    root = board("orin-nano", tmp_path)
    chip = root / "sys/class/hwmon/hwmon1"
    put(chip / "in7_label", "VIN")
    put(chip / "curr7_input", 1000)
    assert Ina(root).name == "INA sensors, the whole module (VDD_IN)"


@given(st.lists(st.integers(0, len(WHOLES) - 1), max_size=3, unique=True), st.lists(NAMES, max_size=3))
def test_rails_are_added_only_where_they_are_a_whole(parts: list[int], others: list[str]) -> None:
    rails = [name for i in parts for name in WHOLES[i][0]] + others
    possible = [names for names, _ in WHOLES if set(names) <= set(rails)]
    if possible:
        assert whole_of(rails)[0] == possible[0]
    else:
        with pytest.raises(NoSensor, match="do not add up"):
            whole_of(rails)


def test_mean_of_a_power_that_rises(tmp_path: Path) -> None:
    """5 V at 1 A and 1 A a second more: over a section of t seconds the mean is 5 + 2.5 t W."""
    root = board("orin-nano", tmp_path)
    chip = root / "sys/class/hwmon/hwmon1"
    put(chip / "in1_input", 5000)
    put(chip / "curr1_input", 1000)
    with changing(lambda seconds: put(chip / "curr1_input", round(1000 + 1000 * seconds))):
        with Sampler.open("gpu", root) as sampler:
            time.sleep(LONG_ENOUGH)
    found = sampler.result(50)
    assert found.problem is None and found.watts is not None and found.seconds is not None
    assert found.watts == pytest.approx(5 + 2.5 * found.seconds, rel=0.25)  # at its ends it is a third off
    assert found.joules_per_image == pytest.approx(found.watts * found.seconds / 50)
    assert found.samples >= 4


def test_hottest_and_mean_clock_and_what_to_do_about_it(tmp_path: Path) -> None:
    root = board("orin-nano", tmp_path)
    put(root / "sys/class/thermal/thermal_zone1/temp", 40_000)

    def warm(seconds: float) -> None:
        put(root / "sys/class/thermal/thermal_zone1/temp", 71_500 if seconds < 0.6 else 60_000)
        put(root / "sys/class/devfreq/17000000.gpu/cur_freq", 306_000_000 if seconds < 0.6 else 612_000_000)

    with changing(warm), Sampler.open("gpu", root) as sampler:
        time.sleep(LONG_ENOUGH)
    found = sampler.result(1)
    assert found.temperatures["gpu"] == 71.5
    assert found.gpu_mhz is not None and 306 < found.gpu_mhz < 612
    assert found.gpu_mhz_max == 1020
    assert found.warnings[0].startswith("power mode 15W; the fastest is MAXN_SUPER: sudo nvpmodel -m 2 (it stays set")
    assert re.fullmatch(r"the GPU ran at \d+ of 1020 MHz \(mean\); to hold its clock: sudo jetson_clocks", found.warnings[1])


def test_board_at_full_speed_has_no_warnings(tmp_path: Path) -> None:
    with Sampler.open("gpu", BOARDS / "agx-orin") as sampler:
        pass
    assert sampler.result(1).warnings == []


def test_idle_gpu_is_no_fault_of_work_on_the_cpu() -> None:
    with Sampler.open("cpu", BOARDS / "orin-nano") as sampler:
        pass
    assert [warning.split(";")[0] for warning in sampler.result(1).warnings] == ["power mode 15W"]


def test_section_too_short_to_measure_has_no_number() -> None:
    with Sampler.open("gpu", BOARDS / "orin-nano") as sampler:
        pass
    found = sampler.result(1)
    assert found.problem is not None and found.problem.endswith("1 s is the least that can be measured")
    assert (found.watts, found.joules_per_image) == (None, None)


def test_sensor_that_is_busy_at_times_is_bridged(tmp_path: Path) -> None:
    root = board("orin-nano", tmp_path)
    volts = root / "sys/class/hwmon/hwmon1/in1_input"
    with changing(lambda seconds: put(volts, "" if 0.3 < seconds < 0.6 else 4984)):
        with Sampler.open("gpu", root) as sampler:
            time.sleep(LONG_ENOUGH)
    found = sampler.result(1)
    assert found.problem is None and found.watts == pytest.approx(WATTS["orin-nano"], abs=2e-3)


def test_sensor_that_dies_leaves_no_number(tmp_path: Path) -> None:
    root = board("orin-nano", tmp_path)
    with Sampler.open("gpu", root) as sampler:
        time.sleep(0.2)
        (root / "sys/class/hwmon/hwmon1/in1_input").unlink()
        time.sleep(LONG_ENOUGH)
    found = sampler.result(1)
    assert found.watts is None and found.problem is not None and "in1_input cannot be read" in found.problem


def test_chips_of_other_kinds_are_no_power_sensors(tmp_path: Path) -> None:
    put(tmp_path / "sys/class/hwmon/hwmon0/name", "pwmfan")
    put(tmp_path / "sys/class/hwmon/hwmon0/in1_label", "VDD_IN")
    with pytest.raises(NoSensor, match="no INA power sensor"):
        Ina(tmp_path)


# --- RAPL ------------------------------------------------------------------------------------------------------------


def rapl(root: Path, packages: int = 1, span: int = 1_000_000) -> list[Path]:
    zones = [root / f"sys/class/powercap/intel-rapl:{i}" for i in range(packages)]
    for i, zone in enumerate(zones):
        put(zone / "name", f"package-{i}")
        put(zone / "max_energy_range_uj", span)
        put(zone / "energy_uj", 0)
        put(root / f"sys/class/powercap/intel-rapl:{i}:0/name", "core")  # a part of the package
        put(root / f"sys/class/powercap/intel-rapl:{i}:0/energy_uj", 0)
        put(root / f"sys/class/powercap/intel-rapl:{i}:0/max_energy_range_uj", span)
    return zones


@given(st.lists(st.integers(0, 999_999), min_size=1, max_size=20))
def test_energy_counter_goes_on_where_it_starts_anew(steps: list[int]) -> None:
    """Each step is less than the counter's range, as it is between two readings."""
    with tempfile.TemporaryDirectory() as folder:
        (zone,) = rapl(Path(folder))
        sensor = Rapl(Path(folder))
        total = 0
        for step in steps:
            total += step
            put(zone / "energy_uj", total % 1_000_000)
            assert sensor.read().joules == pytest.approx(total * 1e-6)


def test_power_of_all_packages_of_a_processor(tmp_path: Path) -> None:
    zones = rapl(tmp_path, 2, span=20_000_000)

    def count(seconds: float) -> None:
        for zone in (*zones, tmp_path / "sys/class/powercap/intel-rapl:0:0"):
            put(zone / "energy_uj", int(seconds * 30e6) % 20_000_000)

    with changing(count, every=0.002), Sampler.open("cpu", tmp_path) as sampler:
        time.sleep(LONG_ENOUGH)
    found = sampler.result(4)
    assert found.problem is None and found.sensor == "RAPL, the processor's packages"
    assert found.watts == pytest.approx(2 * 30, rel=0.3)
    assert (found.gpu_mhz, found.temperatures, found.warnings) == (None, {}, [])


def test_machine_without_a_counter_has_no_number(tmp_path: Path) -> None:
    with Sampler.open("cpu", tmp_path) as sampler:
        pass
    assert sampler.result(1) == Power(
        problem="no sensor: this processor, or the virtual machine around it, offers no energy counter (RAPL)"
    )


def test_counter_that_only_root_may_read() -> None:
    """Root tries it as nobody."""
    code = (
        "import os, sys; from pathlib import Path; from ampnet_opt.benchmarks.power import Sampler\n"
        "os.geteuid() or os.setuid(65534)\n"
        "print(Sampler.open('cpu', Path(sys.argv[1])).problem)"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        (zone,) = rapl(Path(folder))
        (zone / "energy_uj").chmod(0o400 if os.geteuid() == 0 else 0)
        done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("no sensor: only root may read the processor's energy counter")
    assert done.stdout.endswith("use sudo\n")


# --- NVML ------------------------------------------------------------------------------------------------------------

pynvml = pytest.mark.skipif(find_spec("pynvml") is None, reason="nvidia-ml-py is not installed")
SECTION = f"""
import json, time; from dataclasses import asdict; from ampnet_opt.benchmarks.power import Sampler
with Sampler.open("gpu") as sampler:
    time.sleep({LONG_ENOUGH} if sampler.problem is None else 0)
print(json.dumps(asdict(sampler.result(10))))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the library that stands in for NVIDIA's driver")
    folder = tmp_path_factory.mktemp("driver")
    source = SUPPORT / "nvml.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", source], check=True)
    return folder


def measured(driver: Path, **settings: str) -> Power:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
    environment.update(LD_LIBRARY_PATH=str(driver), **settings)
    done = subprocess.run([sys.executable, "-c", SECTION], env=environment, capture_output=True, text=True, check=True)
    return Power(**json.loads(done.stdout))


@pynvml
@pytest.mark.parametrize("counter", ["yes", "no"])
def test_desktop_gpu_by_its_counter_or_its_power(driver: Path, counter: str) -> None:
    found = measured(driver, TEST_COUNTER=counter)
    assert found.problem is None and found.watts == pytest.approx(40, rel=0.2)
    assert found.sensor == "NVML, the GPU's board (NVIDIA Test GPU)"
    assert (found.temperatures, found.gpu_mhz, found.gpu_mhz_max) == ({"GPU": 61}, 600, 2000)
    assert found.warnings == [
        "the GPU ran at 600 of 2000 MHz (mean); to hold its clock: sudo nvidia-smi --lock-gpu-clocks=2000"
    ]


@pynvml
def test_gpu_that_does_not_tell_its_power(driver: Path) -> None:
    found = measured(driver, TEST_COUNTER="no", TEST_POWER="no")
    assert found.problem == "no sensor: the GPU does not tell its power (Not Supported)"


@pynvml
def test_hidden_gpu(driver: Path) -> None:
    problem = measured(driver, CUDA_VISIBLE_DEVICES="").problem
    assert problem == "no sensor: no GPU can be measured: there is none, or CUDA_VISIBLE_DEVICES hides it"


@pynvml
def test_machine_without_nvidias_driver() -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("there is a driver here")
    problem = Sampler.open("gpu").problem
    assert problem is not None and problem.startswith("no sensor: no NVIDIA driver answers (")


def test_without_pynvml_the_package_is_named() -> None:
    code = "import sys; sys.modules['pynvml'] = None; from ampnet_opt.benchmarks.power import Sampler; "
    code += "print(Sampler.open('gpu').problem)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "no sensor: the GPU's power needs the package nvidia-ml-py: pip install nvidia-ml-py\n"


@pytest.mark.parametrize(
    "names, environment, expected",
    [
        (["A"], {}, 0),
        (["A", "A"], {}, 0),
        (["A", "A"], {"CUDA_VISIBLE_DEVICES": "1,0"}, 1),
        (["A", "B"], {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 0),
        (["A", "B"], {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1"}, 1),
        (["A", "B"], {"CUDA_VISIBLE_DEVICES": "GPU-1234"}, "GPU-1234"),
    ],
)
def test_gpu_that_cuda_calls_first(names: list[str], environment: dict[str, str], expected: int | str) -> None:
    assert first_gpu(names, environment) == expected


@pytest.mark.parametrize(
    "names, environment, why",
    [
        ([], {}, "there is none"),
        (["A"], {"CUDA_VISIBLE_DEVICES": "-1"}, "hides it"),
        (["A"], {"CUDA_VISIBLE_DEVICES": "1"}, "hides it"),
        (["A"], {"CUDA_VISIBLE_DEVICES": "MIG-1234"}, "hides it"),
        (["A", "B"], {}, "CUDA_DEVICE_ORDER=PCI_BUS_ID"),
    ],
)
def test_gpu_that_cannot_be_told_is_not_measured(names: list[str], environment: dict[str, str], why: str) -> None:
    with pytest.raises(NoSensor, match=why):
        first_gpu(names, environment)


# --- what a report makes of it ---------------------------------------------------------------------------------------


def test_section_of_its_own_is_long_enough_and_counts_its_images() -> None:
    counts: list[int] = []

    def run(count: int) -> None:
        counts.append(count)
        time.sleep(0.3 * count)

    found = measure_power(run, 0.3, 8, "gpu", BOARDS / "orin-nano")
    assert counts == [math.ceil(1.5 * SHORTEST / 0.3)]
    assert found.problem is None and found.watts is not None and found.seconds is not None
    assert found.joules_per_image == pytest.approx(found.watts * found.seconds / (8 * counts[0]))


def test_nothing_runs_where_there_is_no_sensor(tmp_path: Path) -> None:
    found = measure_power(lambda count: pytest.fail("ran"), 0.1, 1, "cpu", tmp_path)
    assert found.problem is not None and found.problem.startswith("no sensor: ")


def test_backends_and_what_they_compute_on() -> None:
    devices = {name: device_of(name) for name in ("torch", "cpu", "onnxruntime", "tensorrt", "tensorrt-rtx")}
    assert devices == {"torch": "cpu", "cpu": "cpu", "onnxruntime": "cpu", "tensorrt": "gpu", "tensorrt-rtx": "gpu"}


def test_notes_say_each_thing_once() -> None:
    lost, known = Power(problem="no sensor: x"), Power(sensor="s", watts=5.0, warnings=["power mode 15W"])
    assert power_notes([("a", lost), ("b", lost), ("c", None)]) == ["Power of a, b: no sensor: x."]
    assert power_notes([("a", known), ("b", known)]) == ["Power of a, b: s.", "Power mode 15W", power_module.METHOD]
    assert power_notes([("a", None)]) == []


def test_table_of_power_only_where_there_is_a_sensor() -> None:
    with Sampler.open("gpu", BOARDS / "thor") as sampler:
        time.sleep(LONG_ENOUGH)
    logits, classes = np.eye(2, dtype=np.float32), ("a", "b")
    scores = accuracy(logits, np.array([0, 1]), classes), agreement(logits, logits), latency([0.01] * 5, 1)
    plain = Result("PyTorch", "torch", "fp32", True, True, *scores, 1000, None, Power(problem="no sensor: x"))
    known = replace(plain, name="engine", backend="tensorrt", power=sampler.result(1200))
    report = Report("one.pth", "0" * 64, classes, 2, 1, 1, environment([]), [plain], [])
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render_comparison(report))
    assert "Power, energy" not in console.export_text()
    console.print(render_comparison(replace(report, results=[plain, known])))
    text = console.export_text()
    table = text[text.index("Power, energy and heat") : text.index("Recall")]
    assert "PyTorch" not in table and "…" not in table and max(map(len, text.splitlines())) <= 100
    row = next(line for line in table.splitlines() if line.strip().startswith("engine"))
    assert known.power is not None and known.power.joules_per_image is not None
    assert row.split() == ["engine", "19.78", f"{1e3 * known.power.joules_per_image:.3g}", "39", "315", "1575"]


def test_results_are_json() -> None:
    with Sampler.open("gpu", BOARDS / "orin-nano") as sampler:
        pass
    assert json.loads(json.dumps(asdict(sampler.result(1))))["gpu_mhz"] == 306
