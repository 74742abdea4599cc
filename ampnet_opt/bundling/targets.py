"""Where a bundle may go: which backend and graphs each machine needs, and what its README says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.text import command
from ampnet_opt.runtime.backend import PLAIN, RTX, TYPED, UNSIGNED, WEAK, find_backend


@dataclass(frozen=True)
class Target:
    """forms: of the graphs (of runtime.build) that the versions of its backend take. extra: of the package, what runs there.

    versions: a line each, what it may have installed. speed: a line each, how it is set to full speed.
    """

    name: str
    backend: str
    forms: Tuple[str, ...]
    extra: str
    versions: Tuple[str, ...]
    speed: Tuple[str, ...] = ()

    @property
    def is_jetson(self) -> bool:
        return self.extra == "jetson"


EXAMPLE, EXAMPLE_TABLE = "example.jpg", "example.csv"  # in a bundle: a drawn face and its landmarks
JETPACK_5 = "JetPack 5.1: TensorRT 8.5, CUDA 11.4, Python 3.8"
JETPACK_6 = ("JetPack 6.0: TensorRT 8.6, CUDA 12.2, Python 3.10", "JetPack 6.1, 6.2: TensorRT 10.3, CUDA 12.6, Python 3.10")
JETPACK_7 = "JetPack 7.2: TensorRT 10.16, CUDA 13.2, Python 3.12"
NEWEST = "JetPack 7.2.2 and later: TensorRT 11.4 can be installed"
HIGHEST = "sudo nvpmodel -m 0 && sudo jetson_clocks"

_ALL = (
    Target(
        "orin-nano",
        "tensorrt",
        (WEAK, TYPED),
        "jetson",
        (JETPACK_5, *JETPACK_6, JETPACK_7),
        ("sudo nvpmodel -m 2 && sudo jetson_clocks    # MAXN_SUPER, JetPack 6.2 and later; before: -m 0, 15 W",),
    ),
    Target("orin-nx", "tensorrt", (WEAK, TYPED), "jetson", (JETPACK_5, *JETPACK_6, JETPACK_7), (HIGHEST,)),
    Target("agx-orin", "tensorrt", (WEAK, TYPED), "jetson", (JETPACK_5, *JETPACK_6, JETPACK_7, NEWEST), (HIGHEST,)),
    Target(
        "xavier",
        "tensorrt",
        (WEAK,),
        "jetson",
        (JETPACK_5,),
        (f"{HIGHEST}    # AGX Xavier: MAXN", "sudo nvpmodel -m 8 && sudo jetson_clocks    # Xavier NX: 20 W, six cores"),
    ),
    Target(
        "thor",
        "tensorrt",
        (TYPED,),
        "jetson",
        ("JetPack 7.0, 7.1: TensorRT 10.13, CUDA 13.0, Python 3.12", JETPACK_7, NEWEST),
        (HIGHEST,),
    ),
    Target("gpu", "tensorrt", (WEAK, TYPED), "tensorrt", ("TensorRT 8.5 to 11; Python 3.9 and later",)),
    Target("rtx", "tensorrt-rtx", (RTX,), "rtx", ("TensorRT-RTX 1.1 and later; Python 3.9 and later",)),
    Target("cpu", "cpu", (UNSIGNED,), "cpu", ("OpenVINO 2024.4 and later; Python 3.8 and later",)),
    Target(
        "arm",
        "onnxruntime",
        (PLAIN,),
        "onnxruntime",
        ("64-bit Arm with Linux: ONNX Runtime 1.16 and later, Python 3.8 and later",),
    ),
)
TARGETS = {target.name: target for target in _ALL}


def require_precisions(target: Target, precisions: Sequence[str]) -> None:
    """MisuseError for a precision that no version of the target's backend computes in."""
    find_backend(target.backend).require_precisions(precisions)
    if "bf16" in precisions and target.backend == "tensorrt" and TYPED not in target.forms:
        raise MisuseError(f"--bf16 is not for {target.name}: its TensorRT does not compute in BF16; take --fp16")


def readme(
    target: Target,
    bundle: str,
    wheel: str,
    engines: List[str],
    *,
    built_with: str = "",
    built_on: str = "",
    drawn_faces: Optional[bool] = None,
) -> str:
    """README.txt of a bundle. bundle, wheel: file names. engines: names of the directories that it becomes.

    built_with: version of the library that made a finished engine, which then needs this one, or a newer one of its kind.
    built_on: GPU and board of a finished engine that runs on no other.
    drawn_faces: whether the faces that it carries to choose by are drawn; None, it carries none.
    """
    finished = f"{target.backend} {built_with}, which built its engine (run says whether another version works)"
    if built_on:
        finished = f"{built_on}, with {target.backend} {built_with}, alone: build refuses other machines"
    versions = (finished,) if built_with else target.versions
    site = " --system-site-packages" if target.is_jetson else ""
    install = [f"  .venv/bin/pip install './{wheel}[{target.extra}]'"]
    if target.is_jetson:
        # The CUDA binding apart: on Python 3.8 it is compiled, and if that fails, everything else is there.
        install = [
            "  .venv/bin/pip install --upgrade pip    # the pip of JetPack 5 is too old for today's wheels",
            f"  .venv/bin/pip install './{wheel}'",
            f"  PATH=$PATH:/usr/local/cuda/bin .venv/bin/pip install './{wheel}[{target.extra}]'",
        ]
    lines = [
        f"AMP-Net for {target.name}, as engines for {target.backend}: {', '.join(engines)}",
        "",
        "Copy this bundle to the machine that will run it. Install it there, once, in a folder of your choice:",
        "",
        f"  {command('tar', '-xf', bundle, wheel, EXAMPLE, EXAMPLE_TABLE)} && python3 -m venv{site} .venv",
        *install,
        "",
        "Build the engines:",
        "",
        f"  {command('.venv/bin/ampnet-opt', 'build', bundle, '-o', 'engines')}",
        "",
        f"Try one on the drawn face in the bundle; {EXAMPLE_TABLE} has its landmarks:",
        "",
        f"  .venv/bin/ampnet-opt run engines/{engines[0]} {EXAMPLE} --landmarks {EXAMPLE_TABLE}",
        "",
    ]
    if drawn_faces is not None:
        lines += [
            "Or, instead of build, measure all of them on this machine and keep the fastest that is shown to be right:",
            "",
            f"  {command('.venv/bin/ampnet-opt', 'optimize', bundle, '-o', 'engines')}",
            "",
        ]
    if drawn_faces is False:
        lines += [
            "The faces that optimize judges by are PICTURES OF PEOPLE, from the data that this bundle was made with.",
            "",
        ]
    if target.is_jetson:
        lines += [
            "The module tensorrt belongs to the system's Python, hence --system-site-packages. If it is missing:",
            "",
            "  sudo apt install nvidia-jetpack python3-venv",
            "",
            "The last pip command installs the CUDA binding. On JetPack 5 it compiles PyCUDA with nvcc and these headers:",
            "",
            "  sudo apt install python3-dev",
            "",
            "If that fails, doctor and the backend cpu still work.",
            "",
        ]
    if target.speed:
        lines += ["Full speed:", "", *(f"  {line}" for line in target.speed), ""]
        lines += [
            "A power mode survives a restart, for which nvpmodel may ask; jetson_clocks lasts until the next restart.",
            "",
        ]
        lines += ["List the power modes: grep 'POWER_MODEL ID' /etc/nvpmodel.conf; show the present one: nvpmodel -q.", ""]
    lines += ["Works with:", "", *(f"  {line}" for line in versions), ""]
    lines += [".venv/bin/ampnet-opt doctor says what is missing and how to get it.", ""]
    return "\n".join(lines)
