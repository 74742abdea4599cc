"""A process that reads one hostile file after another, within limits: what they do to it is not done to the tests."""

from __future__ import annotations

import io
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from fuzz_targets import TARGETS, Target

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.messages import fail
from ampnet_opt.core.text import LONGEST

SECONDS = 2.0  # of processor time for one file
PATIENCE = 60.0  # seconds by the clock, on a machine that has other work
ROOM = 400 << 20  # bytes of address space beyond what the libraries take


class Reader:
    """The parent's side: one target in a process of its own, started again after each death."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.target = TARGETS[name]
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name) / self.target.name
        self.target.around(self.path.parent)
        self._process: subprocess.Popen[bytes] | None = None
        # A pipe that nobody reads would stop the process when it is full.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)

    def read(self, data: bytes) -> dict[str, Any]:
        """{"outcome": "read", "refused" or "failed", "text": what was said}."""
        self.path.write_bytes(data)
        if self._process is None:
            command = [sys.executable, __file__, self.name, str(self.path)]
            self._said.truncate(0)
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said)
            if self._answer(10 * PATIENCE) != {"ready": True}:
                raise RuntimeError(f"the reader of {self.name} does not start: {self._end()}")
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        answer = self._answer(PATIENCE)
        return {"outcome": "failed", "text": self._end()} if answer is None else answer

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        assert self._process is not None and self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else b""
        return json.loads(line) if line else None

    def _end(self) -> str:
        """Why the process gave no answer; it is gone afterwards."""
        process, self._process = self._process, None
        assert process is not None
        try:
            code = process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return f"no answer for {PATIENCE:.0f} s"
        process.communicate()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace")
        if code == -signal.SIGPROF:
            return f"it took more than {SECONDS} s of processor time"
        return f"its process ended with {code}: {said[-2000:]}"

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._said.close()
        self._folder.cleanup()


def serve(target: Target, path: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    path.write_bytes(target.valid())
    warm = _outcome(target.read, path)  # imports what it needs before there are limits
    assert warm["outcome"] != "failed", warm
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for _ in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # its signal ends the process
        answer = _outcome(target.read, path)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(answer), file=answers, flush=True)


def _outcome(read: Callable[[Path], None], path: Path) -> dict[str, Any]:
    said = io.StringIO()
    try:
        read(path)
    except AmpnetError as error:
        with redirect_stderr(said):
            fail(error)
        line = said.getvalue()
        sound = line.startswith("error: ") and line[:-1].isprintable() and line.count("\n") == 1 and len(line) <= LONGEST + 1
        return {"outcome": "refused" if sound else "failed", "text": line}
    except BaseException:  # what is thrown by extension modules need be no Exception
        return {"outcome": "failed", "text": traceback.format_exc()[-3000:]}
    return {"outcome": "read", "text": ""}


if __name__ == "__main__":
    # Started by path: the module is also known by its name, for the tests.
    serve(TARGETS[sys.argv[1]], Path(sys.argv[2]))
