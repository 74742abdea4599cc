"""Files that the documents name exist: modules and tests move, and what points to them must move with them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")),
]
PATH = re.compile(r"\b(?:ampnet_opt|benchmarks|calibration|convert|docs|runtime|tests|tools)/[\w./-]*[\w-]\.(?:py|md)\b")


def _named(document: str) -> set[str]:
    return set(PATH.findall((ROOT / document).read_text(encoding="utf-8")))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_names_exists(document: str) -> None:
    assert [name for name in sorted(_named(document)) if not (ROOT / name).exists()] == []


def test_the_evidence_of_the_security_promises_is_named() -> None:
    assert sum(name.startswith("tests/") for name in _named("SECURITY.md")) > 10
