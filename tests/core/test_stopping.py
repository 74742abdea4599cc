"""Signals that stop a command, and child processes that answer, fail or die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ampnet_opt.core.children import Child, Died
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.stopping import signals_stop

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")

COMMAND = """
import signal, sys, time
from pathlib import Path
import typer
from ampnet_opt.cli import main as cli
from ampnet_opt.core.files import new_directory

def wait(target: Path) -> None:
    with new_directory(target):
        print("at work", flush=True)
        try:
            time.sleep(20)
        finally:
            time.sleep(0.2)  # clearing up takes its time

application = cli.application

def with_wait(words):
    app = application(words)
    app.command()(wait)
    return app

cli.application = with_wait
cli.main()
"""


def waiting(target: Path, *before: str) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-c", COMMAND, "wait", str(target)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "at work\n"
    return process


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_command_undoes_what_it_began_and_says_so(tmp_path: Path, how: signal.Signals) -> None:
    process = waiting(tmp_path / "a" / "target")
    process.send_signal(how)
    if how == signal.SIGHUP:  # a shell passes on what the kernel has sent already
        process.send_signal(how)
    assert process.communicate(timeout=60) == ("", "stopped; nothing was left half-written\n")
    assert process.returncode == 128 + how and list(tmp_path.iterdir()) == []


def test_under_nohup_a_command_goes_on(tmp_path: Path) -> None:
    process = waiting(tmp_path / "target", "nohup")
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


def test_handlers_of_a_program_that_uses_the_library_stay() -> None:
    def own(number: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGTERM, own)
    try:
        with signals_stop():
            assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
    with signals_stop() as stopped:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert stopped.exit_code == 143 and signal.getsignal(signal.SIGTERM) == before
    problems: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with signals_stop():
                pass
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert problems == []


ECHO = """
import os
from ampnet_opt.core.children import answer_requests
from ampnet_opt.core.errors import MisuseError

def handle(request):
    if request == "die":
        print("the last words", flush=True)
        os._exit(3)
    if request == "misuse":
        raise MisuseError("wrong")
    if request == "fail":
        raise ValueError("bad value\\nmore")
    print("chatter")
    return request

def serve():
    answer_requests(handle)
"""


def test_a_child_answers_fails_and_dies_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "echo.py").write_text(ECHO)
    monkeypatch.syspath_prepend(str(tmp_path))
    with Child("echo") as child:
        assert child.ask([1, "two"]) == [1, "two"]
        for how in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the parent's to answer
            os.kill(child.pid, how)
        with pytest.raises(MisuseError, match="wrong"):
            child.ask("misuse")
        with pytest.raises(Exception, match=r"^ValueError: bad value$"):
            child.ask("fail")
        with pytest.raises(Died, match=r"exit code 3 \(the last words\)"):
            child.ask("die")
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
