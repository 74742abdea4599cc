"""Power, temperature and clock of a desktop GPU by NVML. Python 3.8; pynvml is in the package nvidia-ml-py."""

from __future__ import annotations

import os
from typing import Any, Callable, Mapping, Optional, Sequence, Union

from ampnet_opt.benchmarks.sensors import NoSensor, Reading, Sensor


class Nvml(Sensor):
    """The GPU that CUDA calls its first. Its energy counter where it has one (Volta and later), else its power."""

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise NoSensor("the GPU's power needs the package nvidia-ml-py: pip install nvidia-ml-py") from error
        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise NoSensor(f"no NVIDIA driver answers ({error})") from error
        try:
            self._gpu = self._handle()
            self._counts = self._ask(pynvml.nvmlDeviceGetTotalEnergyConsumption, self._gpu) is not None
            self.name = f"NVML, the GPU's board ({pynvml.nvmlDeviceGetName(self._gpu)})"
            self.read()
        except pynvml.NVMLError as error:
            self.close()
            raise NoSensor(f"the GPU does not tell its power ({error})") from error
        except NoSensor:
            self.close()
            raise

    def _handle(self) -> Any:
        nvml = self._nvml
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        names = [nvml.nvmlDeviceGetName(handle) for handle in handles]
        chosen = first_gpu(names, os.environ)
        return handles[chosen] if isinstance(chosen, int) else nvml.nvmlDeviceGetHandleByUUID(chosen)

    def _ask(self, call: Callable[..., Any], *arguments: Any) -> Optional[float]:
        """The answer, or None where this GPU or its driver does not have it."""
        try:
            return float(call(*arguments))
        except self._nvml.NVMLError:
            return None

    def read(self) -> Reading:
        nvml = self._nvml
        counter = nvml.nvmlDeviceGetTotalEnergyConsumption if self._counts else nvml.nvmlDeviceGetPowerUsage
        try:
            value = counter(self._gpu) / 1000  # from mJ or mW
        except nvml.NVMLError as error:
            raise NoSensor(f"the GPU does not tell its power ({error})") from error
        degrees = self._ask(nvml.nvmlDeviceGetTemperature, self._gpu, nvml.NVML_TEMPERATURE_GPU)
        return Reading(
            watts=None if self._counts else value,
            joules=value if self._counts else None,
            temperatures={} if degrees is None else {"GPU": degrees},
            gpu_mhz=self._ask(nvml.nvmlDeviceGetClockInfo, self._gpu, nvml.NVML_CLOCK_SM),
            gpu_mhz_max=self._ask(nvml.nvmlDeviceGetMaxClockInfo, self._gpu, nvml.NVML_CLOCK_SM),
        )

    def close(self) -> None:
        self._nvml.nvmlShutdown()


def first_gpu(names: Sequence[str], environment: Mapping[str, str]) -> Union[int, str]:
    """NVML's number, or the UUID, of the GPU that CUDA calls 0. names: of the GPUs in NVML's order, that of the PCI bus.

    CUDA hides those that CUDA_VISIBLE_DEVICES does not list and by itself puts the fastest first. Raises NoSensor when
    there is none, or when the GPUs differ and CUDA's order is its own.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    first = "0" if visible is None else visible.split(",")[0].strip()
    if first.startswith("GPU-"):
        return first
    if not first.isdigit() or int(first) >= len(names):
        raise NoSensor("no GPU can be measured: there is none, or CUDA_VISIBLE_DEVICES hides it")
    if len(set(names)) > 1 and environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise NoSensor("this machine's GPUs differ: set CUDA_DEVICE_ORDER=PCI_BUS_ID, so that the one that runs is measured")
    return int(first)
