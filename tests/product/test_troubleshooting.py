"""docs/troubleshooting.md has a line for every error that the code can raise and every warning that it can log, and no line
for one that it cannot."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from itertools import product

import pytest
from places import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
FOLDERS = ("ampnet_opt", "benchmarks", "calibration", "convert", "runtime")
ANY = "…"  # what differs from one message to the next
# Messages that other code puts together, by the expression that is raised.
ELSEWHERE = {
    "_message": "landmarks that cannot be a face's",
    "_look_like": "…, --landmarks-format pixels takes them as they are",
    "not_a_choice": "… takes …, not …",
}

WARN = ("log.warning", "warn")  # the second is given to `warn_of_memory`
# Where messages stand that are no argument of an error.
SAID = ("core/messages.py", "core/files.py", "cli/main.py", "cli/benchmark.py", "pipeline/view/address.py")
# Where warnings stand that are no argument of the call that gives them.
WARNINGS = ("core/labels.py", "calibration/histogram.py")

SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef)
TEXTS = (ast.Constant, ast.JoinedStr, ast.IfExp, ast.BinOp)


class Sources:
    """The modules of the package, and which classes are errors that a user sees."""

    def __init__(self) -> None:
        files = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py") if not file.is_symlink()]
        self.trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
        self.errors = {
            "AmpnetError",
            "MisuseError",
            "ZipError",
            "UnwrapError",
        }  # the last two are shown behind a file's name
        classes = [node for tree in self.trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        for _ in range(3):  # as deep as they are derived from each other
            for one in classes:
                if any(isinstance(base, ast.Name) and base.id in self.errors for base in one.bases):
                    self.errors.add(one.name)

    def raised(self) -> list[tuple[str, str]]:
        """(file:line, message) of every error that is made, `ANY` in place of what is filled in."""
        return self._said(lambda call: _name(call.func) in self.errors)

    def warned(self) -> list[tuple[str, str]]:
        """Likewise of every warning that is logged."""
        said = self._said(lambda call: ast.unparse(call.func) in WARN)
        return [(place, re.sub(r"%[.\d]*[sdf]", ANY, text)) for place, text in said]

    def _said(self, counts: Callable[[ast.Call], bool]) -> list[tuple[str, str]]:
        """(file:line, text) of the first arguments of those calls that count."""
        found = []
        for file, tree in self.trees.items():
            place = file.relative_to(ROOT)
            # In the innermost function: `ast.walk` goes from the outside to the inside.
            functions = {
                id(node): scope for scope in ast.walk(tree) if isinstance(scope, SCOPES) for node in ast.walk(scope)
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and node.args and counts(node):
                    words = {**_assigned(tree.body), **_assigned(ast.walk(functions.get(id(node), tree)))}
                    found += [(f"{place}:{node.lineno}", text) for text in _texts(node.args[0], words)]
        return found


def _assigned(nodes: Iterable[ast.AST]) -> dict[str, ast.expr]:
    """Names that are set to texts, and the expressions."""
    sets = [node for node in nodes if isinstance(node, ast.Assign) and isinstance(node.value, TEXTS)]
    return {target.id: node.value for node in sets for target in node.targets if isinstance(target, ast.Name)}


def _name(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""


def _texts(node: ast.expr, words: dict[str, ast.expr]) -> list[str]:
    """What an expression can say. words: names that stand for texts."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.FormattedValue):
        return _texts(node.value, words) if isinstance(node.value, ast.Name) else [ANY]
    if isinstance(node, ast.JoinedStr):
        return ["".join(parts) for parts in product(*(_texts(part, words) for part in node.values))]
    if isinstance(node, ast.BinOp):
        return ["".join(parts) for parts in product(_texts(node.left, words), _texts(node.right, words))]
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body, words), *_texts(node.orelse, words)]
    if isinstance(node, ast.Name) and node.id in words:
        return _texts(words[node.id], {name: value for name, value in words.items() if name != node.id})
    if isinstance(node, ast.Call) and _name(node.func) == "one_line":
        return _texts(node.args[0], words)
    if isinstance(node, ast.Call) and _name(node.func) in ELSEWHERE:
        return [ELSEWHERE[_name(node.func)]]
    return [ANY]


def patterns(warnings: bool = False) -> list[str]:
    """The errors of the page, or its warnings: what stands in backquotes in the first cell of its tables."""
    sections = re.split("^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line for text in sections if text.startswith("Warnings") == warnings for line in text.splitlines()]
    rows = [line.split(" | ")[0] for line in lines if line.startswith("| `")]
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row)]


def matches(pattern: str, message: str) -> bool:
    return re.search(".*".join(map(re.escape, pattern.split(ANY))), message, re.DOTALL) is not None


@pytest.fixture(scope="module")
def raised() -> list[tuple[str, str]]:
    return Sources().raised()


@pytest.fixture(scope="module")
def warned() -> list[tuple[str, str]]:
    return Sources().warned()


def without_a_line(said: list[tuple[str, str]], known: list[str]) -> list[str]:
    readable = [(place, text) for place, text in said if text.strip(ANY + " ")]
    return [f"{place}: {text}" for place, text in readable if not any(matches(pattern, text) for pattern in known)]


def test_every_error_has_a_line(raised: list[tuple[str, str]]) -> None:
    assert len(raised) > 400
    assert without_a_line(raised, patterns()) == []
    assert without_a_line([("new.py:1", f"the moon is in {ANY}")], patterns()) != []


def test_every_warning_has_a_line(warned: list[tuple[str, str]]) -> None:
    assert len(warned) > 30
    assert without_a_line(warned, patterns(warnings=True)) == []


def test_few_messages_are_put_together_elsewhere(raised: list[tuple[str, str]], warned: list[tuple[str, str]]) -> None:
    """Their text cannot be read off the line that says them."""
    assert [len([text for _, text in said if not text.strip(ANY + " ")]) for said in (raised, warned)] == [12, 3]


def test_every_line_is_of_a_message_that_the_code_has(raised: list[tuple[str, str]], warned: list[tuple[str, str]]) -> None:
    """Of an error, of what `core.messages` says of other exceptions, or of a warning."""
    said = [text for _, text in raised]
    said += [(ROOT / "ampnet_opt" / name).read_text(encoding="utf-8") for name in SAID]
    assert [pattern for pattern in patterns() if not any(matches(pattern, text) for text in said)] == []
    texts = [text for _, text in warned] + [(ROOT / "ampnet_opt" / name).read_text(encoding="utf-8") for name in WARNINGS]
    assert [one for one in patterns(warnings=True) if not any(matches(one, text) for text in texts)] == []


def test_no_line_is_of_everything() -> None:
    assert [one for one in patterns() + patterns(warnings=True) if len(one) - one.count(ANY) - one.count(" ") < 5] == []
