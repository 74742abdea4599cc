"""INT8 beside the float network: what is measured, what is refused, and of what a build warns."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundled import checkpoint, quiet, recipe
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import numpy_helper
from PIL import Image
from sidecars import SIDECAR

from ampnet_opt.bundling.targets import TARGETS
from ampnet_opt.calibration.histogram import FEW, doubts
from ampnet_opt.convert.build import Options, build, prepared
from ampnet_opt.convert.bundle import bundle_recipe
from ampnet_opt.convert.source import Int8, Source, calibrate, float_proof, proof_of, source_of
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.faces.face import Face
from ampnet_opt.network.checkpoint import read_checkpoint
from ampnet_opt.runtime import golden
from ampnet_opt.runtime.backend import RTX, TYPED, UNSIGNED, find_backend
from ampnet_opt.runtime.build import EngineRequest, build_engine, compile_engine
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.golden import CALIBRATION, DOUBTED, DRAWN, REFUSED, Proof, require_close, spread_sqnr
from ampnet_opt.runtime.sidecar import Accuracy, BatchRange, describe_accuracy, parse_sidecar, read_sidecar
from ampnet_opt.shipped import CHECKPOINT
from ampnet_opt.synthetic import face
from ampnet_opt.synthetic.dataset import DEFAULT_CLASSES

logits = arrays(np.float32, (5, 3), elements=st.floats(-100, 100, width=16))


@given(logits, st.floats(-50, 50, width=16))
def test_what_all_faces_have_in_common_is_no_signal(reference: np.ndarray, shift: float) -> None:
    reference = np.round(reference)
    noisy = reference + np.float32(0.5)
    found, moved = spread_sqnr(noisy, reference), spread_sqnr(noisy + np.float32(shift), reference + np.float32(shift))
    assert found is not None and moved is not None
    assert found == pytest.approx(moved, abs=0.1)
    assert spread_sqnr(reference, reference) is None


def test_noise_as_large_as_the_signal_is_zero_decibels() -> None:
    reference = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)
    assert spread_sqnr(np.zeros((2, 2), np.float32), reference) == pytest.approx(0)
    assert spread_sqnr(reference * 1.1, reference) == pytest.approx(20, abs=0.01)
    for none in (np.full((2, 2), np.nan, np.float32), np.full((2, 2), np.inf, np.float32)):
        assert spread_sqnr(none, reference) == golden.LOWEST
    assert spread_sqnr(reference, np.zeros((2, 2), np.float32)) == golden.LOWEST


def found(sqnr_db: float | None) -> list[Accuracy]:
    return [Accuracy(CALIBRATION, 8, 1.0, 30.0, True), Accuracy(DRAWN, 7, 2 / 7, sqnr_db, True)]


def test_what_is_too_far_is_refused_with_what_was_measured_and_what_to_do() -> None:
    with pytest.raises(AmpnetError, match=r"same top-1 on 29% of 7 drawn faces, SQNR 5\.9 dB; needed: 6 dB.*--data.*--fp16"):
        require_close(found(REFUSED - 0.1), trained=True)
    for sqnr_db in (REFUSED, DOUBTED, 80.0, None):
        require_close(found(sqnr_db), trained=True)
    require_close(found(-90.0), trained=False)  # answers of untrained weights mean nothing


def test_what_is_rather_far_is_warned_of() -> None:
    (said,) = golden.doubts(found(DOUBTED - 0.1), trained=True)
    assert "7 drawn faces, SQNR 13.9 dB" in said and "--min-sqnr" in said
    assert not golden.doubts(found(DOUBTED), True) and not golden.doubts(found(None), True)
    assert not golden.doubts(found(-90.0), trained=False)


def test_inspect_tells_where_it_was_measured() -> None:
    rows = [{"on": DRAWN, "faces": 7, "same_top1": 1.0, "sqnr_db": 30.04, "engine": False}]
    assert describe_accuracy(replace(SIDECAR, accuracy=rows)) == (
        "beside the float network (its graph in ONNX Runtime): same top-1 on 100% of 7 drawn faces, SQNR 30.0 dB"
    )


def test_a_sidecar_whose_accuracy_is_none_is_damaged(tmp_path: Path) -> None:
    good = {"on": DRAWN, "faces": 7, "same_top1": 1.0, "sqnr_db": None, "engine": True}
    for wrong in ({**good, "sqnr_db": "much"}, {"on": DRAWN}, {**good, "more": 1}, {**good, "same_top1": math.nan}):
        replace(SIDECAR, accuracy=[wrong]).write(tmp_path)
        with pytest.raises(AmpnetError, match="damaged"):
            parse_sidecar(tmp_path)
    replace(SIDECAR, accuracy=[good]).write(tmp_path)
    assert parse_sidecar(tmp_path).accuracy == [good]


# Calibration faces


def pictures(folder: Path, count: int, make: Callable[[int], np.ndarray]) -> list[Face]:
    """`count` pictures that `make` gives, with the landmarks of a drawn face."""
    folder.mkdir()
    _, points = face(0, "neutral")
    faces = [Face(folder / f"{i}.png", points, DEFAULT_CLASSES[i % 7]) for i in range(count)]
    for i, one in enumerate(faces):
        Image.fromarray(make(i)).save(one.file)
    return faces


def noise(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (224, 224, 3), np.uint8)


def level(value: int) -> np.ndarray:
    return np.full((224, 224, 3), value, np.uint8)


def test_faces_that_will_not_do_are_told_apart(tmp_path: Path) -> None:
    good = pictures(tmp_path / "good", FEW, noise)
    assert doubts(good) == []
    assert doubts(good[:8]) == [f"INT8 is calibrated on 8 pictures: take {FEW} or more, as varied as those to come"]
    assert doubts(good[:1])[0].startswith("INT8 is calibrated on 1 picture:")
    same = pictures(tmp_path / "same", 40, lambda i: noise(i % 4))
    assert doubts(same)[0] == "of the 40 calibration faces only 4 are different pictures"
    some = pictures(tmp_path / "some", FEW, lambda i: level(i) if i % 16 == 3 else noise(i))
    assert doubts(some) == ["2 of 32 calibration pictures are blank, 3.png for one"]
    assert any("8 of 8 calibration pictures are blank" in said for said in doubts(pictures(tmp_path / "b", 8, level)))


@pytest.fixture(scope="module")
def shipped() -> Source:
    return source_of(read_checkpoint(CHECKPOINT), "uint8")


def calibrated(source: Source, faces: list[Face]) -> Proof:
    int8 = calibrate(source, faces, "entropy")
    return proof_of(float_proof(source, faces), int8.quantize(source.graph, source.placement), "int8")


def drawn(folder: Path, count: int) -> list[Face]:
    """Drawn faces other than those of the proof."""
    folder.mkdir()
    faces = []
    for i in range(count):
        image, points = face(100 + i, DEFAULT_CLASSES[i % 7])
        faces.append(Face(folder / f"{i}.png", points, DEFAULT_CLASSES[i % 7]))
        Image.fromarray(image).save(faces[-1].file)
    return faces


@pytest.mark.parametrize(("name", "value"), [("black", 0), ("grey", 128), ("white", 255)])
def test_scales_of_blank_pictures_are_refused(
    shipped: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, value: int
) -> None:
    proof = calibrated(shipped, pictures(tmp_path / name, 2, lambda i: level(value)))
    on_drawn, on_theirs = proof.accuracy
    assert (on_drawn.on, on_drawn.faces, on_theirs.on, on_theirs.faces) == (DRAWN, 7, CALIBRATION, 2)
    assert on_drawn.sqnr_db is not None and on_drawn.sqnr_db < REFUSED
    with pytest.raises(AmpnetError, match=r"does not answer like the float network \(same top-1 on \d+% of 7 drawn faces"):
        require_close(proof.accuracy, trained=True)
    assert "2 of 2 calibration pictures are blank" in caplog.text


def test_faces_give_scales_that_are_not_doubted_and_one_face_is_warned_of(
    shipped: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faces = drawn(tmp_path / "drawn", FEW)
    with caplog.at_level(logging.WARNING):
        good = calibrated(shipped, faces)
        assert caplog.text == ""
        calibrated(shipped, faces[:1])
    assert "INT8 is calibrated on 1 picture" in caplog.text
    require_close(good.accuracy, trained=True)
    assert not golden.doubts(good.accuracy, trained=True)
    assert min(found.same_top1 for found in good.accuracy) > 0.8


def test_a_build_on_black_pictures_leaves_nothing_whatever_the_backend(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    black = pictures(tmp_path / "black", 2, lambda i: level(0))
    with pytest.raises(AmpnetError, match=r"INT8 does not answer like the float network"):
        build(read_checkpoint(CHECKPOINT), Options("cpu", ["int8"], faces=black), tmp_path / "engines", quiet)
    assert not (tmp_path / "engines").exists()


def test_a_bundle_of_wrong_scales_is_not_written(tmp_path: Path) -> None:
    good = recipe()
    assert good.int8 is not None
    small = {name: 2.0**-14 for name in good.int8.table.scales}
    wrong = Int8(replace(good.int8.table, scales=small))
    spoilt = replace(good, int8=wrong, origin=replace(good.origin, trained=True))
    with pytest.raises(AmpnetError, match="INT8 does not answer like the float network"):
        bundle_recipe(spoilt, ["int8"], TARGETS["orin-nano"], tmp_path / "orin.tar", quiet)
    assert list(tmp_path.iterdir()) == []


def test_scales_of_another_checkpoint_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    assert recipe().int8 is not None
    table = recipe().int8.table  # type: ignore[union-attr]
    for other in (
        replace(table, checkpoint_sha256="0" * 64),
        replace(table, checkpoint_sha256="", graph_sha256="0" * 64),  # of before checkpoints were recorded
    ):
        with pytest.raises(MisuseError, match=r"scales \(--scales\) are of another checkpoint.*leave out --scales"):
            build(checkpoint(), Options("cpu", ["int8"], table=other), tmp_path / "engines", quiet)
    replace(table, checkpoint_sha256="", graph_sha256=recipe().source.sha256).require_for("1" * 64, recipe().source.sha256)
    assert not (tmp_path / "engines").exists()


# One place verifies the engines of all backends


def test_a_typed_int8_graph_that_is_refused_is_built_again_with_float32_scales(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorrt_rtx")
    good = recipe()
    ready = prepared(good, good.model("int8"), "int8", TYPED)
    assert ready.float32_scales == good.model("int8").SerializeToString()
    options = CompileOptions(BatchRange(1, 1, 2), ("8.9",))
    refused = replace(ready, graph=b"no graph")
    request = EngineRequest(find_backend("tensorrt-rtx"), options, good.origin, refused, good.proof)
    sidecar, _ = compile_engine(request, tmp_path)
    assert sidecar.target["scales"] == "float32" and "float32_layers" not in sidecar.target
    assert "built again with float32 scales" in caplog.text
    with pytest.raises(AmpnetError, match=r"cannot read the graph: .*; with float32 scales: .*cannot read the graph"):
        compile_engine(replace(request, prepared=replace(refused, float32_scales=b"nor this")), tmp_path)
    with pytest.raises(AmpnetError, match="cannot read the graph"):
        compile_engine(replace(request, prepared=replace(refused, float32_scales=None)), tmp_path)


BUILDERS = ["tensorrt-rtx", "tensorrt"]


@pytest.mark.parametrize("backend", ["cpu", *(pytest.param(name, marks=pytest.mark.slow) for name in BUILDERS)])
def test_an_engine_of_another_graph_is_refused_wherever_it_can_run(tmp_path: Path, backend: str) -> None:
    """The network whose heads have the opposite weights, compiled in the place of ours."""
    pytest.importorskip({"cpu": "openvino"}.get(backend, backend.replace("-", "_")))
    good = recipe()
    other = onnx.ModelProto()
    other.CopyFrom(good.model("int8"))
    read = {name for node in other.graph.node if node.op_type == "Gemm" for name in node.input[1:]}
    for tensor in (tensor for tensor in other.graph.initializer if tensor.name in read):
        tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    form = {"cpu": UNSIGNED, "tensorrt-rtx": RTX}.get(backend, TYPED)
    wrong = prepared(good, other, "int8", form)
    proof = proof_of(good.proof, good.model("int8"), "int8")
    compiling = CompileOptions(BatchRange(1, 1, 4), ("8.9",) if backend == "tensorrt-rtx" else ())
    target = tmp_path / "engine"
    try:
        reason = build_engine(EngineRequest(find_backend(backend), compiling, good.origin, wrong, proof), target)
    except AmpnetError as error:
        assert "computes this graph wrongly" in str(error) or backend == "tensorrt"
        assert not target.exists()
        return
    assert backend != "cpu" and ("CUDA" in reason or "compute capability" in reason)
    assert [row["engine"] for row in read_sidecar(target).accuracy or []] == [False]


def test_a_good_engine_is_measured_itself(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    good = recipe()
    ready = prepared(good, good.model("int8"), "int8", UNSIGNED)
    proof = proof_of(good.proof, good.model("int8"), "int8")
    request = EngineRequest(find_backend("cpu"), CompileOptions(), good.origin, ready, proof)
    assert build_engine(request, tmp_path / "engine") == ""
    (row,) = read_sidecar(tmp_path / "engine").accuracy or []
    assert (row["on"], row["faces"], row["engine"]) == (DRAWN, 7, True)
