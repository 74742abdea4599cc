"""The help of every command says what its source says."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ampnet_opt.cli.main import application

plain = typer.main.get_group(application())
NAMES = sorted(plain.commands)


def words(text: str) -> str:
    """`text` without what only lays it out."""
    return "".join(char for char in text if not char.isspace() and char not in "│╭╮╰╯─┃")


def rendered(*arguments: str) -> str:
    result = CliRunner().invoke(application(), [*arguments, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    return result.output


def written(command: Any) -> list[str]:
    """Help texts as they stand in the source: those of the parsed command carry escapes for rich."""
    from rich.text import Text

    texts = [getattr(parameter, "help", None) for parameter in command.params]
    return [Text.from_markup(text).plain for text in [command.help, *texts] if text]


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_every_text_in_full(name: str) -> None:
    shown = words(rendered(name))
    for text in written(plain.commands[name]):
        assert words(text) in shown, text


def test_square_brackets_survive() -> None:
    assert "CenterFace of [detect]" in rendered("prepare")
    assert "uint8 [N, 224, 224, 3] or float32 [N, 3, 224, 224]" in rendered("export")
    assert "[CKPT_OR_BUNDLE]" in rendered("build")


def test_help_shows_no_escapes() -> None:
    assert all("\\" not in rendered(name) for name in NAMES)
    assert "\\" not in rendered()


def test_help_without_rich_shows_no_escapes_either() -> None:
    code = "import sys; sys.argv = ['ampnet-opt', 'prepare', '--help']; from ampnet_opt.cli.main import main; main()"
    environment = {"TYPER_USE_RICH": "0", "COLUMNS": "200", "TERM": "dumb"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "CenterFace of [detect]" in " ".join(found.stdout.split()) and "\\" not in found.stdout


def test_verbose_is_in_the_help() -> None:
    assert "--verbose" in rendered()
