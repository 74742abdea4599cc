"""The documentation as a site: built without a warning, complete, and without a request to another server."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from ampnet_opt.cli.main import COMMANDS, application

pytest.importorskip("mkdocs", reason="needs the extra [docs]")
pytest.importorskip("mkdocstrings", reason="needs the extra [docs]")

# What a browser fetches by itself; a link that a reader has to click is no request.
FETCHED = re.compile(
    r"<(?:link|script|img|source|iframe|video|audio|object|embed)\b[^>]*?\b(?:href|src|data)=[\"']?([^\"'\s>]+)"
)
IMPORTED = re.compile(r"(?:@import\s+|url\()[\"']?((?:https?:)?//[^\"')\s]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(place)]
    variables = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def text_of(page: Path) -> str:
    """What a page says, without its markup."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))).split())


def plain(text: str) -> str:
    """Without what only lays it out: rich's escapes, marks of code."""
    return " ".join(text.split()).replace("\\", "").replace("`", "")


def test_no_page_asks_another_server_for_anything(site: Path) -> None:
    pages = [*site.rglob("*.html")]
    assert len(pages) > 30
    fetched = {(page.name, url) for page in pages for url in FETCHED.findall(page.read_text(encoding="utf-8"))}
    assert any(url.endswith(".css") for _, url in fetched)
    assert [one for one in sorted(fetched) if "//" in one[1]] == []
    styles = {(file.name, url) for file in site.rglob("*.css") for url in IMPORTED.findall(file.read_text(encoding="utf-8"))}
    assert sorted(styles) == []


def test_a_foreign_request_would_be_found() -> None:
    assert FETCHED.findall('<link rel="stylesheet" href="https://fonts.example/css">') == ["https://fonts.example/css"]
    assert FETCHED.findall("<script async src=//cdn.example/x.js>") == ["//cdn.example/x.js"]
    assert IMPORTED.findall("@font-face{src:url(https://a.example/b.woff)}") == ["https://a.example/b.woff"]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_of_a_command_is_on_its_page(site: Path, name: str) -> None:
    import typer

    command = typer.main.get_group(application()).commands[name]
    shown = text_of(site / "reference" / f"{name}.html")
    options = [option for parameter in command.params for option in parameter.opts if option not in ("--help",)]
    assert [option for option in options if option.startswith("-") and option not in shown] == []
    helps = [plain(parameter.help) for parameter in command.params if "--help" not in parameter.opts]
    assert [text for text in helps if text not in plain(shown)] == []


def test_the_api_page_shows_arguments_and_errors(site: Path) -> None:
    shown = text_of(site / "reference" / "python.html")
    for wanted in ("infer_each", "Raises", "MisuseError", "load_detector", "Pipeline", "bundle_checkpoint", "min_face"):
        assert wanted in shown
