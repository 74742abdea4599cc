"""The command line: options in, one function call, results out. A command imports what it needs when it runs."""

from __future__ import annotations

import contextlib
import os
import sys
from importlib import import_module
from typing import Sequence

import typer

from ampnet_opt import __version__
from ampnet_opt.cli.group import Commands, verbose_first
from ampnet_opt.core.messages import fail, say, set_verbose, speak_safely

# In the order of the help; each is the function of its name in the module of its name.
COMMANDS = (
    "init",
    "export",
    "build",
    "run",
    "compare",
    "benchmark",
    "doctor",
    "inspect",
    "bundle",
    "prepare",
    "train",
    "sensitivity",
    "report",
)


def application(words: Sequence[str] = ()) -> typer.Typer:
    """The commands; of words that begin with one of them, this one alone, since reading the options of all takes longer
    than most commands take to start."""
    app = typer.Typer(
        name="ampnet-opt",
        cls=Commands,
        help="AMP-Net facial expressions: from a PyTorch checkpoint to the fastest engine that is still right.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback(invoke_without_command=True)(_options)
    first = next((word for word in words if not word.startswith("-")), "")
    for name in [first] if first in COMMANDS else COMMANDS:
        app.command()(getattr(import_module(f"ampnet_opt.cli.{name}"), name))
    return app


def _options(
    version: bool = typer.Option(False, "--version", help="Show the version."),
    verbose: bool = typer.Option(
        False,
        "--verbose",
        help="Show messages in full, and where in the program an error occurred. Before or after the command.",
    ),
) -> None:
    set_verbose(verbose)
    if version:
        say(f"ampnet-opt {__version__}")
        raise typer.Exit()


def main() -> None:
    """Entry point of the console script: errors become one sentence and an exit code."""
    speak_safely()
    try:
        try:
            words = verbose_first(sys.argv[1:])
            application(words)(words)
        finally:
            sys.stdout.flush()  # while a full disk can still be told of
    except BrokenPipeError:
        # The reader of our output went away: not an error of ours, and no more can be said.
        _forget_output()
        sys.exit(1)
    except Exception as error:
        code = fail(error)
        _forget_output()
        sys.exit(code)


def _forget_output() -> None:
    """Keep Python from writing once more, at its end, what stdout did not take."""
    with contextlib.suppress(OSError, ValueError):  # closed, or no file of the system's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
