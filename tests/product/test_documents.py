"""Files that the documents and the code name exist: modules and pages move, and what points to them must move with them."""

from __future__ import annotations

import re

import pytest
from places import ROOT

DOCUMENTS = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "ampnet_opt/shipped/MODEL_CARD.md",
    *sorted(str(file.relative_to(ROOT)) for file in (ROOT / "docs").rglob("*.md")),
]
FOLDERS = ("ampnet_opt", "benchmarks", "calibration", "convert", "runtime", "tests", "tools")
PATH = re.compile(r"\b(?:ampnet_opt|benchmarks|calibration|convert|docs|runtime|tests|tools)/[\w./-]*[\w-]\.(?:py|md)\b")
PAGE = re.compile(r"\bdocs/[\w./-]*[\w-]\.md\b")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s#]+)(?:#[^)\s]*)?\)")


def _text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def _named(document: str) -> set[str]:
    return set(PATH.findall(_text(document)))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_names_exists(document: str) -> None:
    assert [name for name in sorted(_named(document)) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file(document: str) -> None:
    """As the repository is read; `mkdocs build --strict` follows those of the site, with their anchors."""
    links = [link for link in LINK.findall(_text(document)) if "://" not in link]
    assert [link for link in links if not ((ROOT / document).parent / link).exists()] == []


def test_every_page_that_the_code_names_exists() -> None:
    files = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
    named = {
        (str(file.relative_to(ROOT)), page) for file in files for page in PAGE.findall(file.read_text(encoding="utf-8"))
    }
    assert len(named) > 5
    assert [where for where in sorted(named) if not (ROOT / where[1]).exists()] == []


def test_the_evidence_of_the_security_promises_is_named() -> None:
    assert sum(name.startswith("tests/") for name in _named("SECURITY.md")) > 10


def test_the_readme_is_short_and_shows_each_command() -> None:
    from ampnet_opt.cli.main import COMMANDS

    readme = _text("README.md")
    assert len(readme.splitlines()) <= 170
    assert [name for name in COMMANDS if f"docs/reference/{name}.md" not in readme] == []
