"""How the C library keeps memory that is freed, for processes that free and take the same large blocks again and again."""

from __future__ import annotations

import ctypes
import platform

# Of malloc.h. Setting either keeps glibc from moving both by what was freed last.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT = 256 << 20  # bytes free at a heap's end before they go back to the system
OWN_MAPPING = 32 << 20  # bytes from which a block is mapped for itself: the most that glibc takes


def keep_freed_memory() -> bool:
    """Let the process keep up to 256 MiB that it has freed, where the C library is glibc. Returns whether it does.

    Each frame of a video goes through a dozen arrays of a megabyte or more. By default glibc gives them back to the system
    and takes them anew, and the system clears each page of 4 KiB: 1,300 page faults a frame of 640 x 480, a tenth of its
    processor time. It holds for the whole process, so the process that runs a pipeline asks for it, not the pipeline.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(MMAP_THRESHOLD, OWN_MAPPING)) and bool(mallopt(TRIM_THRESHOLD, KEPT))
