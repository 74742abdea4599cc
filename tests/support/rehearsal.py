"""What a process needs to run engines on a stand-in GPU: tests/support/stand_in, and the real CUDA bindings.

The bindings are those in .rehearsal/ of the clone, where tools/rehearsal_bindings puts them, because later versions of
cuda-bindings call undocumented interfaces of the driver, and PyCUDA has to be compiled.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from places import SUPPORT

STAND_IN = SUPPORT / "stand_in"
BINDINGS = {"cuda-python": "cuda-bindings", "PyCUDA": "pycuda"}  # as `Queue.binding` has it -> its folder in INSTALLED
INSTALLED = SUPPORT.parents[1] / ".rehearsal"
MODULE = "from stand_in_tensorrt import install\ninstall(__name__, {version!r})\n"


@cache
def driver() -> Path:
    """The folder of the stand-in libcuda.so.1; skips the test where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler for the stand-in CUDA driver")
    folder = TemporaryDirectory(prefix="stand-in-cuda-")
    atexit.register(folder.cleanup)
    library = Path(folder.name) / "libcuda.so.1"
    options = ["-std=gnu11", "-O1", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *options, "-o", library, STAND_IN / "cuda_driver.c", "-ldl", "-lpthread"], check=True)
    return library.parent


@dataclass(frozen=True)
class Rehearsal:
    """A machine with the stand-in GPU. variables: of the environment of a process on it."""

    folder: Path
    variables: dict[str, str]

    def start(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Python, with these arguments."""
        arguments = [sys.executable, *map(str, command)]
        return subprocess.run(arguments, capture_output=True, text=True, env={**os.environ, **self.variables}, timeout=120)

    def run(self, *command: object) -> str:
        """What a run of Python, which must succeed, prints."""
        done = self.start(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def faults(self) -> list[str]:
        """What the driver has reported since the last call."""
        path = self.folder / "faults"
        found = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return found


def rehearse(folder: Path, version: str, binding: str = "cuda-python", **settings: str) -> Rehearsal:
    """A machine with TensorRT of a version of tests/support/api, "tensorrt-10.3.0", say; skips without the binding.

    folder: for its files. settings: of the GPU, CAPABILITY="8.7", INTEGRATED="1", MEMORY="1000000" (bytes).
    """
    installed = INSTALLED / BINDINGS[binding]
    if not installed.is_dir():
        pytest.skip(f"{binding} for the rehearsal is not in {installed}; run tools/rehearsal_bindings")
    module = folder / version / f"{version.partition('-')[0]}.py"
    module.parent.mkdir(parents=True, exist_ok=True)
    module.write_text(MODULE.format(version=version))
    path = [module.parent, STAND_IN, SUPPORT, installed, *([STAND_IN / "lazy"] if binding == "PyCUDA" else [])]
    variables = {f"STAND_IN_CUDA_{name}": value for name, value in settings.items()}
    variables["STAND_IN_CUDA_FAULTS"] = str(folder / "faults")
    variables.update(LD_LIBRARY_PATH=str(driver()), PYTHONPATH=os.pathsep.join(map(str, path)))
    return Rehearsal(folder, variables)
