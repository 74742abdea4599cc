"""Whether the installed library has what is asked of its builder, and how it is told."""

from __future__ import annotations

from typing import Any, Optional, Sequence

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.text import count, release
from ampnet_opt.runtime.compile_options import FLAGS, HARDWARE, BuilderOptions
from ampnet_opt.runtime.cuda import Gpu
from ampnet_opt.runtime.sidecar import BatchRange
from ampnet_opt.runtime.tensorrt.build_log import LogFile
from ampnet_opt.runtime.tensorrt.library import FAMILIES, load_library, new_logger, started

# Option -> (the class of the library that has it, the attribute, which versions have that).
# {hardware} is the level that was asked for.
FEATURES = {
    "optimization_level": ("IBuilderConfig", "builder_optimization_level", "TensorRT 8.6 and later"),
    "version_compatible": ("BuilderFlag", "VERSION_COMPATIBLE", "TensorRT 8.6 and later"),
    "hardware_compatible": (
        "HardwareCompatibilityLevel",
        "{hardware}",
        "TensorRT 8.6 and later for ampere+, 10.13 and later for same-compute-capability",
    ),
    "workspace": ("MemoryPoolType", "WORKSPACE", "TensorRT 8.5 and later"),
    "timing_cache": ("IBuilderConfig", "create_timing_cache", "TensorRT 8.5 and later"),
    "dla_core": ("Builder", "num_DLA_cores", "the versions for Jetsons"),
}
# TensorRT-RTX has all of the attributes, but warns that it does nothing, misses a library, or counts no core.
NOT_FOR_RTX = {
    "timing_cache": "it times nothing before an engine's first run, and would ask for a GPU only to open the file",
    "version_compatible": "its plans run with the release that built them, and with no other",
    "hardware_compatible": "its plans are for several GPUs anyhow, which --compute-capability names",
    "dla_core": "it builds for GPUs only",
}
HAVE_DLA = "Jetson Xavier NX, AGX Xavier, Orin NX and AGX Orin with TensorRT up to 10.7, and AGX Orin from 11.4.1 on"


def require_options(backend: str, options: BuilderOptions, precisions: Sequence[str], batch: BatchRange) -> None:
    """Raise what can be known before any work is done.

    MisuseError for options that never go with the backend, the precisions or the batch; AmpnetError for those that the
    installed library or this machine does not have, and for files that cannot be written.
    """
    given = options.given()
    if FAMILIES[backend].ahead:
        for name in given:
            if name in NOT_FOR_RTX:
                raise MisuseError(f"{FLAGS[name]} is not for tensorrt-rtx: {NOT_FOR_RTX[name]}")
    if options.timing_cache is not None and options.timing_cache.is_dir():
        raise MisuseError(f"the timing cache {options.timing_cache} is a directory, not a file")
    if given:
        require_features(load_library(backend), options, precisions, batch)
    if options.log is not None:
        LogFile(options.log).close()


def require_features(trt: Any, options: BuilderOptions, precisions: Sequence[str], batch: BatchRange) -> None:
    """AmpnetError for an option that the library `trt` lacks, MisuseError for what DLA never takes."""
    for name in options.given():
        if name not in FEATURES:
            continue
        owner, attribute, has_it = FEATURES[name]
        attribute = attribute.format(hardware=HARDWARE[options.hardware_compatible])
        if not hasattr(getattr(trt, owner, None), attribute):
            raise AmpnetError(
                f"TensorRT {trt.__version__} has no {owner}.{attribute}, which {FLAGS[name]} needs; {has_it} have it"
            )
    if options.dla_core is not None:
        _require_dla(trt, options.dla_core, precisions, batch)


def _require_dla(trt: Any, core: int, precisions: Sequence[str], batch: BatchRange) -> None:
    """DLA computes in FP16 and INT8 (NVIDIA, "DLA Supported Layers and Restrictions"), for one batch size.

    Weakly typed libraries read its INT8 ranges from calibration only, and leave layers between Q and DQ to the GPU.
    """
    able = ["fp16"] if hasattr(trt.BuilderFlag, "INT8") else ["fp16", "int8"]
    unable = [precision for precision in precisions if precision not in able]
    if unable:
        raise MisuseError(
            f"--dla with TensorRT {trt.__version__} computes in {' and '.join(able)}, not in {', '.join(unable)}: FP32 is "
            "beyond DLA, and INT8 by Q/DQ is there from TensorRT 11.4.1 on"
        )
    if batch.min != batch.max:
        raise MisuseError(f"--dla takes one batch size, not {batch.min} to {batch.max}: name it with --static-batch")
    cores = started(trt, trt.Builder, new_logger(trt)).num_DLA_cores
    if core >= cores:
        found = f"has {count(cores, 'DLA core')}, counted from 0" if cores else "has no DLA"
        raise AmpnetError(f"this machine {found}, as TensorRT {trt.__version__} sees it; there is DLA on {HAVE_DLA}")


def without_bfloat16(trt: Any, gpu: Optional[Gpu]) -> str:
    """Why TensorRT does not compute in BF16 on a GPU, or ""; with None, on any.

    BF16 is a type of strongly typed networks, which came with TensorRT 10, and of GPUs from Ampere on.
    """
    typed = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") or not hasattr(trt.BuilderFlag, "FP16")
    if not typed or not hasattr(trt.DataType, "BF16"):
        return f"TensorRT {trt.__version__} does not compute in BF16, which came with TensorRT 10"
    if gpu is not None and release(gpu.compute_capability) < (8, 0):
        return (
            f"{gpu.name}, of compute capability {gpu.compute_capability}, does not compute in BF16, which 8.0 and later do"
        )
    return ""


def apply_options(trt: Any, config: Any, options: BuilderOptions) -> None:
    """Set `options`, which `require_options` let pass, in a builder configuration. The timing cache and the log are not its.

    Raises AmpnetError when the library does not keep the workspace that it is given.
    """
    if options.workspace is not None:
        pool, size = trt.MemoryPoolType.WORKSPACE, options.workspace << 20
        config.set_memory_pool_limit(pool, size)  # too large a pool is refused by doing nothing
        if config.get_memory_pool_limit(pool) != size:
            most = config.get_memory_pool_limit(pool) >> 20
            raise AmpnetError(f"TensorRT refuses a workspace of {options.workspace} MiB; it takes {most} MiB here")
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible != "none":
        level = getattr(trt.HardwareCompatibilityLevel, HARDWARE[options.hardware_compatible])
        config.hardware_compatibility_level = level
    if options.dla_core is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)  # uint8 pixels, resampling and landmarks are beyond DLA
