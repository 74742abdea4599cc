"""Kernel times that TensorRT measured, kept from build to build."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Optional

from ampnet_opt.core.cache import cache_folder
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import new_file
from ampnet_opt.runtime.cuda import Gpu

log = logging.getLogger(__name__)


def default_path(gpu: Gpu, version: str) -> Optional[Path]:
    """One file for each GPU and version of TensorRT: times of another would be refused. None, with a warning, when there is
    no folder for caches, or others may write to it."""
    try:
        return cache_folder("timing") / f"{gpu.slug}-{version}.cache"
    except AmpnetError as error:
        log.warning("kernel times are not kept: %s", error)
        return None


class TimingCache:
    """Times for one build, from a file or none yet; `save` adds what was measured to the file.

    logger: of the library, as of `new_logger`. given: the file that the user named, if any, else it is `default`; of
    neither, nothing is kept. Raises
    AmpnetError for a given file that the library refuses; the default one starts anew then, with a warning.
    """

    def __init__(self, config: Any, logger: Any, given: Optional[Path], default: Optional[Path]) -> None:
        self._config, self._logger = config, logger
        self._path = given or default
        self._cache = self._read()
        if self._cache is None or not config.set_timing_cache(self._cache, False):
            reason = (logger.warnings or ["it is of another GPU"])[-1]
            if given is not None:
                raise AmpnetError(f"the timing cache {given} cannot be used here ({reason}); delete it or name another file")
            log.warning("the timing cache %s cannot be used here (%s) and is made anew", self._path, reason)
            self._cache = config.create_timing_cache(b"")
            config.set_timing_cache(self._cache, False)

    def _read(self) -> Any:
        """The file's cache, an empty one where there is no file, or None for a file that the library does not take."""
        if self._path is None:
            return self._config.create_timing_cache(b"")
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return self._config.create_timing_cache(b"")
        except OSError as error:
            raise AmpnetError(f"the timing cache {self._path} cannot be read: {error.strerror or error}") from error
        told = len(self._logger.warnings)
        cache = self._config.create_timing_cache(data)
        # A file that cannot be read becomes an empty cache, and only a warning says so.
        return None if len(self._logger.warnings) > told else cache

    def save(self) -> None:
        """Write the file, with what another build has added meanwhile. A failure is a warning: the plan is there."""
        if self._path is None:
            return
        try:
            newer = self._read()
            if newer is not None:
                self._cache.combine(newer, False)
            with new_file(self._path, durable=False) as temporary:
                temporary.write_bytes(bytes(self._cache.serialize()))
        except AmpnetError as error:
            log.warning("the kernel times of this build are lost: %s", error)
