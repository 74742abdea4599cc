"""The command that installs more of the package names it as it was installed."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from places import ROOT

from ampnet_opt.bundling.wheel import write_wheel
from ampnet_opt.core import installing
from ampnet_opt.core.installing import NEWER_PYTHON, cuda_binding_command, install_command


def test_a_checkout_is_installed_from_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert install_command("rtx", "plot").endswith(f"pip install -e '{ROOT}[rtx,plot]'")
    monkeypatch.chdir(ROOT)
    assert install_command("rtx", "plot").endswith("pip install -e '.[rtx,plot]'")


@pytest.mark.parametrize("kept", [True, False])
def test_a_wheel_is_named_by_its_file(tmp_path: Path, kept: bool) -> None:
    wheel = write_wheel(tmp_path)
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    if not kept:
        wheel.unlink()
    program = f"import sys; sys.path[:0] = [{str(site)!r}]\n"
    program += "from ampnet_opt.core.installing import cuda_binding_command, install_command; print(install_command('cpu'))"
    printed = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True).stdout
    assert f"install '{wheel if kept else './' + wheel.name}[cpu]'" in printed


def test_a_package_of_an_index_is_named_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "_origin", lambda: None)
    assert install_command("cpu").endswith("pip install 'ampnet-opt[cpu]'")


def test_an_environment_that_is_not_activated_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/somewhere/venv")
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    assert install_command("cpu").startswith("/somewhere/venv/bin/pip install ")
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere/venv")
    assert install_command("cpu").startswith("pip install ")


def test_an_extra_that_this_python_is_too_old_for_says_which_one_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 8, 18))
    assert install_command("detect").endswith("[detect]' (needs Python 3.10 or newer)")
    assert install_command("heif", "cpu").endswith("[heif,cpu]' (needs Python 3.9 or newer)")
    assert install_command("cpu", "video", "view").endswith("[cpu,video,view]'")
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    assert install_command(*NEWER_PYTHON).endswith("]'")


def test_the_pythons_of_extras_are_those_of_their_requirements() -> None:
    found: dict[str, set[tuple[int, int]]] = {}
    for line in distribution("ampnet-opt").requires or []:
        least = re.search(r"python_version >= \"3\.(\d+)\"(?! and python_version <)", line.replace("'", '"'))
        extra = re.search(r"extra == \"(\w+)\"", line.replace("'", '"'))
        if least and extra:
            found.setdefault(extra[1], set()).add((3, int(least[1])))
    for extra in ("cpu", "jetson", "docs", "dev"):  # which have something for older ones too, or are for developers
        found.pop(extra, None)
    assert {extra: max(pythons) for extra, pythons in found.items()} == NEWER_PYTHON


@pytest.mark.parametrize(
    ("cuda", "version"),
    [
        ((11, 4), "==11.8.*"),
        ((12, 2), "==12.8.*"),
        ((12, 6), "==12.8.*"),
        ((12, 9), ">=12,<12.10"),
        ((13, 0), ">=13,<13.1"),
        ((13, 2), ">=13,<13.3"),
    ],
)
def test_the_cuda_binding_is_of_the_drivers_cuda(cuda: tuple[int, int], version: str) -> None:
    assert cuda_binding_command(cuda).endswith(f"pip install 'cuda-bindings{version}'")


def test_on_python_3_8_pycuda_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 8, 10))
    command = cuda_binding_command((11, 4))
    assert command.startswith("sudo apt install python3-dev && ") and command.endswith("pip install pycuda")
    assert "/usr/local/cuda/bin" in command
