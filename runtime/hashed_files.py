"""Files of an engine as they were when it was loaded: what was hashed is what is used."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import Any, Callable, Mapping, Optional

from ampnet_opt.core.errors import AmpnetError


def read_unchanged(path: Path, files: Optional[Mapping[str, str]], allocate: Callable[[int], Any] = bytearray) -> Any:
    """The bytes of a file of an engine, in memory that nobody else writes to, after a check that they have its SHA-256.

    files: name -> SHA-256, as of `Sidecar`; None for an engine that is being built. allocate: gives a writable buffer of so
    many bytes. Raises AmpnetError when the file is gone or another one.
    """
    try:
        with open(path, "rb") as file:
            content = allocate(os.fstat(file.fileno()).st_size)
            with memoryview(content) as view:
                length = file.readinto(view)
                whole = length == len(view) and not file.read(1)
                if files is None or (whole and sha256(view).hexdigest() == files[path.name]):
                    return content
    except FileNotFoundError as error:
        raise AmpnetError(f"{path} is gone since the engine was loaded; load the engine again") from error
    except OSError as error:
        raise AmpnetError(f"{path} cannot be read: {error.strerror or error}") from error
    raise AmpnetError(f"engine {path.parent} was replaced after it was loaded; load it again")
