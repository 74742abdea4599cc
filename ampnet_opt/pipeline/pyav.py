"""PyAV's module, which reads and writes videos, and what it raises."""

from __future__ import annotations

from typing import Any, Tuple, Type

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.installing import install_command


def load_av() -> Any:
    """PyAV's module. Raises AmpnetError that says how to get it."""
    try:
        import av
    except ImportError as error:
        raise AmpnetError(f"videos need PyAV, which cannot be imported ({error}): {install_command('video')}") from error
    av.logging.set_level(av.logging.PANIC)  # FFmpeg prints to stderr; what fails is raised
    return av


def refusals(av: Any) -> Tuple[Type[BaseException], ...]:
    """What PyAV raises: its own errors, of which those of HTTP and of codecs are no OSError, and ValueError."""
    return av.error.FFmpegError, OSError, ValueError
