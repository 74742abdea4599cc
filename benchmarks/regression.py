"""A benchmark against an older one: what has become slower, where noise and machine allow to say so. Python 3.8."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ampnet_opt.benchmarks.bench import FORMAT, Bench
from ampnet_opt.benchmarks.bench_noise import Interval
from ampnet_opt.benchmarks.compare import engine_subjects
from ampnet_opt.benchmarks.power import device_of
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.field_types import require_types
from ampnet_opt.core.json_files import read_json
from ampnet_opt.core.metrics import Estimate
from ampnet_opt.core.text import count, describe, listed
from ampnet_opt.runtime.sidecar import read_sidecar

SLOWER, FASTER, SAME, ELSEWHERE = "slower", "faster", "no difference shown", "another machine: not comparable"


@dataclass(frozen=True)
class Change:
    """One engine at one batch: its median then and now, in ms; ratio: now to then. verdict: one of the constants above.

    batch: None for throughput mode, in ms an image.
    """

    name: str
    batch: Optional[int]
    before: float
    after: float
    ratio: float
    verdict: str


def read_benchmark(path: Path) -> Dict[str, Any]:
    """The JSON of an earlier benchmark, or MisuseError when the file is none."""
    try:
        content = read_json(path, "benchmark")
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}, expected {FORMAT!r}")
        for engine in content["engines"]:
            for timing in engine["timings"]:
                require_types(timing["batch"], int, "batch")
                _require_median(timing["latency"]["p50"], timing["p50"])
            many = engine.get("many")
            if many is not None:
                _require_median(many["p50"], many["interval"])
            require_types(engine["name"], str, "name")
        require_types(content["engines"], List[Dict[str, Any]], "engines")
        require_types(content["threads"], int, "threads")
        require_types(content["environment"], Dict[str, Any], "environment")
        require_types(content["environment"]["versions"], Dict[str, str], "versions")
        return dict(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MisuseError(f"{path} is not a file of ampnet-opt benchmark --json ({describe(error)})") from error


def _require_median(p50: Any, interval: Any) -> None:
    require_types(Interval(**interval), Interval)
    require_types(p50, float, "p50")
    if p50 <= 0:
        raise ValueError("p50 is not over 0")


def changes(before: Dict[str, Any], after: Bench) -> Tuple[List[Change], List[str]]:
    """Of every engine and batch in both, the worst first, and what a reader must know: other machines, versions, threads.

    before: of `read_benchmark`. Engines are the same when their names are. On another machine, or with another number of
    threads for the cpu backend, no verdict is given.
    """
    place = after.environment
    machine = {"processor": place.cpu, "cores": place.cores, "GPU": after.gpu, "system": place.system}
    then = {
        "processor": before["environment"].get("cpu"),
        "cores": before["environment"].get("cores"),
        "GPU": before.get("gpu"),
        "system": before["environment"].get("system"),
    }
    notes = [f"{name} was {then[name]}, and is {value} now" for name, value in machine.items() if then[name] != value]
    # Another kernel or C library is worth a note; times are another machine's when what computes is another.
    elsewhere = any(then[name] != machine[name] for name in ("processor", "cores", "GPU"))
    versions = before["environment"].get("versions", {})
    notes += [
        f"{library} was {versions[library]}, and is {now} now"
        for library, now in place.versions.items()
        if versions.get(library, now) != now
    ]
    old: Dict[Tuple[str, Optional[int]], Tuple[float, Interval]] = {}
    for engine in before["engines"]:
        for timing in engine["timings"]:
            old[engine["name"], timing["batch"]] = float(timing["latency"]["p50"]), Interval(**timing["p50"])
        if engine.get("many"):
            old[engine["name"], None] = float(engine["many"]["p50"]), Interval(**engine["many"]["interval"])
    found, absent = [], []
    threads = int(before.get("threads", 0))
    for engine in after.engines:
        if device_of(engine.backend) == "cpu" and threads != after.threads:
            notes.append(f"{engine.name} had {count(threads, 'thread')}, and has {after.threads} now: not compared")
            continue
        medians: List[Tuple[Optional[int], float, Interval]]
        medians = [(timing.batch, timing.latency.p50, timing.p50) for timing in engine.timings]
        if engine.many:
            medians.append((None, engine.many.p50, engine.many.interval))
        for batch, p50, interval in medians:
            earlier = old.get((engine.name, batch))
            if earlier is None:
                absent.append(f"{engine.name} " + ("with many faces" if batch is None else f"at batch {batch}"))
            else:
                verdict = ELSEWHERE if elsewhere else _verdict(earlier[1], interval)
                found.append(Change(engine.name, batch, earlier[0], p50, p50 / earlier[0], verdict))
    if absent:
        notes.append(f"not measured then: {', '.join(absent)}")
    return sorted(found, key=lambda change: -change.ratio), notes


def _verdict(before: Interval, after: Interval) -> str:
    if before.below(after):
        return SLOWER
    return FASTER if after.below(before) else SAME


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
        raise MisuseError(f"{path} is not a file of ampnet-opt compare --json ({describe(error)})") from error
    found = {}
    for subject in engine_subjects(engines, 1):
        if subject.name in known:
            if read_sidecar(subject.path).checkpoint_sha256 != checkpoint:
                raise MisuseError(f"{path} is about another checkpoint than engine {subject.path}: run compare again")
            found[subject.name] = known[subject.name]
    if not found:
        raise MisuseError(f"{path} has none of these engines; it has {listed(known, 8)}")
    return found
