"""Accuracy of engines out of a file of `ampnet-opt compare --json`, to stand beside their latency. Python 3.8."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Sequence

from ampnet_opt.benchmarks.compare import engine_subjects
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.field_types import require_types
from ampnet_opt.core.json_files import read_json
from ampnet_opt.core.metrics import Estimate
from ampnet_opt.core.text import describe, listed
from ampnet_opt.runtime.sidecar import read_sidecar


def read_accuracy(path: Path, engines: Sequence[Path]) -> Dict[str, Estimate]:
    """Top-1 of those of `engines` that the file has, by the name that a benchmark gives them.

    Raises MisuseError when the file is none of compare's, has none of them, or is about another checkpoint than an engine's.
    """
    try:
        content = read_json(path, "comparison")
        checkpoint = str(content["checkpoint_sha256"])
        known = {result["name"]: Estimate(**result["accuracy"]["top1"]) for result in content["results"]}
        require_types(known, Dict[str, Estimate], "results")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MisuseError(f"{path} is no file of ampnet-opt compare --json ({describe(error)})") from error
    found = {}
    for subject in engine_subjects(engines, 1):
        if subject.name in known:
            if read_sidecar(subject.path).checkpoint_sha256 != checkpoint:
                raise MisuseError(f"{path} is about another checkpoint than engine {subject.path}: run compare again")
            found[subject.name] = known[subject.name]
    if not found:
        raise MisuseError(f"{path} has none of these engines; it has {listed(known, 8)}")
    return found
