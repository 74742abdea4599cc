"""What commands say: results on stdout, remarks on stderr, errors as one sentence. All of it is safe on a terminal."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from contextlib import contextmanager
from typing import Any, Iterator

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.text import LONGEST, describe, one_line, printable

VERBOSE = "--verbose"
MORE = f" ({VERBOSE} shows all)"

_verbose = False


def set_verbose(verbose: bool) -> None:
    """Whether messages are shown in full, and errors with their tracebacks, from here on."""
    global _verbose
    _verbose = verbose


def say(text: object) -> None:
    """A line of results on stdout, whole, its control characters escaped. Raises as `stdout_named` does."""
    with stdout_named():
        print(printable(text), flush=True)


@contextmanager
def stdout_named() -> Iterator[None]:
    """What the system refuses in the block is an AmpnetError about stdout, lest it be taken for another file's.

    A BrokenPipeError stays one: its reader went away, which is no error to speak of.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AmpnetError(f"cannot write to standard output: {error.strerror or error}") from error


def remark(text: object) -> None:
    """A message on stderr: one line, cut at `LONGEST` characters unless --verbose was given."""
    print(message(text), file=sys.stderr, flush=True)


def message(text: object) -> str:
    """`text` as one printable line; longer than `LONGEST`, it is cut and says that --verbose shows the rest."""
    whole = one_line(text, sys.maxsize)
    if _verbose or len(whole) <= LONGEST:
        return whole
    return one_line(whole, LONGEST - len(MORE)) + MORE


def fail(error: BaseException) -> int:
    """Say on stderr what ended a command; returns its exit code. With --verbose, the traceback comes first."""
    if _verbose:
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        print("\n".join(map(printable, trace.splitlines())), file=sys.stderr, flush=True)
    remark(f"error: {_sentence(error)}")
    return error.exit_code if isinstance(error, AmpnetError) else 1


def _sentence(error: BaseException) -> str:
    if isinstance(error, AmpnetError):
        shortened = str(error) != error.whole
        return error.whole if _verbose else f"{error}{MORE if shortened else ''}"
    if isinstance(error, MemoryError):
        return "this machine's memory is not enough for this"
    if isinstance(error, OSError):
        place = "" if error.filename is None else f" ({error.filename})"
        return f"the system refused a file: {error.strerror or error}{place}"
    return f"unexpected error: {describe(error, LONGEST // 2)}; please report it: {VERBOSE} shows where it happened"


def replace_closed_streams() -> None:
    """Where stdout or stderr is closed, what is written to it goes nowhere, for this process and its children.

    Its descriptor is taken: the first file that is opened would get it, and whatever a library writes to descriptor 1 or 2.
    """
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is not None:
            continue
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != descriptor and not _is_open(descriptor):
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
            nowhere = descriptor
        os.set_inheritable(nowhere, True)
        setattr(sys, name, os.fdopen(nowhere, "w", encoding="utf-8", closefd=False))


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def speak_safely() -> None:
    """Everything else that reaches the terminal, for this process: what the encoding of stdout lacks is escaped, and
    warnings of libraries and of the log are remarks, without a line of source code."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a test's or an embedder's stream may have none
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    warnings.formatwarning = _format_warning  # type: ignore[assignment]
    logging.lastResort = _Remarks(logging.WARNING)


def _format_warning(text: Any, *where: Any, **more: Any) -> str:
    return message(f"warning: {text}") + "\n"


class _Remarks(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            remark(record.getMessage())
        except Exception:
            self.handleError(record)
