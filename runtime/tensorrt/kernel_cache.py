"""Kernels that TensorRT for RTX compiles when a plan first runs, kept for the next process.

There is one file for each GPU, version and plan. Kernels are programs: they are read from a folder that only this user may
write to, and are checked by their hash. Whether they fit GPU and driver, the library checks itself.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any, Optional

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import cache_folder, forget_oldest, is_private, new_file
from ampnet_opt.runtime.cuda import Gpu

log = logging.getLogger(__name__)

DIGEST = 32  # bytes of SHA-256 at the end of a file
LARGEST_CACHE, NEWEST = 1 << 29, 8  # bytes of all files, and how many are kept whatever their size


def cache_path(gpu: Gpu, version: str, plan_sha256: str) -> Optional[Path]:
    """None, with a warning, where there is no folder for caches, or others may write to it."""
    name = re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-")
    try:
        return cache_folder("kernels") / f"{name}-{gpu.compute_capability}-{version}-{plan_sha256[:16]}.cache"
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
        self._kept = b"" if path is None else _read(path)
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
                with new_file(self._path, durable=False) as temporary:
                    temporary.write_bytes(kernels + sha256(kernels).digest())
                    temporary.chmod(0o600)
                forget_oldest(self._path.parent, "*.cache", LARGEST_CACHE, NEWEST)
                self._kept = kernels
            except (AmpnetError, OSError) as error:
                log.warning("the kernels that were compiled are not kept: %s", error)
                self._path = None


def _read(path: Path) -> bytes:
    """The kernels in a file; b"" where it is missing, damaged, or may be another user's."""
    try:
        with open(path, "rb") as file:
            if not is_private(os.fstat(file.fileno())):
                return b""
            content = file.read()
    except OSError:
        return b""
    kernels, digest = content[:-DIGEST], content[-DIGEST:]
    return kernels if sha256(kernels).digest() == digest else b""
