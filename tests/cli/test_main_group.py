"""Numbers that no machine can do anything with: each option that takes one says so in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from ampnet_opt.benchmarks.compare import FACE_MEMORY, require_memory
from ampnet_opt.cli.main import application
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.runtime.compile_options import LARGEST_WORKSPACE, BuilderOptions
from ampnet_opt.runtime.tensorrt.host_memory import memory_available
from ampnet_opt.training.recipe import TrainingRecipe

COMMANDS: dict[str, Any] = typer.main.get_group(application()).commands
NO_FLOATS = ["nan", "inf", "-inf", "1e400", "9" * 5000]
NO_INTEGERS = [str(10**30), "9" * 5000, "-" + "9" * 400]


def numeric() -> list[tuple[str, str, list[str]]]:
    """Each command's options whose value is a number, with values that none can take."""
    found = []
    for name, command in COMMANDS.items():
        hints = get_type_hints(command.callback)
        for parameter in command.params:
            kinds = {hints.get(parameter.name), *get_args(hints.get(parameter.name))} & {int, float}
            if kinds:
                found.append((name, parameter.opts[0], NO_FLOATS if float in kinds else NO_INTEGERS))
    return found


NUMERIC = numeric()


def needed(command: str, option: str, value: str) -> list[str]:
    """What else must be given, all of it as `value` but for a choice."""
    words = []
    for parameter in COMMANDS[command].params:
        if parameter.required and option not in parameter.opts:
            given = "cpu" if parameter.opts[0] == "--target" else value
            words += [parameter.opts[0], given] if parameter.param_type_name == "option" else [given]
    return words


def test_every_command_with_numbers_is_here() -> None:
    found = {(name, option) for name, option, _ in NUMERIC}
    assert {name for name, _ in found} >= {"init", "build", "run", "compare", "benchmark", "bundle", "train", "prepare"}
    assert {("train", "--rate"), ("build", "--dla"), ("init", "--seed"), ("report", "--batch")} <= found


@pytest.mark.parametrize(("command", "option", "absurd"), NUMERIC)
def test_no_option_takes_an_absurd_number(tmp_path: Path, command: str, option: str, absurd: list[str]) -> None:
    for value in absurd:
        words = [command, *needed(command, option, str(tmp_path / "x")), f"{option}={value}"]
        result = CliRunner().invoke(application([command]), words, env={"COLUMNS": "1000", "TERM": "dumb"})
        assert result.exit_code == 2 and isinstance(result.exception, SystemExit), (words, result.exception)
        sentence = next(line for line in result.output.splitlines() if "Invalid value" in line)
        assert option in sentence and len(sentence.strip("│ ")) < 400


def test_a_batch_beyond_this_machines_memory_is_refused_before_anything_is_allocated() -> None:
    free = memory_available()
    if free is None:
        pytest.skip("this system does not say how much memory is free")
    with pytest.raises(MisuseError, match="GB of memory or more"):
        require_memory(2 * free // FACE_MEMORY)
    require_memory(1)


@pytest.mark.parametrize("rate", [0.0, -0.1, 10.5, 1e30, float("nan"), float("inf")])
def test_a_learning_rate_that_trains_nothing_is_refused(rate: float) -> None:
    with pytest.raises(MisuseError, match="learning rate is over 0 and at most 10"):
        TrainingRecipe(rate=rate)


def test_a_workspace_is_a_number_that_the_library_can_be_told() -> None:
    BuilderOptions(workspace=LARGEST_WORKSPACE)
    for workspace in (0, -1, LARGEST_WORKSPACE + 1, 1 << 53):
        with pytest.raises(MisuseError, match="a number of MiB from 1 to"):
            BuilderOptions(workspace=workspace)
