"""Ends a build at random moments, and sees what it leaves.

    python tools/kill_build.py [--points 100] [--seed 0]

Builds an engine of a small network for the cpu backend again and again, half of the time over an older one, and sends
SIGKILL, SIGTERM or SIGINT at a random moment of it: from a bundle, as exporting a checkpoint takes long and writes nothing.
Half of the moments are drawn from the processor time of a whole build, which other work on the machine does not change, and
half from the time for which the new directory is there: files are written to it, and it changes places with the old one.
After each, the old engine or the new one is whole and loads, or there was none and is none; what was asked to stop leaves
nothing behind; nothing that lies there is taken for an engine; and every tenth is followed by a build that sweeps and ends
well. Exits 1, with what was found, when that does not hold. Needs Linux.
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
from statistics import median
from tempfile import TemporaryDirectory

from ampnet_opt.core.files import NEW
from ampnet_opt.network.checkpoint import init_checkpoint
from ampnet_opt.runtime import Engine

SCRIPT = Path(sys.executable).with_name("ampnet-opt")
COMMAND = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-c", "from ampnet_opt.cli.main import main; main()"]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
NAME = "cpu-fp32"
WIDTH = 0.125
POLL = 0.0005  # seconds


class World:
    """Bundles of two small networks, the engine of the first, and a folder in which engines are built."""

    def __init__(self, folder: Path) -> None:
        self.engines = folder / "engines"
        self.target = self.engines / NAME
        self.old, self.new = folder / "old.tar", folder / "new.tar"
        for seed, path in enumerate((self.old, self.new)):
            checkpoint = path.with_suffix(".safetensors")
            init_checkpoint(checkpoint, seed, WIDTH, ["a", "b"])
            made = ["bundle", str(checkpoint), "--fp32", "--target", "cpu", "-o", str(path)]
            subprocess.run([*COMMAND, *made], check=True, capture_output=True)
        self.kept = folder / "kept"
        self.build(self.old)
        shutil.copytree(self.target, self.kept)
        self.build(self.new)  # what it leaves in the cache makes those after it faster
        measured = [self._measure() for _ in range(3)]
        self.processor_seconds, self.writing_seconds = map(median, zip(*measured))
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

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._arguments(self.new), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def _measure(self) -> tuple[float, float]:
        """Seconds of processor time of a build of the new engine, and seconds by the clock for which it writes files."""
        used, began, ended = 0.0, 0.0, 0.0
        with self._start() as process:
            while process.poll() is None:
                used = max(used, processor_time(process))
                if self.in_making():
                    ended = time.monotonic()
                    began = began or ended
                time.sleep(POLL)
        if process.returncode or not began:
            raise AssertionError("a build that nothing stopped failed, or was not seen to write files")
        return used, ended - began

    def reset(self, there: bool) -> None:
        """An older engine in place, or none."""
        shutil.rmtree(self.target, ignore_errors=True)
        if there:
            shutil.copytree(self.kept, self.target)

    def stop(self, share: float, writing: bool, how: signal.Signals) -> tuple[int, bool]:
        """Send `how` to a build when `share` (0 to 1) of its processor time is used, or, writing: of the time for which it
        writes files. Returns its exit code, which is 0 where it had ended before, and whether it was writing then."""
        left = self.in_making()
        with self._start() as process:
            while process.poll() is None and (
                not self.in_making() - left if writing else processor_time(process) < share * self.processor_seconds
            ):
                time.sleep(POLL)
            if writing:
                time.sleep(share * self.writing_seconds)
            met = bool(self.in_making() - left)
            process.send_signal(how)
            _, said = process.communicate(timeout=300)
        asked = process.returncode in (128 + signal.SIGTERM, 128 + signal.SIGINT)
        if asked and said.strip().splitlines()[-1:] != ["stopped; nothing was left half-written"]:
            raise AssertionError(f"a stopped build said: {said}")
        return process.returncode, met and process.returncode != 0

    def in_making(self) -> set[str]:
        """Directories that are being written, or were when their build was killed."""
        return {path.name for path in self.engines.glob(f".*{NEW}")}

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


def processor_time(process: subprocess.Popen[str]) -> float:
    """Seconds of processor time that a process has used; 0 when it is gone."""
    try:
        return time.clock_gettime(~process.pid << 3 | 2)  # its clock's number: clock_getcpuclockid(3) of Linux
    except OSError:
        return 0.0


def stress(folder: Path, points: int, seed: int) -> tuple[Counter[str], int, int]:
    """How often a build that was sent a signal, over which engine, left which; how many had not ended before, and how many
    of these were writing files. Raises AssertionError when one left a mess."""
    world, chance, counts = World(folder), random.Random(seed), Counter[str]()
    seconds = f"{world.processor_seconds:.1f} s of processor time, {world.writing_seconds:.2f} s by the clock to write files"
    print(f"a build takes {seconds}", file=sys.stderr, flush=True)
    stopped = writing = 0
    for point in range(points):
        how, there = SIGNALS[point % len(SIGNALS)], chance.random() < 0.5
        world.reset(there)
        littered = set(world.hidden())
        code, writes = world.stop(chance.random(), point // len(SIGNALS) % 2 == 1, how)
        stopped, writing = stopped + (code != 0), writing + writes
        found = world.found()
        if found not in ({"old", "new"} if there else {"none", "new"}) or (code == 0 and found != "new"):
            raise AssertionError(f"{how.name} at point {point} ended a build with {code} and left {found}")
        if how != signal.SIGKILL:
            new_litter = set(world.hidden()) - littered
            if new_litter:
                raise AssertionError(f"{how.name} at point {point} left {sorted(new_litter)}")
        litter = "litter" if world.hidden() else "no litter"
        moment = "ended before" if code == 0 else "writing" if writes else "not writing"
        outcome = f"{how.name}, {'old' if there else 'no'} engine, {moment}: exit code {code}, left {found}, {litter}"
        counts[outcome] += 1
        print(f"{point + 1} of {points}: {outcome}", file=sys.stderr, flush=True)
        if point % 10 == 9 or point == points - 1:
            world.build(world.new)
    return counts, stopped, writing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=100, help="builds that are stopped")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    # What a shell starts in the background ignores SIGINT, and so would the builds that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with TemporaryDirectory() as folder:
        try:
            counts, stopped, writing = stress(Path(folder), options.points, options.seed)
        except AssertionError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    for outcome, number in sorted(counts.items()):
        print(f"{number:4}  {outcome}")
    print(f"{stopped} of {options.points} builds had not ended when the signal came; {writing} of these wrote files")
    print(f"{options.points} builds: each left the old engine, the new one or none; those after them swept and ended well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
