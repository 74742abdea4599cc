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
    # Nothing is logged: with any level, a decoder that ends amid a video waits for the lock of Python, which waits for it.
    av.logging.set_level(None)
    return av


def refusals(av: Any) -> Tuple[Type[BaseException], ...]:
    """What PyAV raises: its own errors, of which those of HTTP and of codecs are no OSError, and ValueError."""
    return av.error.FFmpegError, OSError, ValueError
