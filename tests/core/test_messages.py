"""What is said on a terminal: one line, printable, at most 300 characters, and never a traceback that nobody asked for."""

from __future__ import annotations

import json
import logging
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sidecars import SIDECAR

from ampnet_opt.cli import main as cli
from ampnet_opt.cli.main import verbose_first
from ampnet_opt.core import messages
from ampnet_opt.core.console import console
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.text import LONGEST
from ampnet_opt.runtime.sidecar import NAME, rebuild_command

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's devices")
HOSTILE = "\x1b[2J\x1b]0;title\x07a\rb\x9bc\u202egnp\ud800[red]x[/]:smile:"


@pytest.fixture(autouse=True)
def _restore(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `main` sets for its process."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    monkeypatch.setattr(messages, "_verbose", False)


Main = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Main:
    """The console script in this process: its exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ampnet-opt", *map(str, arguments)])
        monkeypatch.setattr(cli, "_forget_output", lambda: None)  # stdout is pytest's
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


def write_engine(folder: Path, **changed: object) -> Path:
    """The directory of an engine whose plan is missing, which `inspect` shows all the same."""
    folder.mkdir()
    replace(SIDECAR, **changed).write(folder)  # type: ignore[arg-type]
    return folder


@given(st.text())
def test_a_message_is_one_printable_line_of_at_most_300_characters(text: str) -> None:
    for shown in (messages.message(text), messages.message(text * 100)):
        assert len(shown) <= LONGEST and (shown.isprintable() or not shown)
    assert messages.message("short") == "short"


def test_a_long_message_is_cut_and_shown_in_full_with_verbose(main: Main, tmp_path: Path) -> None:
    name = "n" * 200
    missing = tmp_path / name / name / name
    code, out, err = main("inspect", missing)
    assert (code, out) == (2, "") and len(err) <= LONGEST + 1 and err.count("\n") == 1
    assert err.startswith("error: ") and err.endswith("... (--verbose shows all)\n")
    for arguments in (
        ("--verbose", "inspect", missing),
        ("inspect", missing, "--verbose"),
        ("inspect", "--verbose", missing),
    ):
        code, _, err = main(*arguments)
        assert code == 2 and f"{missing} does not exist" in err


def test_verbose_after_two_dashes_is_a_file_name() -> None:
    assert verbose_first(["inspect", "a", "--verbose"]) == ["--verbose", "inspect", "a"]
    assert verbose_first(["inspect", "--", "--verbose"]) == ["inspect", "--", "--verbose"]
    assert verbose_first(["inspect", "a"]) == ["inspect", "a"]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (RecursionError("maximum recursion depth exceeded"), 1, "unexpected error: RecursionError: maximum"),
        (IndexError("list index out of range"), 1, "please report it: --verbose shows where it happened"),
        (ZeroDivisionError("x" * 5000), 1, "please report it: --verbose shows where it happened"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), 1, "unexpected error: UnicodeEncodeError"),
        (MemoryError(), 1, "memory is not enough"),
        (PermissionError(13, "Permission denied", f"/a{HOSTILE}"), 1, "the system refused a file: Permission denied"),
        (AmpnetError(HOSTILE * 100), 1, "shows all"),
        (MisuseError("wrong\nrequest"), 2, "wrong request"),
    ],
)
def test_whatever_goes_wrong_is_one_sentence(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, words: str
) -> None:
    def broken(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("ampnet_opt.runtime.sidecar.parse_sidecar", broken)
    found, _, err = main("inspect", tmp_path)
    assert found == code and words in err and err.startswith("error: ")
    assert err.count("\n") == 1 and len(err) <= LONGEST + 1 and err[:-1].isprintable() and "Traceback" not in err
    found, _, err = main("--verbose", "inspect", tmp_path)
    assert (
        found == code and err.startswith("Traceback") and "in broken" in err and err.splitlines()[-1].startswith("error: ")
    )


def test_text_of_an_engine_neither_steers_the_terminal_nor_is_taken_for_markup(main: Main, tmp_path: Path) -> None:
    odd = "\x1b[2Ja\rb\x9bc\u202ed[red]x[/]:smile:"
    engine = write_engine(tmp_path / "engine", classes=[odd, "[/]"], target={odd: odd}, built=odd)
    for options in ((), ("--layers",)):
        code, out, err = main("inspect", engine, *options)
        assert code == 1 and "was changed after it was built" in err
        assert all(line.isprintable() for line in [*out.splitlines(), *err.splitlines()])
        flat = "".join(out.split())
        assert "\\x1b[2Jab\\x9bc\\u202ed[red]x[/]:smile:,[/]" in flat
    _, out, _ = main("inspect", engine, "--json", "-")
    assert json.loads(out)["classes"] == [odd, "[/]"] and out.isascii()


def test_tables_show_what_they_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    table = Table("name", title="[b]t[/b]")
    for text in ("[red]x[/red]", "[/]", ":smile:", "\x1b[31mx", "a\rb"):
        table.add_row(text)
    console().print(table, "[bold]x[/bold]")
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("[b]t[/b]", "[red]x[/red]", "[/]", ":smile:", "\\x1b[31mx", "a\\rb", "[bold]x"))
    lines = shown.splitlines()
    assert all(line.isprintable() for line in lines)
    assert len({len(line) for line in lines[1:-1]}) == 1  # the frame stands where it stood


def test_the_names_of_steps_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    from ampnet_opt.core.progress import steps

    with steps() as step, step("[/]reading [red]x \x1b[2J", 1):
        pass
    shown = capsys.readouterr().err
    assert "[/]reading [red]x \\x1b[2J" in shown and "\x1b" not in shown


def test_warnings_of_libraries_and_of_the_log_are_remarks(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    main("--version")
    text = warnings.formatwarning(HOSTILE + "a\nb", UserWarning, "x.py", 1, "source()")  # type: ignore[arg-type]
    record = logging.LogRecord("ampnet_opt.x", logging.WARNING, "", 1, "%s: %d keys", (HOSTILE, 2), None)
    assert logging.lastResort is not None
    logging.lastResort.handle(record)
    for line in (text, capsys.readouterr().err):
        assert line.count("\n") == 1 and line[:-1].isprintable() and "source()" not in line and "x.py" not in line


def test_what_stdout_cannot_encode_is_escaped_and_not_lost() -> None:
    code = "from ampnet_opt.core.messages import *; speak_safely(); say('f\\u0142\\ud800')"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, env={"PYTHONIOENCODING": "latin-1"}, check=True)
    assert found.stdout.split() == [b"f\\u0142\\ud800"]


@linux
def test_a_full_disk_behind_stdout_is_an_error_and_not_a_traceback() -> None:
    command = [sys.executable, "-c", "from ampnet_opt.cli.main import main; main()", "--version"]
    with open("/dev/full", "w") as full:
        found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert found.returncode == 1
    assert found.stderr == "error: cannot write to standard output: No space left on device\n"


def test_the_command_that_builds_an_engine_again_is_quoted_for_a_shell() -> None:
    target = {"compute_capabilities": ["8.6; touch x", "$(id)"], "hardware_compatible": "a b", "version_compatible": True}
    words = shlex.split(rebuild_command(replace(SIDECAR, target=target)))
    assert words.count("--compute-capability") == 2 and {"8.6; touch x", "$(id)", "a b"} <= {*words}
    assert "--version-compatible" in words and "True" not in words


def test_the_command_that_shows_a_bundles_instructions_is_quoted_for_a_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ampnet_opt.bundling.targets import TARGETS, readme
    from ampnet_opt.cli.bundle import _say_bundle

    path = tmp_path / "my bundle; x.tar"
    path.touch()
    _say_bundle(path)
    assert shlex.split(capsys.readouterr().out.partition("do with it: ")[2]) == ["tar", "-xOf", str(path), "README.txt"]
    assert "build 'my bundle; x.tar' -o engines" in readme(TARGETS["cpu"], path.name, "a.whl", ["cpu-int8"])


def test_a_sidecar_is_named_in_what_is_wrong_with_it(main: Main, tmp_path: Path) -> None:
    engine = write_engine(tmp_path / "engine")
    (engine / NAME).write_text("[" * 100_000)
    code, _, err = main("inspect", engine)
    assert code == 1 and "is damaged (it is nested deeper than 40 levels); build the engine again" in err


def test_commands_speak_by_these_helpers_alone() -> None:
    """What goes past them is neither cut nor made printable."""
    import ampnet_opt
    from ampnet_opt import benchmarks

    past = []
    for package in (ampnet_opt, benchmarks):
        for file in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                echo = "typer.echo(" in line and "typer.echo(json.dumps(" not in line and file.name != "messages.py"
                if echo or (re.search(r"\bConsole\(", line) and file.name != "console.py"):
                    past.append(f"{file}:{number}: {line.strip()}")
    assert not past, "say, remark or console() of ampnet_opt is meant:\n" + "\n".join(past)
