"""Whether this machine has the memory that a build takes."""

from __future__ import annotations

from typing import Callable

from ampnet_opt.core.processor import memory_available

# Measured with TensorRT-RTX 1.7 on Linux x86-64: what a build added to a process that held the graph, in MiB.
#   graph     3.8   57.9  113.5  226.9  (float32; int8 with float16 weights; float16; float32)
#   peak      206    502    557    896
# The bound below is above each of them: 215, 539, 873 and 1553.
FIXED, FACTOR = 192 << 20, 6


def memory_needed(graph: int, workspace: int) -> int:
    """Bytes that a build may take beside its graph of `graph` bytes; workspace: bytes of it, 0 where the GPU has its own
    memory or the library sets no limit."""
    return FIXED + FACTOR * graph + workspace


def warn_of_memory(graph: int, workspace: int, warn: Callable[[str], None]) -> None:
    """`warn`, with both numbers, when a build may take more than there is; arguments as of `memory_needed`."""
    needed, available = memory_needed(graph, workspace), memory_available()
    if available is not None and needed > available:
        advice = ", or take a smaller --workspace" if workspace else ""
        warn(
            f"this build may take {needed >> 20} MiB of memory, and {available >> 20} MiB are free: if it is killed, close "
            f"other programs, add swap{advice}"
        )
