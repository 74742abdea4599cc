"""Processor and memory of this machine. Standard library only."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
from pathlib import Path
from typing import Optional

MEMORY = Path("/proc/meminfo")


def processor_name() -> str:
    """The processor in its maker's words, where the system tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                key, _, value = line.partition(":")
                if key.strip().lower() == "model name":
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def is_arm() -> bool:
    """Whether this is a 64-bit Arm processor."""
    return platform.machine().lower() in ("aarch64", "arm64")


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_available() -> Optional[int]:
    """Bytes that can be had without swapping, as Linux estimates them; None where it does not say."""
    try:
        for line in MEMORY.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) << 10  # its kB are of 1024 bytes
    except (OSError, ValueError, IndexError):
        return None
    return None


def release_memory() -> None:
    """Give the system back what this process has freed, which glibc keeps otherwise; does nothing with other C libraries."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
