"""Linux's renameat2: two directories change places in one step. Standard library only."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

# From linux/fs.h; AT_FDCWD from fcntl.h.
NOREPLACE, EXCHANGE = 1, 2
AT_FDCWD = -100
# EINVAL: the file system does not know the flag (NFS, some overlays). ENOSYS: the kernel does not know the call. EPERM: a
# sandbox refuses what it does not know.
UNKNOWN = (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENOTSUP)


def rename(source: Path, target: Path, flag: int) -> bool:
    """Rename with NOREPLACE or EXCHANGE; False where this machine cannot. Raises OSError for what else the system says."""
    if not sys.platform.startswith("linux"):
        return False
    import ctypes  # here: few processes write directories

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28 and later
    if call is None:
        return False
    if call(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in UNKNOWN:
        return False
    raise OSError(code, os.strerror(code), str(target))
