"""Standard input and FIFOs as files that another thread can end."""

from __future__ import annotations

import io
import os
import select
import sys
import threading

from ampnet_opt.core.errors import MisuseError

LOOK = 0.2  # seconds between looks whether it is over


class Pipe:
    """Bytes of a pipe, for PyAV. A read that waits for them ends when `closing` is set.

    Python's own `sys.stdin.buffer` would be locked by a reading thread, and the interpreter then dies at its end.
    """

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self.closing = threading.Event()
        self._ahead = b""

    def peek(self, size: int) -> bytes:
        """The first bytes, fewer where there are no more; they are read again afterwards. Only before anything is read."""
        while len(self._ahead) < size:
            more = self._wait(size - len(self._ahead))
            if not more:
                break
            self._ahead += more
        first = self._ahead
        if self.seekable():
            self._ahead = b""
            self._file.seek(-len(first), os.SEEK_CUR)
        return first

    def read(self, size: int) -> bytes:
        """Up to so many bytes, none at the end."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        return self._wait(size)

    def _wait(self, size: int) -> bytes:
        while not self.closing.is_set():
            # Windows knows no waiting for pipes.
            if os.name == "nt" or select.select([self._file], [], [], LOOK)[0]:
                return self._file.read(size) or b""
        return b""

    def seekable(self) -> bool:
        """Whether a file was redirected into it."""
        return self._file.seekable()

    def seek(self, offset: int, whence: int = 0) -> int:
        """As a file's."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As a file's."""
        return self._file.tell()

    def close(self) -> None:
        """Free the descriptor, but for standard input's."""
        self._file.close()


def standard_input() -> Pipe:
    """Raises MisuseError when nothing is piped into this process."""
    try:
        descriptor = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError) as error:  # closed, or replaced by something that is no file
        raise MisuseError("standard input is closed; pipe a video into it") from error
    if os.isatty(descriptor):
        raise MisuseError("standard input is a terminal; pipe a video into it, or name a file")
    return Pipe(io.FileIO(descriptor, "rb", closefd=False))


def fifo(path: str) -> Pipe:
    """A FIFO, as soon as someone writes to it."""
    return Pipe(io.FileIO(path, "rb"))
