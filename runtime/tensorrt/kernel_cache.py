"""Kernels that TensorRT for RTX compiles when a plan first runs, kept for the next process.

There is one file for each GPU, version and plan. Kernels are programs: they are read from a folder that only this user may
write to, and are checked by their hash. Whether they fit GPU and driver, the library checks itself.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any, Optional

from ampnet_opt.core.cache import cache_folder, keep_bytes, kept_bytes
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.runtime.cuda import Gpu

log = logging.getLogger(__name__)

LARGEST_CACHE, NEWEST = 1 << 29, 8  # bytes of all files, and how many are kept whatever their size


def cache_path(gpu: Gpu, version: str, plan_sha256: str) -> Optional[Path]:
    """None, with a warning, where there is no folder for caches, or others may write to it."""
    try:
        return cache_folder("kernels") / f"{gpu.slug}-{version}-{plan_sha256[:16]}.cache"
    except AmpnetError as error:
        log.warning("compiled kernels are not kept: %s", error)
        return None


class KernelCache:
    """The kernels of one plan, for all its contexts.

    config: the IRuntimeConfig that its contexts are made with. path: of `cache_path`. Made with the GPU's context current. A
    file that the library does not take is replaced later.
    """

    def __init__(self, config: Any, path: Optional[Path]) -> None:
        self._path, self._lock = path, threading.Lock()
        self._native = native = config.create_runtime_cache()
        self._kept = b"" if path is None else kept_bytes(path)
        if self._kept and not native.deserialize(self._kept):
            log.debug("the kernels in %s are of another driver, and are compiled anew", path)
            self._kept = b""
        config.set_runtime_cache(native)

    def save(self) -> None:
        """Write what was compiled since the last time. A failure is a warning: the engine runs."""
        if self._path is None:
            return
        with self._lock:
            memory = self._native.serialize()
            kernels = b"" if memory is None else bytes(memory)
            if not kernels or kernels == self._kept:
                return
            try:
                keep_bytes(self._path, kernels, LARGEST_CACHE, NEWEST)
                self._kept = kernels
            except (AmpnetError, OSError) as error:
                log.warning("the kernels that were compiled are not kept: %s", error)
                self._path = None
