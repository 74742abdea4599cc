"""Everything about engines that needs a GPU, tried on this machine's and written to one file: `tools/gpu_check`.

Each member of the TensorRT family that loads builds FP32, FP16 and INT8 engines of two networks, which have to give the
right answers, then are timed beside PyTorch and ONNX Runtime; its face detector has to find the faces that ONNX Runtime's
finds. A part that fails is one sentence in the file; the others go on. Exits 0 when no part failed, and 1 when one did or
there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from ampnet_opt.benchmarks.gpu_check_networks import NETWORKS
from ampnet_opt.benchmarks.gpu_check_others import RUNS
from ampnet_opt.benchmarks.gpu_check_parts import SUBJECTS, CheckedPart
from ampnet_opt.benchmarks.gpu_check_report import to_markdown
from ampnet_opt.core.children import last_line, python
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import write_json, write_text
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.tensorrt.library import FAMILIES, load_library, unknown_gpu
from ampnet_opt.system.doctor import examine

PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "cuda-bindings", "pycuda", "numpy", "onnx")
# As `ampnet_opt.core.children.START`: nothing is imported from the working directory.
PARTS = (
    "import sys; sys.path[:] = sys.argv[5:]; from ampnet_opt.benchmarks.gpu_check_parts import main; main(*sys.argv[1:5])"
)


def new_result() -> dict[str, Any]:
    """Date, machine and versions; `parts` are yet to come. gpu: what there is; problem: why there is none."""
    result: dict[str, Any] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "gpu": None,
        "problem": None,
        "environment": examine(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "parts": [],
    }
    try:
        gpu = cuda.gpu()
        result["gpu"] = {"name": gpu.name, "compute_capability": gpu.compute_capability, "integrated": gpu.integrated}
    except AmpnetError as error:
        result["problem"] = str(error)
    return result


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def loads(subject: str) -> str:
    """Why a subject cannot be tried here, or nothing."""
    if subject in FAMILIES:
        try:
            library = load_library(subject)
            return unknown_gpu(library, cuda.gpu()) if FAMILIES[subject].ahead else ""
        except AmpnetError as error:
            return str(error)
    return ""


def check_network(subject: str, network: str, runs: int = RUNS) -> Iterator[CheckedPart]:
    """The parts of a subject and a network, as they end, from a process that does them. runs: timed, of each batch."""
    problem = loads(subject)
    if problem:
        yield CheckedPart("loading", "skipped", problem, {})
        return
    with TemporaryDirectory() as folder, TemporaryFile() as log:
        command = python(PARTS, subject, network, str(runs), folder, *filter(None, sys.path))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        begun = "starting"
        try:
            assert process.stdout
            for line in map(json.loads, process.stdout):
                if "begin" in line:
                    begun = line["begin"]
                else:
                    begun = ""
                    yield CheckedPart(**line)
        finally:
            if process.poll() is None and sys.exc_info()[0] is not None:
                process.kill()
            code = process.wait()
        if code:
            last = last_line(log)
            how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            yield CheckedPart(begun or "ending", "failed", f"the process ended {how}" + (f" ({last})" if last else ""), {})


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="tools/gpu_check", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu_check"), help="name of the files, .json and .md")
    parser.add_argument("--subject", action="append", choices=SUBJECTS, help="only this one; may be given again")
    parser.add_argument("--network", action="append", choices=NETWORKS, help="only this one; may be given again")
    parser.add_argument("--runs", type=int, default=RUNS, help="timed runs of each batch (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    if chosen.runs < 1:
        parser.error("--runs must be at least 1")
    result = new_result()
    files = [chosen.output.with_name(f"{chosen.output.name}.{kind}") for kind in ("json", "md")]

    def write() -> None:
        write_json(files[0], result)
        write_text(files[1], to_markdown(result))

    write()
    if result["gpu"] is None:
        print(f"{result['problem']}; {files[0]} and {files[1]} say so", file=sys.stderr)
        return 1
    for subject in chosen.subject or SUBJECTS:
        for network in chosen.network or NETWORKS:
            for part in check_network(subject, network, chosen.runs):
                print(f"{subject}, {network}: {part.name}: {part.outcome}" + (f" ({part.detail})" if part.detail else ""))
                result["parts"].append({"subject": subject, "network": network, **part.__dict__})
                write()  # a machine that hangs must not take with it what is known
    print(f"written: {files[0]} and {files[1]}")
    return 1 if any(part["outcome"] == "failed" for part in result["parts"]) else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except AmpnetError as error:
        sys.exit(f"error: {error}")
