"""A model repository holds what Triton and OpenVINO read, equal to the engines, or is not there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from console_script import fails, left_in, succeeds
from engines import save_engine
from hypothesis import given
from hypothesis import strategies as st
from small import CLASSES, faces, float_graph

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.files import sha256
from ampnet_opt.runtime import Engine
from ampnet_opt.runtime.sidecar import BatchRange, parse_sidecar
from ampnet_opt.serving.guide import ONNX_RUNTIME, OPENVINO
from ampnet_opt.serving.model_config import quoted
from ampnet_opt.serving.repository import write_repository

protobuf = pytest.importorskip("google.protobuf.text_format")
model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="Triton's own format of configurations")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_engine(float_graph(), "0" * 64, tmp_path_factory.mktemp("served") / "cpu-fp32", CLASSES)


@pytest.fixture(scope="module")
def repository(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "repository"
    said = succeeds("serve-files", engine, "-o", folder)
    assert str(folder / "cpu-fp32-faces") in said.stdout
    assert "BF16" in said.stderr and "untrained" in said.stderr
    return folder


def like(engine: Path, place: Path, **values: Any) -> Path:
    """An engine directory of another backend: the files' bytes are of no importance to whoever copies them."""
    sidecar = replace(parse_sidecar(engine), **values)
    place.mkdir()
    for name in sidecar.files:
        (place / name).write_bytes(name.encode())
    replace(sidecar, files={name: sha256(place / name) for name in sidecar.files}).write(place)
    return place


def config(folder: Path) -> Any:
    return protobuf.Parse((folder / "config.pbtxt").read_text(), model_config.ModelConfig())


def test_a_model_of_faces_gives_the_logits_of_its_engine(engine: Path, repository: Path) -> None:
    images, landmarks = faces()
    compiled = openvino.Core().compile_model(
        repository / "cpu-fp32" / "1" / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    with Engine.load(engine) as loaded:
        logits = loaded.infer(images, landmarks)
        assert np.allclose(compiled((images, landmarks))[0], logits, atol=1e-5)
        assert (repository / "cpu-fp32" / "labels.txt").read_text().split() == loaded.classes
    told = config(repository / "cpu-fp32")
    assert {one.get_any_name() for one in compiled.inputs} == {one.name for one in told.input}
    assert {one.get_any_name() for one in compiled.outputs} == {one.name for one in told.output}


def test_a_model_of_pictures_carries_the_whole_engine(engine: Path, repository: Path) -> None:
    with Engine.load(engine) as own, Engine.load(repository / "cpu-fp32-faces" / "1" / "engine") as carried:
        assert np.array_equal(own.infer(*faces()), carried.infer(*faces()))
        assert carried.sidecar == own.sidecar
    told = config(repository / "cpu-fp32-faces")
    assert (told.backend, told.max_batch_size, told.name) == ("python", 0, "cpu-fp32-faces")
    assert told.parameters["classes"].string_value.split(",") == own.classes
    assert [(one.name, list(one.dims)) for one in told.input] == [("picture", [1])]
    compile((repository / "cpu-fp32-faces" / "1" / "model.py").read_text(), "model.py", "exec")


@pytest.mark.parametrize(
    ("values", "files", "head", "kind"),
    [
        ({"backend": "tensorrt", "precision": "int8"}, {"engine.plan": "model.plan"}, "tensorrt_plan", "KIND_GPU"),
        ({"backend": "tensorrt", "precision": "fp16"}, {"engine.plan": "model.plan"}, "tensorrt_plan", "KIND_GPU"),
        ({"backend": "onnxruntime", "precision": "fp32"}, {"engine.onnx": "model.onnx"}, "onnxruntime_onnx", "KIND_CPU"),
        (
            {"backend": "cpu", "precision": "bf16"},
            {"engine.xml": "model.xml", "engine.bin": "model.bin"},
            "openvino",
            "KIND_CPU",
        ),
    ],
)
def test_a_configuration_says_what_the_engine_takes(
    engine: Path, tmp_path: Path, values: dict[str, str], files: dict[str, str], head: str, kind: str
) -> None:
    batch = BatchRange(1, 8, 32)
    made = like(engine, tmp_path / "made", batch=batch, files=dict.fromkeys(files, ""), image_input="float32", **values)
    write_repository([made], tmp_path / "repository")
    told = config(tmp_path / "repository" / "made")
    assert head in (told.platform, told.backend)
    assert told.max_batch_size == 32 and list(told.dynamic_batching.preferred_batch_size) == [8]
    types = model_config.DataType
    assert [(one.name, types.Name(one.data_type), list(one.dims)) for one in told.input] == [
        ("image", "TYPE_FP32", [3, 224, 224]),
        ("landmarks", "TYPE_FP32", [5, 2]),
    ]
    assert [(one.name, list(one.dims), one.label_filename) for one in told.output] == [("logits", [3], "labels.txt")]
    assert [model_config.ModelInstanceGroup.Kind.Name(one.kind) for one in told.instance_group] == [kind]
    assert ("HINT_BF16" in told.parameters) == (values["precision"] == "bf16")
    for own, theirs in files.items():
        assert (tmp_path / "repository" / "made" / "1" / theirs).read_text() == own


def test_an_engine_of_one_face_is_not_batched(engine: Path, tmp_path: Path) -> None:
    one = like(engine, tmp_path / "one", batch=BatchRange(1, 1, 1))
    write_repository([one], tmp_path / "repository")
    told = config(tmp_path / "repository" / "one")
    assert told.max_batch_size == 1 and not told.HasField("dynamic_batching")


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("rtx", {"backend": "tensorrt-rtx", "files": {"engine.plan": ""}}, "loads plans of TensorRT alone"),
        ("cuda", {"backend": "onnxruntime-cuda", "files": {"engine.onnx": ""}}, "Triton serves tensorrt, cpu"),
        ("half", {"precision": "fp16"}, "build it in fp32, int8"),
        ("four", {"batch": BatchRange(4, 4, 8)}, "build it with --min-batch 1"),
        ("a b", {}, "is no name for a model of Triton"),
        (".hidden", {}, "is no name for a model of Triton"),
    ],
)
def test_what_triton_cannot_run_as_built_is_refused(
    engine: Path, tmp_path: Path, name: str, values: dict[str, Any], words: str
) -> None:
    made = like(engine, tmp_path / name, **values)
    with pytest.raises(MisuseError, match=words):
        write_repository([engine, made], tmp_path / "new" / "repository")
    assert not (tmp_path / "new").exists()


def test_two_engines_of_one_name_are_refused(engine: Path, tmp_path: Path) -> None:
    other = shutil.copytree(engine, tmp_path / "cpu-fp32")
    with pytest.raises(MisuseError, match="would both be the model cpu-fp32"):
        write_repository([engine, other], tmp_path / "repository")
    faces_too = shutil.copytree(engine, tmp_path / "cpu-fp32-faces")
    with pytest.raises(MisuseError, match="cpu-fp32-faces is the name of the model that finds faces"):
        write_repository([engine, faces_too], tmp_path / "repository")


def test_a_repository_is_whole_or_not_there(engine: Path, repository: Path, tmp_path: Path) -> None:
    before = left_in(repository)
    fails(2, "pass --force to replace it", "serve-files", engine, "-o", repository)
    damaged = Path(shutil.copytree(engine, tmp_path / "damaged"))
    (damaged / "engine.bin").write_bytes(b"")
    with pytest.raises(AmpnetError, match="was changed after it was built"):
        write_repository([engine, damaged], repository, force=True)
    with pytest.raises(MisuseError, match="neither a YuNet nor a CenterFace graph"):
        write_repository([engine], repository, detector=damaged / "engine.xml", force=True)
    assert left_in(repository) == before and left_in(repository.parent)[0] == "repository"


def test_force_replaces_a_repository_and_nothing_else(
    engine: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "holiday.jpg").write_bytes(b"a picture")
    fails(2, "is no model repository, and is not replaced", "serve-files", engine, "-o", photos, "--force")
    assert (photos / "holiday.jpg").is_file()
    monkeypatch.chdir(repository)
    fails(2, "give the name of a directory", "serve-files", engine, "-o", ".", "--force")


def test_an_engine_whose_classes_are_not_its_outputs_is_not_served(engine: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(engine, tmp_path / "damaged"))
    replace(parse_sidecar(engine), classes=["a", "b"]).write(damaged)
    with pytest.raises(AmpnetError, match=rf"it names 2 classes, its network has {len(CLASSES)} outputs"):
        write_repository([damaged], tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_the_guide_names_every_model_and_no_other_backend(repository: Path) -> None:
    text = (repository / "README.md").read_text()
    assert all(f"`{name}`" in text for name in ("cpu-fp32", "cpu-fp32-faces"))
    assert "OpenVINO" in text and "TensorRT" not in text and "ONNX Runtime |" not in text
    (wheel,) = repository.glob("*.whl")
    assert wheel.name in text and json.dumps({"INFERENCE_PRECISION_HINT": "f32"}) in text
    for versions in (OPENVINO, ONNX_RUNTIME):
        assert list(versions) == sorted(versions) and list(versions.values()) == sorted(
            versions.values(), key=lambda version: [int(part) for part in version.split(".")]
        )


@given(st.text())
def test_every_text_survives_the_text_format(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    written = f"name: {quoted(text)}"
    assert protobuf.Parse(written, model_config.ModelConfig()).name == text
    assert written.isascii() and "\n" not in written
