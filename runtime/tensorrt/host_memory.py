"""Whether this machine has the memory that a build takes."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Optional

# Measured with TensorRT-RTX 1.7 on Linux x86-64: what a build added to a process that held the graph, in MiB.
#   graph     3.8   57.9  113.5  226.9  (float32; int8 with float16 weights; float16; float32)
#   peak      206    502    557    896
# The bound below is above each of them: 215, 539, 873 and 1553.
FIXED, FACTOR = 192 << 20, 6
MEMORY = Path("/proc/meminfo")


def memory_needed(graph: int, workspace: int) -> int:
    """Bytes that a build may take beside its graph of `graph` bytes; workspace: bytes of it, 0 where the GPU has its own
    memory or the library sets no limit."""
    return FIXED + FACTOR * graph + workspace


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


def warn_of_memory(graph: int, workspace: int, warn: Callable[[str], None]) -> None:
    """`warn`, with both numbers, when a build may take more than there is; arguments as of `memory_needed`."""
    needed, available = memory_needed(graph, workspace), memory_available()
    if available is not None and needed > available:
        advice = ", or take a smaller --workspace" if workspace else ""
        warn(
            f"this build may take {needed >> 20} MiB of memory, and {available >> 20} MiB are free: if it is killed, close "
            f"other programs, add swap{advice}"
        )
