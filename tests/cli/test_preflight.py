"""What is checked before an engine is loaded, and what the refusals say."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from sidecars import SIDECAR
from small import faces, float_graph

from ampnet_opt.cli.main import application
from ampnet_opt.convert import openvino as convert_cpu
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import sha256
from ampnet_opt.runtime import Engine, compile_options, cuda
from ampnet_opt.runtime.backend import find_backend
from ampnet_opt.runtime.openvino import executor as cpu
from ampnet_opt.runtime.sidecar import (
    NAME,
    OPTIONS,
    BatchRange,
    Sidecar,
    parse_sidecar,
    read_sidecar,
    rebuild_command,
)
from ampnet_opt.runtime.tensorrt import plan as trt
from ampnet_opt.runtime.tensorrt.library import FAMILIES, this_platform

PLAIN = replace(SIDECAR, backend="tensorrt", target={"compute_capability": "8.6", "platform": this_platform()})


def test_the_essential_files_and_options_are_those_of_the_backends() -> None:
    assert find_backend("cpu").files == (cpu.MODEL, Path(cpu.MODEL).with_suffix(".bin").name)
    assert {find_backend(name).files for name in FAMILIES} == {(trt.PLAN,)}
    shaping = compile_options.BuilderOptions(1, Path(), 1, True, "ampere+", 0, Path()).record()
    flags = {"workspace_mib" if name == "workspace" else name: flag for name, flag in compile_options.FLAGS.items()}
    assert {name: flags[name] for name in shaping} == OPTIONS


# TensorRT's support matrix: a plan runs in the version that built it; one built version-compatible runs in later ones too,
# of the same major version, or from 8 in 10, or from 10 in 11.
@pytest.mark.parametrize(
    ("built", "installed", "plain", "version_compatible"),
    [
        ("10.3.0", "10.3.0", True, True),
        ("10.3.0", "10.16.1.11", False, True),
        ("10.16.1.11", "10.3.0", False, False),
        ("8.6.2", "10.3.0", False, True),
        ("10.3.0", "11.4.1.2", False, True),
        ("8.6.2", "11.4.1.2", False, False),
        ("11.4.1.2", "10.16.1", False, False),
        ("8.5.2.2", "8.5.3.1", False, True),
    ],
)
def test_versions_of_tensorrt(built: str, installed: str, plain: bool, version_compatible: bool) -> None:
    sidecar = replace(PLAIN, backend_version=built)
    assert trt._compatible(sidecar, installed) is plain
    assert trt._compatible(replace(sidecar, target={"version_compatible": True}), installed) is version_compatible


@pytest.mark.parametrize(
    ("installed", "runs"), [("1.7.0.5", False), ("1.7.1.116", True), ("1.8.0.1", False), ("2.7.1", False)]
)
def test_versions_of_rtx(installed: str, runs: bool) -> None:
    assert trt._compatible(SIDECAR, installed) is runs


@pytest.mark.parametrize(
    ("target", "able"),
    [
        ({"compute_capability": "8.9"}, True),
        ({"compute_capability": "8.6"}, False),
        ({"compute_capabilities": ["8.6", "8.9"]}, True),
        ({"compute_capabilities": ["8.6", "12.0"]}, False),
        ({"compute_capability": "12.0", "hardware_compatible": "ampere+"}, True),
        ({"compute_capability": "8.6", "hardware_compatible": "same-compute-capability"}, False),
    ],
)
def test_gpus(monkeypatch: pytest.MonkeyPatch, target: dict[str, Any], able: bool) -> None:
    """The GPU is told, since none is here: an Ada one, of compute capability 8.9."""
    version = pytest.importorskip("tensorrt_rtx").__version__
    monkeypatch.setattr(cuda, "gpu", lambda: cuda.Gpu("NVIDIA RTX 4090", "8.9"))
    sidecar = replace(SIDECAR, backend_version=version, target=target)
    if able:
        trt.check(sidecar)
        return
    with pytest.raises(AmpnetError, match=r"RTX 4090 has 8\.9; build it again here: ampnet-opt build CKPT --fp32 "):
        trt.check(sidecar)


NANO, ORIN = "NVIDIA Jetson Orin Nano", "NVIDIA Jetson AGX Orin"


@pytest.mark.parametrize(
    ("target", "gpu", "board", "named"),
    [
        ({"gpu": "Orin", "board": NANO}, "Orin", NANO, ""),
        ({"gpu": "Orin", "board": NANO}, "Orin", ORIN, f"built for Orin on {NANO}, and this is Orin on {ORIN}"),
        ({"gpu": "Orin"}, "Orin", ORIN, ""),  # from before the board was recorded
        ({"gpu": "NVIDIA L4"}, "NVIDIA RTX 4090", "", "built for NVIDIA L4, and this is NVIDIA RTX 4090"),
        ({"gpu": "NVIDIA L4", "hardware_compatible": "ampere+"}, "NVIDIA RTX 4090", "", ""),
        ({"compute_capabilities": ["8.9"]}, "NVIDIA RTX 4090", "", ""),
    ],
)
def test_an_engine_of_another_board_is_warned_of(target: dict[str, Any], gpu: str, board: str, named: str) -> None:
    warning = trt.built_elsewhere(target, gpu, board)
    assert named in warning and bool(named) == bool(warning)


def test_ampere_plus_needs_ampere(monkeypatch: pytest.MonkeyPatch) -> None:
    version = pytest.importorskip("tensorrt_rtx").__version__
    monkeypatch.setattr(cuda, "gpu", lambda: cuda.Gpu("NVIDIA T4", "7.5"))
    target = {"compute_capability": "8.6", "hardware_compatible": "ampere+"}
    with pytest.raises(AmpnetError, match=r"capability 8\.0 and later, but this machine's NVIDIA T4 has 7\.5"):
        trt.check(replace(SIDECAR, backend_version=version, target=target))


def test_the_command_that_builds_an_engine_again() -> None:
    assert rebuild_command(PLAIN) == "ampnet-opt build CKPT --fp32 --backend tensorrt"
    rtx = replace(SIDECAR, target={"compute_capabilities": ["8.6", "8.9"]}, image_input="float32")
    assert rebuild_command(rtx) == (
        "ampnet-opt build CKPT --fp32 --backend tensorrt-rtx --input float32 "
        "--compute-capability 8.6 --compute-capability 8.9"
    )
    assert rebuild_command(EVERYTHING) == (
        "ampnet-opt build CKPT --int8 --backend tensorrt --min-batch 2 --opt-batch 4 --max-batch 8 --optimization-level 5 "
        "--version-compatible --hardware-compatible ampere+ --workspace 512 --dla 0 --scales ENGINE/calibration.json "
        "--max-drop 0.5 --min-sqnr 25 --min-agreement 99 --data DATA"
    )


def test_the_command_names_the_faces_that_layers_were_chosen_by() -> None:
    budget = {"min_sqnr": 25.0, "min_agreement": 0.99}
    own = {"split": "all", "faces": 64, "held_out": "dev set", "landmarks_format": "pixels", "drawn": False}
    drawn = {"split": "train", "faces": 256, "held_out": "val", "drawn": True}
    again = [rebuild_command(replace(PLAIN, precision="int8", mixed_precision={**budget, **more})) for more in (own, drawn)]
    what = "ampnet-opt build CKPT --int8 --backend tensorrt --min-sqnr 25 --min-agreement 99"
    assert again == [
        f"{what} --data DATA --split all --faces 64 --held-out 'dev set' --landmarks-format pixels",
        f"{what} --split train --faces 256 --held-out val",
    ]


EVERYTHING = replace(
    PLAIN,
    precision="int8",
    batch=BatchRange(2, 4, 8),
    calibration_sha256="3" * 64,
    mixed_precision={"max_drop": 0.5, "min_agreement": 0.99, "min_sqnr": 25.0},
    target={
        "version_compatible": True,
        "hardware_compatible": "ampere+",
        "optimization_level": 5,
        "workspace_mib": 512,
        "dla_core": 0,
    },
)


def test_the_command_has_options_that_build_knows() -> None:
    command: Any = typer.main.get_command(application())
    known = {name for parameter in command.commands["build"].params for name in parameter.opts}
    rtx = replace(SIDECAR, image_input="float32")
    assert set(re.findall(r"--\S+", f"{rebuild_command(EVERYTHING)} {rebuild_command(rtx)}")) <= known


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cpu engine of the small network."""
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("engine")
    files, version = convert_cpu.write_ir(float_graph(), "fp32", folder)
    hashes = {name: sha256(folder / name) for name in files}
    replace(SIDECAR, backend="cpu", backend_version=version, classes=["a", "b", "c"], files=hashes, target={}).write(folder)
    return folder


@pytest.fixture
def changed(engine: Path, tmp_path: Path) -> Path:
    """A copy of it, in whose graph somebody added a blank."""
    for path in engine.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with open(tmp_path / "engine.xml", "ab") as stream:
        stream.write(b"\n")
    return tmp_path


def test_a_changed_engine_is_refused_with_the_command(changed: Path) -> None:
    with pytest.raises(
        AmpnetError, match=r"engine\.xml does not match.*ampnet-opt build CKPT --fp32 --backend cpu.*--trusted"
    ):
        Engine.load(changed)


def test_a_changed_engine_runs_when_it_is_trusted(engine: Path, changed: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), Engine.load(changed, trusted=True) as loaded, Engine.load(engine) as whole:
        np.testing.assert_array_equal(loaded.infer(*faces()), whole.infer(*faces()))
    assert [record.getMessage() for record in caplog.records if "engine.xml" in record.getMessage()] == [
        f"engine {changed}: engine.xml does not match engine.json; taken as trusted"
    ]


def test_trust_does_not_replace_a_file(changed: Path) -> None:
    (changed / "engine.bin").unlink()
    with pytest.raises(AmpnetError, match=r"engine\.bin is missing"):
        read_sidecar(changed, trusted=True)


def rewritten(folder: Path, **fields: Any) -> Path:
    path = folder / NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return folder


def test_an_engine_without_a_hash_of_its_program_is_refused(changed: Path) -> None:
    """Else a plan could be exchanged, once its line in the sidecar is gone."""
    rewritten(changed, files={})
    for trusted in (False, True):
        with pytest.raises(AmpnetError, match=r"damaged \(it has no hash of engine\.xml\)"):
            read_sidecar(changed, trusted)


def test_layers_of_another_type_are_damage(changed: Path) -> None:
    with pytest.raises(AmpnetError, match="layers is no dict"):
        parse_sidecar(rewritten(changed, layers=["conv"]))


def test_an_engine_from_before_the_layers_is_still_read(engine: Path, changed: Path) -> None:
    content = json.loads((engine / NAME).read_text())
    del content["layers"]
    (changed / NAME).write_text(json.dumps(content))
    sidecar: Sidecar = parse_sidecar(changed)
    assert sidecar.layers is None
