"""The NVIDIA driver, asked without any CUDA binding, and the binding that fits it."""

from __future__ import annotations

import ctypes
from typing import Optional, Tuple

from ampnet_opt.core.installing import cuda_binding_command


def binding_advice() -> str:
    """Which binding this machine's driver takes, as a part of a sentence."""
    cuda = driver_cuda()
    if cuda is None:
        return "there is no NVIDIA driver here"
    return f"the driver's CUDA is {cuda[0]}.{cuda[1]}, for which: {cuda_binding_command(cuda)}"


def driver_cuda() -> Optional[Tuple[int, int]]:
    """The newest CUDA that the installed driver knows, (12, 6) say, asked without a binding; None without a driver."""
    version = ctypes.c_int()
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return None if failed else (version.value // 1000, version.value % 1000 // 10)
