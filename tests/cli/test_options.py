"""Options over all commands: one meaning each, limits that are enforced, choices that are those of the library."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
from console_script import ampnet
from typer.testing import CliRunner

from ampnet_opt.benchmarks import bench
from ampnet_opt.benchmarks.compare import require_positive
from ampnet_opt.bundling.targets import TARGETS
from ampnet_opt.calibration.ranges import METHODS
from ampnet_opt.cli import options
from ampnet_opt.cli.benchmark import ALONE, WITH_PIPELINE
from ampnet_opt.cli.main import COMMANDS, application
from ampnet_opt.cli.sensitivity import Mode, Units
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.graph_interface import IMAGE_SHAPES
from ampnet_opt.datasets.registry import NAMES
from ampnet_opt.network.model import Config
from ampnet_opt.pipeline.pipeline import MIN_FACE, SMOOTH
from ampnet_opt.preparing.prepare import prepare
from ampnet_opt.runtime.backend import REGISTERED
from ampnet_opt.runtime.compile_options import HARDWARE, BuilderOptions
from ampnet_opt.runtime.sidecar import BatchRange
from ampnet_opt.sensitivity.analysis import Kind
from ampnet_opt.sensitivity.analysis import Mode as LibraryMode
from ampnet_opt.training.recipe import TrainingRecipe

TREE: dict[str, Any] = typer.main.get_group(application()).commands
WIDE = {"COLUMNS": "1000", "TERM": "dumb"}


def kinds_of(hint: Any) -> set[Any]:
    """int of int, Optional[int] and List[int]."""
    return {kind for kind in (get_args(hint) or (hint,)) if kind is not type(None)}


def declared() -> list[tuple[str, str, Any, Any]]:
    """Of each option: its command, its flag, what it is in Python, and what typer was told of it."""
    found = []
    for name, command in TREE.items():
        hints, parameters = get_type_hints(command.callback), inspect.signature(command.callback).parameters
        for parameter in command.params:
            if parameter.name in parameters and parameter.param_type_name == "option":
                (kind,) = kinds_of(hints[parameter.name])
                found.append((name, parameter.opts[0], kind, parameters[parameter.name].default))
    return found


DECLARED = declared()
LIMITS = [
    (command, option, bound, limit)
    for command, option, kind, told in DECLARED
    if kind in (int, float)
    for bound, limit in (("min", told.min), ("max", told.max))
    if limit is not None
]
# Flag -> the bounds that it has not, since what is beyond them means something or is refused only by the work itself.
OPEN = {
    "--max-drop": {"max"},  # 100 points are all there are, and 200 as good
    "--min-sqnr": {"min", "max"},  # dB
    "--faces": {"max"},  # all there are
    "--dla": {"max"},  # the machine says how many it has
    "--width": {"min"},  # over 0, which typer cannot say
    "--rate": {"min"},
}


def test_the_commands_are_those_of_the_help() -> None:
    assert tuple(TREE) == COMMANDS
    assert {"build", "run", "compare", "train"} <= {command for command, *_ in DECLARED}


def test_an_option_is_the_same_kind_of_value_in_every_command() -> None:
    kinds: dict[str, set[Any]] = {}
    for _, option, kind, _ in DECLARED:
        kinds.setdefault(option, set()).add(kind)
    kinds.pop("--pipeline")  # benchmark has to be given a source, compare has the faces of --data
    assert {option: kind for option, kind in kinds.items() if len(kind) > 1} == {}
    assert kinds["--json"] == kinds["--picture"] == {Path} and kinds["--faces"] == kinds["--batch"] == {int}


def test_every_number_has_limits_or_is_known_to_have_none() -> None:
    for command, option, kind, told in DECLARED:
        if kind in (int, float):
            lacking = {bound for bound in ("min", "max") if getattr(told, bound) is None}
            assert lacking == OPEN.get(option, set()), (command, option)


@pytest.mark.parametrize(("command", "option", "bound", "limit"), LIMITS)
def test_a_limit_is_in_the_help_and_is_enforced(command: str, option: str, bound: str, limit: float) -> None:
    app = application([command])
    shown = CliRunner().invoke(app, [command, "--help"], env=WIDE).output
    (line,) = [line for line in shown.splitlines() if line.lstrip("│ *").startswith(f"{option} ")]
    assert f"{limit}" in line
    beyond = limit - 1 if bound == "min" else limit + 1
    needed = [word for parameter in TREE[command].params if parameter.required for word in given(parameter, option)]
    result = CliRunner().invoke(app, [command, *needed, f"{option}={beyond}"], env=WIDE)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.exception
    assert f"Invalid value for '{option}'" in result.output


def given(parameter: Any, option: str) -> list[str]:
    value = "cpu" if parameter.opts[0] == "--target" else "x"
    if parameter.param_type_name == "argument":
        return [value]
    return [] if option in parameter.opts else [parameter.opts[0], value]


def config(**fields: Any) -> None:
    """The network's; it refuses in the words of Python."""
    try:
        Config(7, **fields)
    except ValueError as error:
        raise MisuseError(str(error)) from error


# What the library enforces by itself: (command, option) -> what takes such a value, or raises MisuseError.
LIBRARY: dict[tuple[str, str], Callable[[Any], object]] = {
    ("build", "--workspace"): lambda value: BuilderOptions(workspace=value),
    ("build", "--optimization-level"): lambda value: BuilderOptions(optimization_level=value),
    ("build", "--dla"): lambda value: BuilderOptions(dla_core=value),
    ("build", "--min-batch"): lambda value: BatchRange(value, max(value, 1), options.LARGEST_BATCH),
    ("build", "--opt-batch"): lambda value: BatchRange(1, value, max(value, 1)),
    ("build", "--max-batch"): lambda value: BatchRange(1, 1, value),
    ("build", "--static-batch"): lambda value: BatchRange(value, value, value),
    ("build", "--patch-radius"): lambda value: config(patch_radius=value),
    ("init", "--width"): lambda value: config(width=value),
    ("train", "--width"): lambda value: config(width=value),
    ("train", "--rate"): lambda value: TrainingRecipe(rate=value),
}


@pytest.mark.parametrize(("command", "option"), LIBRARY)
def test_a_limit_is_that_of_the_library(command: str, option: str) -> None:
    (told,) = [told for name, flag, _, told in DECLARED if (name, flag) == (command, option)]
    takes, open_at_zero = LIBRARY[command, option], "min" in OPEN.get(option, ()) and option != "--min-sqnr"
    for limit, step in ((told.min, -1), (told.max, 1)):
        if limit is not None:
            takes(limit)
            with pytest.raises(MisuseError):
                takes(limit + step)
    if open_at_zero:
        takes(1e-6)
        with pytest.raises(MisuseError):
            takes(0.0)
        assert "over 0 " in told.help


def test_the_fewest_runs_and_processes_are_those_of_the_library(tmp_path: Path) -> None:
    least = {(command, option): told.min for command, option, _, told in DECLARED if option in ("--runs", "--workers")}
    assert least["benchmark", "--runs"] == bench.FEWEST_RUNS
    with pytest.raises(MisuseError, match=f"at least {bench.FEWEST_RUNS}"):
        bench.benchmark([], [1], runs=bench.FEWEST_RUNS - 1)
    assert least["compare", "--runs"] == least["report", "--runs"] == 1
    require_positive(runs=1)
    with pytest.raises(MisuseError):
        require_positive(runs=0)
    assert least["prepare", "--workers"] == 1
    with pytest.raises(MisuseError):
        prepare([object()], tmp_path, workers=0)  # type: ignore[list-item]


def values(choices: type[Enum]) -> list[str]:
    return [member.value for member in choices]


def test_choices_are_those_of_the_library() -> None:
    assert values(options.CalibrationMethod) == list(METHODS)
    assert values(options.ImageInput) == list(IMAGE_SHAPES)
    assert values(options.Hardware) == list(HARDWARE)
    assert values(Units) == list(get_args(Kind))
    assert values(Mode) == list(get_args(LibraryMode))
    shown = CliRunner().invoke(application(["bundle"]), ["bundle", "--help"], env=WIDE).output
    assert all(name in shown for name in TARGETS)


@pytest.mark.parametrize(
    ("option", "words", "allowed"),
    [
        ("--backend", ["build"], list(REGISTERED)),
        ("--calibration", ["build"], list(METHODS)),
        ("--hardware-compatible", ["build"], list(HARDWARE)),
        ("--target", ["bundle"], list(TARGETS)),
        ("--units", ["sensitivity"], ["layer", "block"]),
        ("--format", ["prepare"], list(NAMES)),
    ],
)
def test_a_choice_is_completed_and_nothing_else_taken(option: str, words: list[str], allowed: list[str]) -> None:
    line = ["ampnet-opt", *words, option]
    asked = {"_AMPNET_OPT_COMPLETE": "complete_bash", "COMP_WORDS": f"{' '.join(line)} ", "COMP_CWORD": str(len(line))}
    assert ampnet(variables=asked).stdout.split() == allowed
    needed = ["x", "-o", "x"] if words == ["prepare"] else []
    result = CliRunner().invoke(application(words), [*words, *needed, option, "abacus"])
    assert isinstance(result.exception, MisuseError)
    assert str(result.exception) == f"{option} takes {', '.join(allowed)}, not 'abacus'"


def test_commands_are_completed() -> None:
    asked = {"_AMPNET_OPT_COMPLETE": "complete_bash", "COMP_WORDS": "ampnet-opt b", "COMP_CWORD": "1"}
    assert set(ampnet(variables=asked).stdout.split()) == {"build", "benchmark", "bundle"}


@pytest.mark.parametrize("name", COMMANDS)
def test_many_options_stand_in_named_panels(name: str) -> None:
    found = {option: told.rich_help_panel for command, option, _, told in DECLARED if command == name}
    if len(found) > 8:
        assert [option for option, panel in found.items() if panel is None] == []
        assert len(set(found.values())) > 1


def test_defaults_of_run_are_those_of_the_pipeline() -> None:
    defaults = {parameter.name: parameter.default for parameter in TREE["run"].params}
    assert (defaults["min_face"], defaults["smooth"]) == (MIN_FACE, SMOOTH)


def test_options_of_the_benchmark_that_shape_the_pipeline_are_known_by_name() -> None:
    known = {parameter.name for parameter in TREE["benchmark"].params}
    assert known >= ALONE | WITH_PIPELINE
