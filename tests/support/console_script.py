"""The console script as a child process, and what its tests ask of what it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ampnet_opt.faces.face import COLUMNS

SCRIPT = Path(sys.executable).with_name("ampnet-opt")
COMMAND = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-c", "from ampnet_opt.cli.main import main; main()"]


def ampnet(*arguments: object, variables: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200", "TERM": "dumb", **(variables or {})}
    options = {"timeout": 120, **options}
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)


def succeeds(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    result = ampnet(*arguments, **options)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    return result


def fails(code: int, words: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run what must end with `code` and one sentence on stderr that holds `words`."""
    result = ampnet(*arguments, **options)
    said = result.stderr.strip().splitlines()
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    sentences = [line for line in said if line.startswith("error: ")]
    if any(line.startswith("Usage: ") for line in said):
        assert words in result.stderr
    else:
        assert len(sentences) == 1, result.stderr
        assert said[-1] == sentences[0]
        assert words in sentences[0], sentences[0]
        assert sentences[0].removeprefix("error: ").strip()
    return result


def left_in(folder: Path) -> list[str]:
    """Everything under `folder`, hidden files too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def write_csv(path: Path, rows: list[list[object]], header: list[str] | None = None) -> Path:
    header = ["file", "label", "split", *COLUMNS] if header is None else header
    lines: list[list[Any]] = [header, *rows]
    path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines), encoding="utf-8")
    return path
