"""Ends a build at random moments, and sees what it leaves.

    python tools/kill_build.py [--points 100] [--seed 0]

Builds an engine of a small network for the cpu backend again and again, half of the time over an older one, and sends
SIGKILL, SIGTERM or SIGINT at a random moment of it: from a bundle, as exporting a checkpoint takes long and writes nothing.
Every second moment is counted from the first file of the engine on: most of a build comes before it, and harms nothing.
After each, the old engine or the new one is whole and loads, or there was none and is none; what was asked to stop leaves
nothing behind; nothing that lies there is taken for an engine; and every tenth is followed by a build that sweeps and ends
well. Exits 1, with what was found, when that does not hold.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ampnet_opt.network.checkpoint import init_checkpoint
from ampnet_opt.runtime import Engine

SCRIPT = Path(sys.executable).with_name("ampnet-opt")
COMMAND = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-c", "from ampnet_opt.cli.main import main; main()"]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
NAME = "cpu-fp32"


class World:
    """Bundles of two small networks, the engine of the first, and a folder in which engines are built."""

    def __init__(self, folder: Path) -> None:
        self.engines = folder / "engines"
        self.target = self.engines / NAME
        self.old, self.new = folder / "old.tar", folder / "new.tar"
        for seed, path in enumerate((self.old, self.new)):
            checkpoint = path.with_suffix(".safetensors")
            init_checkpoint(checkpoint, seed, 0.05, ["a", "b"])
            made = ["bundle", str(checkpoint), "--fp32", "--target", "cpu", "-o", str(path)]
            subprocess.run([*COMMAND, *made], check=True, capture_output=True)
        self.kept = folder / "kept"
        self.build(self.old)
        shutil.copytree(self.target, self.kept)
        self.seconds, self.writing = self._timed()
        self.hashes = {self._checkpoint(self.kept): "old", self._checkpoint(self.target): "new"}

    def _arguments(self, bundle: Path) -> list[str]:
        return [*COMMAND, "build", str(bundle), "-o", str(self.engines), "--force"]

    def build(self, bundle: Path) -> None:
        done = subprocess.run(self._arguments(bundle), capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(f"a build after a stopped one failed: {done.stderr}")
        left = sorted(path.name for path in self.engines.iterdir())
        if left != [NAME]:
            raise AssertionError(f"a build did not sweep: {left}")

    def reset(self, there: bool) -> None:
        """An older engine in place, or none."""
        shutil.rmtree(self.target, ignore_errors=True)
        if there:
            shutil.copytree(self.kept, self.target)

    def _timed(self) -> tuple[float, float]:
        """Seconds that a build takes, and of these the ones in which it writes."""
        began = time.monotonic()
        with subprocess.Popen(self._arguments(self.new), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            self._await_writing(process)
            writes = time.monotonic()
            if process.wait():
                raise AssertionError("a build failed")
        return time.monotonic() - began, time.monotonic() - writes

    def _await_writing(self, process: subprocess.Popen[Any]) -> None:
        """Until the build writes its engine, or has ended."""
        before = set(self.hidden())
        while process.poll() is None and not set(self.hidden()) - before:
            time.sleep(0.002)

    def stop_after(self, seconds: float, how: signal.Signals, writing: bool) -> int:
        """The exit code of a build that `how` was sent to after so many seconds, counted from its first file where
        `writing`; 0 where it had ended before."""
        process = subprocess.Popen(
            self._arguments(self.new), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        with process:
            if writing:
                self._await_writing(process)
            time.sleep(seconds)
            process.send_signal(how)
            _, said = process.communicate(timeout=300)
        asked = process.returncode in (128 + signal.SIGTERM, 128 + signal.SIGINT)
        if asked and said.strip().splitlines()[-1:] != ["stopped; nothing was left half-written"]:
            raise AssertionError(f"a stopped build said: {said}")
        return process.returncode

    def found(self) -> str:
        """Which engine stands there, whole: "old", "new" or "none"."""
        visible = [path for path in self.engines.glob("[!.]*")] if self.engines.exists() else []
        if not visible:
            return "none"
        if visible != [self.target]:
            raise AssertionError(f"taken for engines: {visible}")
        return self.hashes[self._checkpoint(self.target)]

    def hidden(self) -> list[str]:
        return sorted(path.name for path in self.engines.glob(".*")) if self.engines.exists() else []

    @staticmethod
    def _checkpoint(directory: Path) -> str:
        """Loading checks the hash of every file."""
        with Engine.load(directory, 1) as engine:
            return engine.sidecar.checkpoint_sha256


def stress(folder: Path, points: int, seed: int) -> Counter[str]:
    """How often a build that was sent a signal, over which engine, left which. Raises AssertionError when it left a mess."""
    world, chance, counts = World(folder), random.Random(seed), Counter[str]()
    for point in range(points):
        how, there = SIGNALS[point % len(SIGNALS)], chance.random() < 0.5
        world.reset(there)
        littered = set(world.hidden())
        writing = point % 2 == 0
        code = world.stop_after(chance.uniform(0, 1.05 * (world.writing if writing else world.seconds)), how, writing)
        found = world.found()
        if found not in ({"old", "new"} if there else {"none", "new"}) or (code == 0 and found != "new"):
            raise AssertionError(f"{how.name} at point {point} ended a build with {code} and left {found}")
        if how != signal.SIGKILL:
            new_litter = set(world.hidden()) - littered
            if new_litter:
                raise AssertionError(f"{how.name} at point {point} left {sorted(new_litter)}")
        litter = "litter" if world.hidden() else "no litter"
        outcome = f"{how.name}, {'old' if there else 'no'} engine: exit code {code}, left {found}, {litter}"
        counts[outcome] += 1
        print(f"{point + 1} of {points}: {outcome}", file=sys.stderr, flush=True)
        if point % 10 == 9 or point == points - 1:
            world.build(world.new)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=100, help="builds that are stopped")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        try:
            counts = stress(Path(folder), options.points, options.seed)
        except AssertionError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    for outcome, number in sorted(counts.items()):
        print(f"{number:4}  {outcome}")
    print(f"{options.points} builds: each left the old engine, the new one or none; those after them swept and ended well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
