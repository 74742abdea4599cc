"""The GPU check as far as a machine without a GPU goes: there, it says so; its parts run, or fail in one sentence each."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ampnet_opt
from ampnet_opt.benchmarks import gpu_check
from ampnet_opt.benchmarks.gpu_check_networks import Network, network
from ampnet_opt.benchmarks.gpu_check_others import Skipped, row_of
from ampnet_opt.benchmarks.gpu_check_parts import CheckedPart, parts, run
from ampnet_opt.benchmarks.gpu_check_report import to_markdown
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.faces.face import Face
from ampnet_opt.network.checkpoint import init_checkpoint, read_checkpoint
from ampnet_opt.runtime import cuda
from ampnet_opt.runtime.tensorrt.library import known_capabilities, unknown_gpu

TOOL = Path(ampnet_opt.__file__).resolve().parents[1] / "tools" / "gpu_check"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """A narrow network with a few faces, in place of the two that the check takes."""
    folder = tmp_path_factory.mktemp("small")
    init_checkpoint(folder / "small.safetensors", seed=3, width=0.125, classes=PRESETS["rafdb"])
    checkpoint = read_checkpoint(folder / "small.safetensors")
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (4, 224, 224, 3), np.uint8)
    landmarks = rng.uniform(60, 160, (4, 5, 2)).astype(np.float32)
    Image.fromarray(images[0]).save(folder / "face.png")
    with torch.inference_mode():
        pictures = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        logits = checkpoint.model(pictures, torch.from_numpy(landmarks)).numpy()
    return Network(checkpoint, [Face(folder / "face.png", landmarks[0])], images, landmarks, logits, np.arange(4) % 2, 0.5)


def test_without_a_gpu_it_says_so_writes_that_down_and_exits_1(no_gpu: None, tmp_path: Path) -> None:
    command = [str(TOOL), "-o", str(tmp_path / "result")]
    # As in an active environment: the tests may run in one that is not.
    active = {"VIRTUAL_ENV": sys.prefix, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **active})
    assert done.returncode == 1, done.stderr
    assert "no CUDA GPU can be used here" in done.stderr and "Traceback" not in done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["gpu"] is None and result["parts"] == [] and "no CUDA GPU" in result["problem"]
    assert result["environment"]["ampnet_opt"] == ampnet_opt.__version__ and result["packages"]["torch"]
    page = (tmp_path / "result.md").read_text()
    assert "**No GPU: nothing was run.**" in page and result["problem"] in page


def test_the_recorded_cases_are_the_full_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "recorded", raising=False)
    monkeypatch.setattr(
        sys, "path", [folder for folder in sys.path if Path(folder).name != "support"]
    )  # as outside of pytest
    full = network("full", tmp_path)
    assert round(sum(p.numel() for p in full.checkpoint.model.parameters()) / 1e6, 1) == 59.4
    calibration = {face.file.read_bytes() for face in full.calibration}
    assert len(calibration) == 32 and len(full.images) == 32
    with torch.inference_mode():
        pictures = torch.from_numpy(full.images[:2]).permute(0, 3, 1, 2).float() / 255
        logits = full.checkpoint.model(pictures, torch.from_numpy(full.landmarks[:2])).numpy()
    np.testing.assert_allclose(logits, full.logits[:2], atol=1e-4)


@pytest.mark.slow
def test_parts_of_the_cpu_backend_pass_and_wrong_answers_do_not(small: Network, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    (title, build), (_, answers), *_ = parts("cpu", small, tmp_path)
    assert run("early", answers) == CheckedPart("early", "skipped", "its engine was not built", {})
    built = run(title, build)
    assert (built.name, built.outcome) == ("fp32: build", "passed"), built
    assert built.figures["megabytes"] > 1
    right = run("right", answers)
    assert right.outcome == "passed" and right.figures["same_top1"] == 1, right
    assert right.figures["top1"] == right.figures["top1_of_pytorch"]
    other = replace(small, logits=small.logits[::-1])
    wrong = run("wrong", [work for _, work in parts("cpu", other, tmp_path)][1])
    assert wrong.outcome == "failed" and "off by" in wrong.detail


@pytest.mark.slow
def test_up_to_where_the_gpu_begins_rtx_builds_and_then_says_why_not(no_gpu: None, small: Network, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    found = [run(title, work) for title, work in list(parts("tensorrt-rtx", small, tmp_path))[:6]]
    assert [part.outcome for part in found] == ["passed"] + ["failed"] * 5
    assert (tmp_path / "tensorrt-rtx-fp32" / "engine.plan").is_file()
    for part in found[1:]:
        assert part.detail.startswith(("no CUDA GPU", "CUDA failed")), part
        assert "\n" not in part.detail


@pytest.mark.parametrize(
    ("subject", "module", "reason"),
    [("pytorch", "torch", "sees no GPU"), ("onnxruntime", "onnxruntime", "without CUDA")],
)
def test_other_libraries_without_cuda_are_skipped(
    no_gpu: None, small: Network, tmp_path: Path, subject: str, module: str, reason: str
) -> None:
    if module == "onnxruntime" and "CUDA" in "".join(pytest.importorskip(module).get_available_providers()):
        pytest.skip("this ONNX Runtime is built for CUDA")
    for title, work in parts(subject, small, tmp_path):
        part = run(title, work)
        assert part.outcome == "skipped" and reason in part.detail and module in part.detail


def test_what_goes_wrong_is_one_sentence() -> None:
    def fail(error: Exception) -> dict[str, object]:
        raise error

    assert run("a", lambda: fail(AmpnetError("no luck"))) == CheckedPart("a", "failed", "no luck", {})
    assert run("a", lambda: fail(ValueError("first\nsecond"))) == CheckedPart("a", "failed", "ValueError: first second", {})
    assert run("a", lambda: fail(Skipped("not here"))) == CheckedPart("a", "skipped", "not here", {})


def test_a_module_that_is_missing_is_skipped_with_what_installs_it(tmp_path: Path) -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        (part,) = gpu_check.check_network("tensorrt", "shipped")
        assert part.outcome == "skipped" and "pip install" in part.detail
    else:
        pytest.skip("tensorrt is installed here")


def test_rtx_is_skipped_on_a_gpu_that_it_does_not_know() -> None:
    library = pytest.importorskip("tensorrt_rtx")
    hopper, ada = cuda.Gpu("NVIDIA H100 80GB HBM3", "9.0"), cuda.Gpu("NVIDIA GeForce RTX 4090", "8.9")
    assert unknown_gpu(library, ada) == ""
    problem = unknown_gpu(library, hopper)
    assert "does not run on this machine's NVIDIA H100 80GB HBM3, of compute capability 9.0: it does on 7.5, 8.0" in problem
    assert problem.endswith("use --backend tensorrt") and "9.0" not in known_capabilities(library)


def test_a_crash_is_a_part_that_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "python"
    passed = json.dumps(CheckedPart("first", "passed", "", {"x": 1}).__dict__)
    script.write_text(
        f"#!/bin/sh\necho '{json.dumps({'begin': 'first'})}'\necho '{passed}'\n"
        f"echo '{json.dumps({'begin': 'second'})}'\necho gone wrong >&2\nkill -SEGV $$\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(script))
    first, second = gpu_check.check_network("pytorch", "shipped")
    assert first == CheckedPart("first", "passed", "", {"x": 1})
    assert (second.name, second.outcome) == ("second", "failed")
    assert second.detail == "the process ended by signal SIGSEGV (gone wrong)"


def test_the_page_has_every_part_and_time() -> None:
    result = gpu_check.new_result()
    result["gpu"] = {"name": "Orin", "compute_capability": "8.7", "integrated": True}
    timed = row_of(8, [0.004, 0.002, 0.003], [0.001, 0.001, 0.0015])
    assert timed["end_to_end"][0] == pytest.approx(3) and timed["gpu"][0] == pytest.approx(1)
    result["parts"] = [
        {"subject": "tensorrt", "network": "full", **CheckedPart("int8: build", "passed", "", {"seconds": 61.5}).__dict__},
        {"subject": "tensorrt", "network": "full", **CheckedPart("int8: right answers", "failed", "a | b", {}).__dict__},
        {"subject": "tensorrt", "network": "full", **CheckedPart("fast", "passed", "", {"latency": [timed]}).__dict__},
    ]
    page = to_markdown(result)
    assert "GPU: Orin, compute capability 8.7, shares the processor's memory" in page
    assert "## tensorrt, full network" in page
    assert "| int8: build | passed | seconds 61.5 |" in page
    assert "| int8: right answers | failed | a \\| b |" in page
    assert "| fast | 8 | 1.000 / 1.490 | 3.000 / 3.980 | - |" in page
