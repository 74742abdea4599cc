"""`ampnet-opt inspect`: what an engine is, from its directory alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sidecars import SIDECAR
from small import placement, quantized

from ampnet_opt.cli import inspect as cli_inspect
from ampnet_opt.convert import openvino as convert_cpu
from ampnet_opt.convert.placement import expected_layers
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import sha256
from ampnet_opt.runtime.layers import CONVOLUTION, Layer, layer_warnings, list_layers, summarise
from ampnet_opt.runtime.sidecar import NAME, describe_choice, rebuild_command

# Everything but the base install: numpy, typer, rich and pillow are left.
ABSENT = [
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt_rtx",
    "cuda",
    "pycuda",
    "safetensors",
    "matplotlib",
]
SCRIPT = f"import sys; sys.modules.update(dict.fromkeys({ABSENT})); from ampnet_opt.cli.main import main; main()"

JSON = {False: None, True: Path("-")}


def inspect(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command where no backend can be imported."""
    command = [sys.executable, "-c", SCRIPT, "inspect", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200", "TERM": "dumb"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real INT8 engine of the small network, for the cpu."""
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("engine")
    files, version = convert_cpu.write_ir(quantized(), "int8", folder)
    hashes = {name: sha256(folder / name) for name in files}
    sidecar = replace(SIDECAR, backend="cpu", backend_version=version, precision="int8", files=hashes, target={})
    layers = list_layers(folder, sidecar, expected_layers(quantized(), "int8"))
    replace(sidecar, layers=layers).write(folder)
    return folder


def test_a_table_of_kinds_without_any_backend(engine: Path) -> None:
    result = inspect(engine)
    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stdout.replace("│", " ").splitlines()]
    text = [" ".join(line) for line in lines]
    assert "image uint8 [N, 224, 224, 3]" in text
    assert "batches 1 to 16, fastest at 1" in text
    assert "classes " + ", ".join(SIDECAR.classes) in text
    int8 = [int(line[2]) for line in lines if line[:2] in (["Convolution", "int8"], ["FullyConnected", "int8"])]
    assert sum(int8) == len(placement().layers)
    assert any(line.startswith("layers 93 convolutions and 2 matrix products in INT8, ") for line in text)
    assert any(line.startswith("engine.bin ") and " unchanged, SHA-256 " in line for line in text)
    assert "build again ampnet-opt build CKPT --int8 --backend cpu" in text


def test_every_layer_on_request(engine: Path) -> None:
    result = inspect(engine, "--layers")
    assert result.returncode == 0, result.stderr
    assert all(layer in result.stdout for layer in placement().layers)
    assert placement().layers[0] not in inspect(engine).stdout


def test_everything_as_json(engine: Path) -> None:
    result = inspect(engine, "--json", "-")
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    content = json.loads((engine / NAME).read_text())
    for key in content.keys() - {"format", "files"}:
        assert said[key] == content[key]
    assert said["tensors"][2] == {"name": "logits", "dtype": "float32", "shape": [None, len(SIDECAR.classes)]}
    for name, file in said["files"].items():
        size = (engine / name).stat().st_size
        assert file == {"sha256": content["files"][name], "state": "unchanged", "bytes": size}
    assert said["rebuild"] == "ampnet-opt build CKPT --int8 --backend cpu"


def test_a_json_file_is_written_beside_the_tables(engine: Path, tmp_path: Path) -> None:
    shown = inspect(engine, "--json", tmp_path / "engine.json").stdout
    assert shown == inspect(engine).stdout
    assert (tmp_path / "engine.json").read_text() == inspect(engine, "--json", "-").stdout


def plan(folder: Path, **fields: Any) -> Path:
    """An engine directory whose plan no library here could open."""
    (folder / "engine.plan").write_bytes(b"plan")
    sidecar = replace(SIDECAR, files={"engine.plan": sha256(folder / "engine.plan")}, **fields)
    sidecar.write(folder)
    return folder


def test_a_downgrade_is_named(tmp_path: Path) -> None:
    layers = [Layer("[bold]/a/Conv", "CaskConvolution", CONVOLUTION, "fp16", 18, ("/a/Conv",))]
    record = summarise(layers, "int8", {"/a/Conv": (), "/b/Conv": ()})
    result = inspect(plan(tmp_path, precision="int8", layers=record), "--layers")
    assert result.returncode == 0, result.stderr
    assert "warning: 1 layer in FP16, not in INT8: /a/Conv" in result.stdout
    assert "warning: the precision of 1 layer that should be in INT8 is unlisted: /b/Conv" in result.stdout
    assert "[bold]/a/Conv" in result.stdout


@pytest.mark.parametrize(
    ("record", "words"),
    [(None, "of this engine nothing was kept"), ({"not_listed": "no GPU"}, "layers not listed: no GPU")],
)
def test_an_engine_whose_layers_are_not_known_says_so(tmp_path: Path, record: Any, words: str) -> None:
    result = inspect(plan(tmp_path, layers=record))
    assert result.returncode == 0, result.stderr
    assert words in result.stdout
    assert rebuild_command(SIDECAR) in result.stdout


def test_classes_that_were_assumed_are_said_to_be(tmp_path: Path) -> None:
    names = ["a", "b"]  # so short that the line is not broken
    assert "a, b (assumed: the checkpoint names none)" in inspect(plan(tmp_path, classes=names, classes_assumed=True)).stdout
    plan(tmp_path, classes=names)
    content = json.loads((tmp_path / NAME).read_text())
    del content["classes_assumed"]  # as in an engine of an older version
    (tmp_path / NAME).write_text(json.dumps(content))
    result = inspect(tmp_path)
    assert result.returncode == 0 and "(assumed" not in result.stdout
    (tmp_path / NAME).write_text(json.dumps({**content, "classes_assumed": "no"}))
    result = inspect(tmp_path)
    assert result.returncode == 1 and "classes_assumed" in result.stderr


def test_a_choice_of_layers_says_what_was_measured() -> None:
    layers = [{"name": "stem"}, {"name": "trunk.0.0.first"}]
    record = {"float_layers": layers, "top1": 0.85, "float_top1": 0.857, "agreement": 0.992, "sqnr_db": 25.22}
    assert describe_choice({**record, "held_out_faces": 509}) == (
        "2 layers kept in floating point (stem, trunk.0.0.first): top-1 85.0% (float: 85.7%), same top-1 99.2%, "
        "SQNR 25.2 dB, on 509 held-out faces"
    )
    assert describe_choice({**record, "float_layers": [], "sqnr_db": None, "held_out_faces": 1}) == (
        "0 layers kept in floating point: top-1 85.0% (float: 85.7%), same top-1 99.2%, on 1 held-out face"
    )


@pytest.mark.parametrize("as_json", [False, True])
def test_a_changed_file_is_shown_and_fails(tmp_path: Path, as_json: bool) -> None:
    plan(tmp_path)
    (tmp_path / "engine.plan").write_bytes(b"another")
    result = inspect(tmp_path, *(["--json", "-"] if as_json else []))
    assert result.returncode == 1
    assert result.stderr.strip() == f"error: engine {tmp_path} was changed after it was built: engine.plan"
    assert "changed" in result.stdout
    if as_json:
        assert json.loads(result.stdout)["files"]["engine.plan"]["state"] == "changed"


@pytest.mark.parametrize(
    "record",
    [{}, {"list": [["kind", "int8", 3]]}, {"list": 3}, {"not_listed": None, "list": [[1, 2, 3, 4]]}, {"as_asked": []}],
)
def test_a_damaged_list_is_one_sentence(tmp_path: Path, record: dict[str, Any]) -> None:
    with pytest.raises(AmpnetError, match=r"engine\.json is damaged \(.*build the engine again$") as caught:
        cli_inspect.inspect(plan(tmp_path, layers=record), layers=False, json_file=None)
    assert "\n" not in str(caught.value)


SEARCHED = {"float_layers": [], "top1": 0.9, "float_top1": 0.9, "agreement": 1.0, "sqnr_db": None, "held_out_faces": 9}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"float_layers": [{}]}, "'name'"),
        ({"float_layers": [3]}, "float_layers is no dict"),
        ({"top1": "high"}, "top1 is no float"),
        ({"held_out_faces": None}, "held_out_faces is missing|no int"),
        ({"min_sqnr": "25"}, "min_sqnr is no float"),
    ],
)
def test_a_damaged_choice_is_one_sentence(tmp_path: Path, wrong: dict[str, Any], words: str, as_json: bool) -> None:
    cli_inspect.inspect(plan(tmp_path, mixed_precision=SEARCHED), layers=False, json_file=JSON[as_json])
    with pytest.raises(AmpnetError, match=rf"engine\.json is damaged \(.*({words}).*build the engine again$"):
        cli_inspect.inspect(plan(tmp_path, mixed_precision={**SEARCHED, **wrong}), layers=False, json_file=JSON[as_json])


def test_what_is_no_engine_is_misuse(tmp_path: Path) -> None:
    assert inspect(tmp_path).returncode == 2
    assert inspect(tmp_path / "none").returncode == 2


def test_many_layers_in_another_precision_are_one_line() -> None:
    downgraded = {f"/conv{number}": "fp32" for number in range(92)} | {"/other": "fp16"}
    assert layer_warnings({"precision": "int8", "downgraded": downgraded}) == [
        "92 layers in FP32, not in INT8: /conv0, /conv1, /conv2 and 89 more",
        "1 layer in FP16, not in INT8: /other",
    ]
