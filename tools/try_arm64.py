"""Builds and runs bundles on an emulated 64-bit Arm processor, and holds the engines against the float network.

    apt-get install qemu-user-static mmdebstrap
    ampnet-opt bundle --target arm -o arm.tar
    python tools/try_arm64.py system/ arm.tar

The first run makes `system/`: a small Debian for arm64 with Python, and the wheels that the bundle's target needs. Programs
run under qemu-user, so speed means nothing; answers, lists of layers and messages are those of the processor `--cpu`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

QEMU = "qemu-aarch64-static"
PYTHON, RELEASE = "3.11", "bookworm"
PLATFORMS = ("manylinux_2_35_aarch64", "manylinux_2_31_aarch64", "manylinux_2_28_aarch64", "manylinux2014_aarch64")
PACKAGES = ("numpy", "pillow", "rich", "typer", "onnxruntime", "openvino")
# ONNX Runtime reads which processor it is from here, and qemu-user shows the host's.
CPUINFO = """processor\t: {}
Features\t: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd0b
CPU revision\t: 0

"""
COMMAND = "from ampnet_opt.cli.main import main; main()"
# The largest error of the engine's logits on the bundle's golden faces, relative to the float network's.
COMPARE = """
import sys
from ampnet_opt.runtime import Engine
from ampnet_opt.runtime.bundle import open_bundle
with open_bundle(sys.argv[1]) as bundle, Engine.load(sys.argv[2]) as engine:
    golden = bundle.golden()
    print(f"{golden.error(engine.infer(golden.images, golden.landmarks)):.4%}")
"""


def make_system(folder: Path) -> None:
    """A Debian with Python, and the packages beside it."""
    root, site = folder / "root", folder / "site"
    folder.mkdir(parents=True, exist_ok=True)
    included = "--include=python3,libstdc++6,libgomp1,zlib1g"
    subprocess.run(["mmdebstrap", "--arch=arm64", "--variant=extract", included, RELEASE, root], check=True)
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "cpuinfo").write_text("".join(CPUINFO.format(core) for core in range(os.cpu_count() or 1)))
    wheels = [f"--platform={name}" for name in PLATFORMS]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", site, "--only-binary=:all:"]
    subprocess.run([*pip, f"--python-version={PYTHON}", *wheels, *PACKAGES], check=True)


def run(folder: Path, cpu: str, *words: object) -> str:
    """A Python program in the system; returns what it printed, errors included."""
    root = folder / "root"
    environment = {
        **os.environ,
        "PYTHONHOME": str(root / "usr"),
        "PYTHONPATH": os.pathsep.join([str(folder / "own"), str(folder / "site")]),
        "AMPNET_OPT_CACHE": str(folder / "cache"),
    }
    program = [QEMU, "-cpu", cpu, "-L", root, root / "usr" / "bin" / f"python{PYTHON}", *words]
    done = subprocess.run([*map(str, program)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nthe program ended with exit code {done.returncode}")
    return done.stdout


def install(folder: Path, bundle: Path) -> None:
    """The package, as the bundle brings it."""
    with tempfile.TemporaryDirectory() as temporary, tarfile.open(bundle) as tar:
        (wheel,) = (member for member in tar if member.name.endswith(".whl"))
        tar.extract(wheel, temporary)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", folder / "own"]
        subprocess.run([*pip, Path(temporary) / wheel.name], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="of the arm64 system; made when it is missing")
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--cpu", default="cortex-a76", help="as qemu-aarch64 names it")
    given = parser.parse_args()
    folder = given.folder.resolve()
    if not (folder / "site").is_dir():
        make_system(folder)
    for bundle in given.bundles:
        install(folder, bundle)
        with tempfile.TemporaryDirectory() as engines:
            print(run(folder, given.cpu, "-c", COMMAND, "build", bundle.resolve(), "-o", engines).strip())
            for engine in sorted(Path(engines).iterdir()):
                error = run(folder, given.cpu, "-c", COMPARE, bundle.resolve(), engine).strip().splitlines()[-1]
                print(f"{engine.name}: logits off by {error}")


if __name__ == "__main__":
    main()
