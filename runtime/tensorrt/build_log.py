"""The file that a build's messages go to."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator, Optional, TextIO

from ampnet_opt.core.errors import AmpnetError, MisuseError

log = logging.getLogger(__name__)

START = "[BUILD] "


@contextmanager
def messages_to(path: Optional[Path], title: str) -> Iterator[Optional[Callable[[str, str], None]]]:
    """What takes a build's messages, severity and text: `LogFile.add`, or None where there is no path."""
    if path is None:
        yield None
        return
    file = LogFile(path)
    try:
        file.start(title)
        yield file.add
    finally:
        file.close()
    if file.error is not None:
        log.warning("the log %s is incomplete: %s", path, file.error.strerror or file.error)


class LogFile:
    """A log, appended to build by build; each message is on the disk at once, for builds that end with the process.

    Raises MisuseError for a file that is no such log, AmpnetError for one that cannot be written. Close it before another
    one of the same path is opened.
    """

    def __init__(self, path: Path) -> None:
        self.error: Optional[OSError] = None  # why the end of the log is missing
        self._stream: Optional[TextIO] = None
        try:
            if path.is_file() and path.stat().st_size > 0:
                with open(path, "rb") as old:
                    if old.read(len(START)) != START.encode():
                        raise MisuseError(f"{path} is not a log of a build; name another file for the log")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise AmpnetError(f"cannot write the log {path}: {error.strerror or error}") from error

    def start(self, title: str) -> None:
        """Say which build follows."""
        self._write(f"{START}{title}\n")

    def add(self, severity: str, message: str) -> None:
        """A message of the library, which may call from any thread and at any time, and where nothing may be raised."""
        self._write(f"[{severity}] {message.rstrip()}\n")

    def close(self) -> None:
        stream, self._stream = self._stream, None
        try:
            if stream is not None:
                stream.close()
        except OSError as error:  # of what was left to write
            self.error = error

    def _write(self, text: str) -> None:
        stream = self._stream
        if stream is None or self.error is not None:
            return
        try:
            stream.write(text)
        except (OSError, ValueError) as error:  # a full disk; closed by the other thread a moment ago
            if isinstance(error, OSError):
                self.error = error
