"""Python processes that answer one request at a time, pickled, over pipes. Standard library only.

Unlike `multiprocessing`, whose processes import from the working directory before they know where to look, these find
modules where this interpreter finds them.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from typing import IO, Any, BinaryIO, Callable, Dict, Iterator

from ampnet_opt.core.errors import AmpnetError

# sys is the one module that no file can stand for: nothing else is imported while "" is on the path.
START = "import sys; sys.path[:] = sys.argv[1:]; from {module} import serve; serve()"
STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextlib.contextmanager
def variables_set(variables: Dict[str, str]) -> Iterator[None]:
    """This process's environment variables, with these for the time of the block; what it starts there inherits them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Died(AmpnetError):
    """A child that ended instead of answering; the message is how."""


class Child:
    """A process that runs `serve()` of a module. A context manager; leaving it ends the process, whatever it is doing."""

    def __init__(self, module: str) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the child); of it only the last line is ever shown
        command = python(START.format(module=module), *filter(None, sys.path))
        with stopped_by_parent():
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: Any) -> Any:
        """The answer. Raises what the child raises, as AmpnetError or MisuseError, and Died when it ends."""
        assert self._process.stdin and self._process.stdout
        try:
            pickle.dump(request, self._process.stdin)
            self._process.stdin.flush()
            error, answer = pickle.load(self._process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError, ValueError) as failure:  # ValueError: closed meanwhile
            raise Died(cause_of_death(self._process, self._log)) from failure
        if error is not None:
            raise error(answer)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(BrokenPipeError):  # an unsent rest of a request
                stream.close()  # type: ignore[union-attr]

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def python(code: str, *arguments: str) -> list[str]:
    """A command line that runs `code`, which must not import anything before it has set sys.path."""
    return [sys.executable, "-c", code, *arguments]


@contextlib.contextmanager
def stopped_by_parent() -> Iterator[None]:
    """Processes started in this block inherit that Ctrl-C, SIGTERM and SIGHUP, which reach a whole group, are not for them:
    the parent ends them. One that comes meanwhile reaches this thread afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def cause_of_death(process: subprocess.Popen[Any], log: IO[bytes]) -> str:
    """How a process ended, and what it said last."""
    code = process.wait()
    if code == -getattr(signal, "SIGKILL", 9):
        return "its process was killed, most likely for want of memory"
    last = last_line(log)
    end = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    return f"its process ended {end}" + (f" ({last})" if last else "")


def last_line(log: IO[bytes]) -> str:
    """What a process that died said last, "" when it said nothing."""
    log.seek(0)
    return log.read().decode(errors="replace").strip().rpartition("\n")[2]


def answer_requests(handle: Callable[[Any], Any]) -> None:
    """In the child: answer until the parent closes the pipe, which it also does by dying."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for Windows, which has no masks to inherit
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up among the answers
    while True:
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        try:
            _send(answers, None, handle(request))
        except AmpnetError as error:
            _send(answers, type(error), str(error))
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            _send(answers, AmpnetError, f"{type(error).__name__}: {reason}" if reason else type(error).__name__)


def _send(answers: BinaryIO, error: type[AmpnetError] | None, answer: Any) -> None:
    pickle.dump((error, answer), answers)
    answers.flush()
