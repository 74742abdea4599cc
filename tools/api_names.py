"""Writes down the names of a TensorRT Python binding, without the libraries that it binds: no GPU, no driver, no download of
gigabytes. tests/runtime/test_api_surface.py holds the code against these lists.

usage: python tools/api_names.py BINDING.so WHEEL > tests/support/api/tensorrt-10.3.0.txt

BINDING.so: `tensorrt.so` or `tensorrt_lean.so` of an unpacked bindings wheel (`pip download --no-deps
tensorrt-cu12-bindings==10.3.0`, then `unzip`); WHEEL: that wheel's file name, for the first line. The wheel must be for the
Python that runs this. Needs a C compiler, nm and readelf: libraries of the right names whose functions do nothing stand in
for NVIDIA's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Iterator

CHILD = "--loaded-with-stand-ins"


def stand_ins(binding: Path, folder: Path) -> None:
    """Fill `folder` with a library for each of NVIDIA's that `binding` asks for; the first has all the functions."""
    symbols = output("nm", "-D", "--undefined-only", str(binding))
    wanted = [line.split()[-1] for line in symbols.splitlines() if line.split()[0] == "U"]
    functions = [name for name in wanted if "@" not in name and not re.match(r"_?Py", name)]
    source = "\n".join(
        f'void *f{i}(void) __asm__("{name}"); void *f{i}(void) {{ return 0; }}' for i, name in enumerate(functions)
    )
    dynamic = output("readelf", "-d", str(binding))
    for library in re.findall(r"NEEDED.*\[(lib(?:nv|tensorrt).*)\]", dynamic):
        command = ["cc", "-shared", "-fPIC", "-x", "c", "-", f"-Wl,-soname,{library}", "-o", str(folder / library)]
        subprocess.run(command, input=source, text=True, check=True)
        source = ""


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def load(binding: Path) -> Any:
    spec = spec_from_file_location(binding.name.partition(".")[0], binding)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(owner: Any, prefix: str = "") -> Iterator[str]:
    """Every public name of a module, and of its classes: "ILogger.Severity.ERROR"."""
    for name in sorted(dir(owner)):
        if name.startswith("_"):
            continue
        yield prefix + name
        value = getattr(owner, name, None)
        if isinstance(value, type) and not (prefix and value.__name__ in prefix):
            yield from names(value, f"{prefix}{name}.")


def main(binding: Path, wheel: str) -> None:
    if CHILD in sys.argv:
        print(f"# Names of {wheel}, written by tools/api_names.py")
        print(*names(load(binding)), sep="\n")
        return
    with TemporaryDirectory() as folder:
        stand_ins(binding, Path(folder))
        alone = shutil.copy(binding, folder)  # away from NVIDIA's libraries, which old wheels have beside it
        command = [sys.executable, __file__, alone, wheel, CHILD]
        sys.exit(subprocess.run(command, env={**os.environ, "LD_LIBRARY_PATH": folder}).returncode)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve(), sys.argv[2])
