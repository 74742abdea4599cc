"""The command line: options in, one function call, results out. A command imports what it needs when it runs."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
from contextlib import contextmanager, suppress
from enum import Enum
from importlib import import_module
from typing import Any, Iterator, List, Sequence, get_args, get_type_hints

import typer
import typer.core

from ampnet_opt import __version__
from ampnet_opt.cli.options import LARGEST_INTEGER, not_a_choice
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.messages import (
    VERBOSE,
    fail,
    message,
    remark,
    replace_closed_streams,
    say,
    set_verbose,
    speak_safely,
    stdout_named,
)
from ampnet_opt.core.stopping import signals_stop

STOPPED = "stopped; nothing was left half-written"
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]  # click's, which newer versions of typer carry within themselves


class Commands(typer.core.TyperGroup):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for command in [self, *self.commands.values()]:
            _harden(command)

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _usage_errors_as_messages():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Ctrl-C, SIGTERM and SIGHUP are answered here: further out, typer ends the program in silence."""
        with signals_stop() as stopped:
            try:
                with _usage_errors_as_messages():
                    return super().invoke(ctx)
            except KeyboardInterrupt as stop:
                with suppress(OSError):  # the terminal may be what went away
                    remark(str(stop) or STOPPED)
                raise typer.Exit(stopped.exit_code) from None


def verbose_first(arguments: Sequence[str]) -> List[str]:
    """Command-line arguments with a `--verbose` behind the command, but before any "--", moved to where it is an option."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    others = [word for word in arguments[:end] if word != VERBOSE]
    return [*([VERBOSE] if len(others) < end else []), *others, *arguments[end:]]


@contextmanager
def _usage_errors_as_messages() -> Iterator[None]:
    """What click says of a wrong option repeats its value, whatever it holds."""
    try:
        yield
    except USAGE_ERROR as error:
        error.message = message(error.message)
        raise


def _harden(command: Any) -> None:
    """Show the command's help as it is written, and let its numbers be numbers."""
    # Only typer with rich takes what stands in square brackets for markup.
    if getattr(typer.core, "HAS_RICH", True) and command.rich_markup_mode == "rich":
        command.help = _literal(command.help)
        command.short_help = _literal(command.short_help)
        for parameter in command.params:
            parameter.help = _literal(getattr(parameter, "help", None))
    for parameter in command.params:
        parameter.process_value = _bounded(command, parameter, parameter.process_value)


def _literal(help_text: Any) -> Any:
    """The markup that rich shows as `help_text`; None stays None."""
    from rich.markup import escape

    return None if help_text is None else escape(help_text)


def _bounded(command: Any, parameter: Any, process_value: Any) -> Any:
    """`process_value` of a parameter, which also refuses NaN, infinity and whole numbers beyond `LARGEST_INTEGER`.

    What is no choice of an enum is refused in our own words.
    """

    def bounded(ctx: Any, value: Any) -> Any:
        try:
            number = process_value(ctx, value)
        except typer.BadParameter as error:
            choices = _choices(command, parameter)
            if choices is None:
                raise
            raise MisuseError(not_a_choice(parameter.opts[0], choices, value)) from error
        if isinstance(number, float) and not math.isfinite(number):
            raise typer.BadParameter(f"{value!r} is not a finite number.", ctx, parameter)
        if isinstance(number, int) and abs(number) > LARGEST_INTEGER:
            raise typer.BadParameter(f"{value!r} is too large.", ctx, parameter)
        return number

    return bounded


def _choices(command: Any, parameter: Any) -> Any:
    """The values of a parameter that is an enum, else None.

    They come from the annotation, since typer's own types change with its versions.
    """
    if command.callback is None:
        return None
    hint = get_type_hints(command.callback).get(parameter.name)
    enums = [kind for kind in (hint, *get_args(hint)) if isinstance(kind, type) and issubclass(kind, Enum)]
    return [member.value for member in enums[0]] if enums else None


# In the order of the help; each is the function of its name in the module of its name, with _ for -.
COMMANDS = (
    "doctor",
    "run",
    "prepare",
    "train",
    "init",
    "export",
    "build",
    "optimize",
    "compare",
    "benchmark",
    "sensitivity",
    "report",
    "inspect",
    "bundle",
    "serve-files",
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
    for command in [first] if first in COMMANDS else COMMANDS:
        name = command.replace("-", "_")
        app.command(command)(getattr(import_module(f"ampnet_opt.cli.{name}"), name))
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
    replace_closed_streams()  # before any file is opened
    speak_safely()
    try:
        try:
            words = verbose_first(sys.argv[1:])
            application(words)(words)
        finally:
            with stdout_named():
                sys.stdout.flush()  # while a full disk can still be told of
    except BrokenPipeError:
        # The reader of our output went away: not an error of ours, and no more can be said.
        _forget_output()
        sys.exit(1)
    except KeyboardInterrupt:  # while the command is still being set up
        remark(STOPPED)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        code = fail(error)
        _forget_output()
        sys.exit(code)


def _forget_output() -> None:
    """Keep Python from writing once more, at its end, what stdout did not take."""
    with contextlib.suppress(OSError, ValueError):  # closed, or no file of the system's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
