"""Bundles: what goes into them, what comes out of them, and which are refused."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bundled import checkpoint, make_bundle, options, quiet, recipe
from full_disk import no_file_beyond, resource
from onnx import TensorProto
from places import ROOT
from small import CLASSES, faces
from typer.testing import CliRunner

from ampnet_opt.bundling.pack import README, bundle_engine
from ampnet_opt.bundling.targets import EXAMPLE, EXAMPLE_TABLE, TARGETS, readme, require_precisions
from ampnet_opt.bundling.wheel import write_wheel
from ampnet_opt.cli.main import application
from ampnet_opt.convert.build import MixedPrecision, build
from ampnet_opt.convert.bundle import bundle_checkpoint, bundle_recipe
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.faces.face import load_face, read_faces
from ampnet_opt.runtime import Engine
from ampnet_opt.runtime.backend import RTX, TYPED, UNSIGNED, WEAK
from ampnet_opt.runtime.build import TABLE
from ampnet_opt.runtime.bundle import FORMAT, GOLDEN, NAME, BundlePart, is_bundle, open_bundle
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.runtime.golden import Golden, require_right
from ampnet_opt.runtime.sidecar import BatchRange, Sidecar, read_sidecar
from ampnet_opt.runtime.unbundle import build_bundle
from ampnet_opt.shipped import GOLDEN_FACES
from ampnet_opt.synthetic.dataset import DEFAULT_CLASSES


@pytest.fixture(scope="module")
def cpu_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("cpu") / "cpu.tar", "cpu", ["fp32", "int8"])


@pytest.fixture(scope="module")
def orin_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("orin") / "orin.tar", "orin-nano", ["fp32", "fp16", "int8"])


@pytest.fixture(scope="module")
def built(cpu_bundle: Path) -> Path:
    pytest.importorskip("openvino")
    engines = build_bundle(
        cpu_bundle, cpu_bundle.parent / "engines", quiet, precisions=["int8"], options=CompileOptions(BatchRange(1, 1, 4))
    )
    ((engine, reason),) = engines.items()
    assert engine == cpu_bundle.parent / "engines" / "cpu-int8" and reason == ""
    return engine


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def write_tar(path: Path, content: dict[str, bytes], *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in more:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def retold(content: dict[str, bytes], change: Callable[[dict[str, Any]], object]) -> dict[str, bytes]:
    """The members, with a bundle.json that was changed."""
    told = json.loads(content[NAME])
    change(told)
    return {**content, NAME: json.dumps(told).encode()}


# The wheel


def test_wheel_holds_every_module_of_the_package_and_no_weights(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path)
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in [("ampnet_opt", "ampnet_opt")] + [
        (name, f"ampnet_opt/{name}") for name in ("benchmarks", "calibration", "convert", "runtime")
    ]:
        sources = {f"{inside}/{file.relative_to(ROOT / folder).as_posix()}" for file in (ROOT / folder).rglob("*.py")}
        assert sources and sources <= names
    tomllib = pytest.importorskip("tomllib")
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    for package, patterns in shipped.items():
        inside = package.replace(".", "/")
        found = [file for pattern in patterns for file in (ROOT / inside).glob(pattern) if file.suffix != ".safetensors"]
        assert {f"{inside}/{file.relative_to(ROOT / inside).as_posix()}" for file in found} <= names
    assert not [name for name in names if name.endswith((".pyc", ".safetensors"))]


def test_wheel_records_the_hash_and_size_of_every_file(tmp_path: Path) -> None:
    archive = zipfile.ZipFile(write_wheel(tmp_path))
    (record,) = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(archive.read(record).decode()))}
    assert set(rows) == set(archive.namelist())
    assert rows.pop(record) == ["", ""]
    for name, (digest, size) in rows.items():
        data = archive.read(name)
        expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        assert (digest, int(size)) == (f"sha256={expected}", len(data))


def test_equal_files_make_equal_wheels(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert write_wheel(tmp_path / "a").read_bytes() == write_wheel(tmp_path / "b").read_bytes()


# What is in a bundle


def test_a_bundle_names_and_hashes_its_members(cpu_bundle: Path) -> None:
    content = members(cpu_bundle)
    told = json.loads(content.pop(NAME))
    assert told["members"] == {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    assert {README, TABLE, GOLDEN, "fp32-unsigned.onnx", "int8-unsigned.onnx"} < set(content)
    assert [name for name in content if name.endswith(".whl")]
    with tarfile.open(cpu_bundle) as tar:
        first, *_ = tar.getnames()
        assert first == NAME  # a copy that was cut off is still known as a bundle
        assert {(m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, "", "")}


def test_a_board_with_several_versions_gets_each_form_once(orin_bundle: Path) -> None:
    graphs = {n: onnx.load_from_string(d) for n, d in members(orin_bundle).items() if n.endswith(".onnx")}
    # Float32 and, told by flags, FP16 are one graph in both worlds; so four instead of six.
    assert set(graphs) == {"fp32-weak.onnx", "fp16-typed.onnx", "int8-weak.onnx", "int8-typed.onnx"}
    with open_bundle(orin_bundle) as bundle:
        parts = {part.precision: part for part in bundle.contents.parts or []}
    assert parts["fp32"].graphs == {WEAK: "fp32-weak.onnx", TYPED: "fp32-weak.onnx"}
    assert parts["fp16"].graphs == {WEAK: "fp32-weak.onnx", TYPED: "fp16-typed.onnx"}
    stored = {name: {t.data_type for t in graph.graph.initializer if len(t.dims) > 1} for name, graph in graphs.items()}
    assert TensorProto.FLOAT16 in stored["fp16-typed.onnx"] and TensorProto.FLOAT16 not in stored["fp32-weak.onnx"]
    assert TensorProto.INT8 in stored["int8-typed.onnx"] and TensorProto.INT8 not in stored["int8-weak.onnx"]


@pytest.mark.parametrize(
    ("target", "forms"),
    [("xavier", {WEAK}), ("thor", {TYPED}), ("agx-orin", {WEAK, TYPED}), ("rtx", {RTX}), ("cpu", {UNSIGNED})],
)
def test_each_machine_gets_the_graphs_that_its_versions_take(target: str, forms: set[str]) -> None:
    assert set(TARGETS[target].forms) == forms


def test_a_precision_that_no_version_of_a_target_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="--bf16 is not for xavier"):
        bundle_checkpoint(checkpoint(), options("tensorrt", ["bf16"]), TARGETS["xavier"], tmp_path / "b.tar", quiet)
    with pytest.raises(MisuseError, match="bf16 is not for the backend onnxruntime"):
        require_precisions(TARGETS["arm"], ["fp32", "bf16"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", list(TARGETS))
def test_the_readme_has_the_commands_of_its_machine(name: str) -> None:
    target = TARGETS[name]
    text = readme(target, "b.tar", "w.whl", [f"{target.backend}-int8"])
    assert f"pip install './w.whl[{target.extra}]'" in text and "ampnet-opt build b.tar" in text
    jetson = target.backend == "tensorrt" and name != "gpu"
    assert ("--system-site-packages" in text) == ("nvpmodel -m" in text) == ("jetson_clocks" in text) == jetson
    assert max(map(len, text.splitlines())) <= 125


def test_the_faces_in_a_bundle_are_drawn_and_none_of_the_users(cpu_bundle: Path) -> None:
    with open_bundle(cpu_bundle) as bundle:
        golden = bundle.golden()
    for image, drawn in zip(golden.images, read_faces(GOLDEN_FACES, whole=True), strict=True):
        np.testing.assert_array_equal(image, load_face(drawn)[0])
    assert golden.logits.shape == (7, len(CLASSES))


# What comes out


@pytest.mark.slow
def test_an_engine_from_a_bundle_is_that_of_a_direct_build(built: Path, tmp_path: Path) -> None:
    (direct,) = build(
        checkpoint(), replace(options("cpu", ["int8"]), compiling=CompileOptions(BatchRange(1, 1, 4))), tmp_path, quiet
    )
    first, second = (asdict(read_sidecar(path)) for path in (direct, built))
    for told in (first, second):
        del told["built"], told["build_seconds"]
        del told["layers"]["list"]  # in which OpenVINO numbers what it adds while it compiles
    assert second == first
    assert second["calibration_sha256"] == hashlib.sha256((direct / TABLE).read_bytes()).hexdigest()
    assert sorted(file.name for file in built.iterdir()) == sorted(file.name for file in direct.iterdir())
    with Engine.load(direct) as one, Engine.load(built) as other:
        # The files are equal; a run of one of them has been seen to round one INT8 value of one face differently.
        np.testing.assert_allclose(other.infer(*faces()), one.infer(*faces()), rtol=0, atol=1e-3)


def test_a_bundle_for_arm_makes_an_engine_of_onnx_runtime(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "arm.tar", "arm", ["fp32"])
    ((engine, reason),) = build_bundle(bundle, tmp_path / "engines", quiet).items()
    assert engine.name == "onnxruntime-fp32" and reason == ""
    with open_bundle(bundle) as opened, Engine.load(engine) as loaded:
        golden = opened.golden()
        np.testing.assert_allclose(loaded.infer(golden.images, golden.landmarks), golden.logits, atol=1e-4)


def test_what_was_measured_on_held_out_faces_travels_along(tmp_path: Path) -> None:
    mixed = MixedPrecision(recipe().source.placement.layers[:1], {"held_out_faces": 3})
    path = bundle_recipe(replace(recipe(), mixed_precision=mixed), ["int8"], TARGETS["cpu"], tmp_path / "mixed.tar", quiet)
    with open_bundle(path) as bundle:
        (part,) = bundle.contents.parts or []
        ready = bundle.prepared(part, UNSIGNED)
    assert ready.mixed_precision == {"held_out_faces": 3}
    assert mixed.layers[0] not in ready.expected and len(ready.expected) > 90


def test_an_engine_that_computes_something_else_is_not_handed_out(cpu_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    content = members(cpu_bundle)
    golden = Golden.from_bytes(content[GOLDEN])
    content[GOLDEN] = replace(golden, logits=golden.logits[::-1] * 2).to_bytes()

    def change(told: dict[str, Any]) -> None:
        told["members"][GOLDEN] = hashlib.sha256(content[GOLDEN]).hexdigest()

    path = write_tar(tmp_path / "other.tar", retold(content, change))
    with pytest.raises(AmpnetError, match=r"cpu .* computes this graph wrongly: run 1 at a time.* one batch size"):
        build_bundle(path, tmp_path / "engines", quiet, precisions=["fp32"])
    assert not (tmp_path / "engines").exists()


def test_an_engine_may_be_off_by_what_its_graph_is_off_by(built: Path) -> None:
    with open_bundle(built.parent.parent / "cpu.tar") as bundle:
        golden = bundle.golden()
    other = replace(golden, logits=golden.logits * 0.8)  # the engine is off by a quarter
    assert other.error(golden.logits) == pytest.approx(0.25)
    require_right(built, other, 0.2)
    with pytest.raises(AmpnetError, match=r"off by 2\d%, the graph's own by 2%"):
        require_right(built, other, 0.02)


def test_a_graph_of_another_version_is_not_taken(orin_bundle: Path) -> None:
    with open_bundle(orin_bundle) as bundle:
        typed, weak = (TYPED, "int8-typed.onnx"), (WEAK, "int8-weak.onnx")
        assert bundle.prepared(BundlePart("int8", dict([typed]), 0.0, ["node"]), TYPED).float32_layers == ["node"]
        assert bundle.prepared(BundlePart("int8", dict([weak]), 0.0, ["node"]), WEAK).float32_layers is None
        both = BundlePart("int8", dict([weak, typed]), 0.0)
        assert bundle.prepared(both, TYPED).float32_scales == bundle.read("int8-weak.onnx")
        assert bundle.prepared(both, WEAK).float32_scales is None
        with pytest.raises(
            AmpnetError, match=r"made for orin-nano, and has no graph for the version of tensorrt .*--target"
        ):
            bundle.prepared(BundlePart("int8", {WEAK: "int8-weak.onnx"}, 0.0), TYPED)


def test_a_tensorrt_bundle_needs_its_board(orin_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(AmpnetError, match=r"tensorrt|CUDA"):
        build_bundle(orin_bundle, tmp_path / "engines", quiet)
    assert not (tmp_path / "engines").exists()


# Which are refused


def damaged(path: Path, output: Path) -> str:
    with pytest.raises(AmpnetError) as caught:
        build_bundle(path, output, quiet)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert not output.exists()
    return str(caught.value)


@pytest.mark.parametrize("name", ["fp32-unsigned.onnx", "int8-unsigned.onnx", GOLDEN, TABLE])
def test_a_changed_byte_is_noticed(cpu_bundle: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("openvino")
    content = members(cpu_bundle)
    data = bytearray(content[name])
    data[len(data) // 2] ^= 1
    path = write_tar(tmp_path / "changed.tar", {**content, name: bytes(data)})
    with pytest.raises(AmpnetError, match=f"{name} does not match bundle.json.*copy it again"):
        build_bundle(
            path, tmp_path / "engines", quiet, precisions=["int8" if name in {TABLE, "int8-unsigned.onnx"} else "fp32"]
        )
    assert [file.name for file in tmp_path.iterdir()] == ["changed.tar"]


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_copy_that_was_cut_off_is_noticed(cpu_bundle: Path, tmp_path: Path, share: float) -> None:
    data = cpu_bundle.read_bytes()
    path = tmp_path / "short.tar"
    path.write_bytes(data[: int(len(data) * share)])
    assert is_bundle(path)
    assert "damaged" in damaged(path, tmp_path / "engines")


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (entry("/etc/evil"), "outside itself"),
        (entry("../evil"), "outside itself"),
        (entry("folder/evil"), "outside itself"),
        (entry("..\\evil"), "outside itself"),
        (entry(".."), "outside itself"),
        (entry("C:evil"), "outside itself"),
        (entry("link", tarfile.SYMTYPE, "/etc/passwd"), "no plain file"),
        (entry("link", tarfile.LNKTYPE, NAME), "no plain file"),
        (entry("folder", tarfile.DIRTYPE), "no plain file"),
        (entry("pipe", tarfile.FIFOTYPE), "no plain file"),
        (entry("device", tarfile.CHRTYPE), "no plain file"),
        (entry(README), "twice"),
        (entry("more.txt"), "does not list"),
    ],
)
def test_members_that_could_do_harm_are_refused(
    cpu_bundle: Path, tmp_path: Path, member: tarfile.TarInfo, words: str
) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = write_tar(folder / "evil.tar", members(cpu_bundle), member)
    assert words in damaged(path, folder / "engines")
    assert [file.name for file in tmp_path.rglob("*")] == ["inner", "evil.tar"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda told: told.update(format="ampnet-opt-bundle/99"), "another version of ampnet-opt"),
        (lambda told: told.pop("members"), "damaged"),
        (lambda told: told.update(members=["a"]), "damaged"),
        (lambda told: told["members"].update({"gone.onnx": "00"}), "gone.onnx is missing"),
        (lambda told: told["members"].pop(GOLDEN), "golden.npz is missing"),
        (lambda told: told["members"].pop(TABLE), "calibration.json is missing"),
        (lambda told: told.update(backend="../../evil"), "it is for ../../evil"),
        (lambda told: told["parts"][0].update(precision="../evil"), "../evil"),
        (lambda told: told["parts"][0].update(graphs=[]), "damaged"),
        (lambda told: told["parts"][0].update(graphs={"unsigned": README}), "no .onnx"),
        (lambda told: told["parts"][0].update(graph_error="0.1"), "graph_error is no float"),
        (lambda told: told["parts"][0].update(graph_error=-1), "the error of its graph"),
        (lambda told: told["parts"][0].update(expected={"a": 5}), "expected"),
        (lambda told: told["parts"][0].update(mixed_precision=[]), "mixed_precision is no dict"),
        (lambda told: told["origin"].update(classes=[1]), "classes"),
        (lambda told: told["origin"].update(classes=["one"]), "another number of classes"),
        (lambda told: told["origin"].update(image_input="float32"), "its faces are uint8"),
        (lambda told: told.update(origin=None), "nothing of its checkpoint"),
        (lambda told: told.update(parts=None), "damaged"),
        (lambda told: told.update(unknown=1), "damaged"),
    ],
)
def test_a_table_of_contents_that_lies_is_refused(
    cpu_bundle: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    path = write_tar(tmp_path / "lying.tar", retold(members(cpu_bundle), change))
    assert words in damaged(path, tmp_path / "engines")


def test_a_table_of_contents_that_is_no_json_is_refused(cpu_bundle: Path, tmp_path: Path) -> None:
    for text in (b"", b"\xff\xfe", b"[]", b"3", b"[" * 100_000, b'{"format": "%s"}' % FORMAT.encode()):
        path = write_tar(tmp_path / "other.tar", {**members(cpu_bundle), NAME: text})
        assert "damaged" in damaged(path, tmp_path / "engines")


def test_other_files_are_no_bundles(cpu_bundle: Path, tmp_path: Path) -> None:
    assert is_bundle(cpu_bundle)
    for name, data in {"empty": b"", "text": b"x" * 2000, "zip": b"PK\3\4" + bytes(600)}.items():
        (tmp_path / name).write_bytes(data)
        assert not is_bundle(tmp_path / name)
    assert not is_bundle(write_tar(tmp_path / "other.tar", {"README.txt": b"x"}))
    assert not is_bundle(tmp_path) and not is_bundle(tmp_path / "none")
    (tmp_path / "other.gz").write_bytes(gzip.compress(b"text" * 500))
    assert not is_bundle(tmp_path / "other.gz")


# Unpacked, compressed, packed again


def tar_of(folder: Path, path: Path, *options: str) -> Path:
    """Packed by the system's tar."""
    subprocess.run(["tar", "-cf", str(path), *options], cwd=folder, check=True)
    return path


@pytest.fixture
def unpacked(cpu_bundle: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    subprocess.run(["tar", "-xf", str(cpu_bundle), "-C", str(folder)], check=True)
    (folder / "notes.txt").write_text("of the user")
    return folder


def same_as(cpu_bundle: Path, other: Path) -> None:
    assert is_bundle(other)
    with open_bundle(cpu_bundle) as one, open_bundle(other) as two:
        assert one.contents == two.contents
        assert all(one.read(name) == two.read(name) for name in one.contents.members)
        assert len(two.golden().images) == len(DEFAULT_CLASSES)


def test_a_bundle_that_was_unpacked_is_read(cpu_bundle: Path, unpacked: Path) -> None:
    same_as(cpu_bundle, unpacked)


def test_a_bundle_that_was_compressed_is_read(cpu_bundle: Path, tmp_path: Path) -> None:
    for name in ("b.tar.gz", "b.tgz"):
        (tmp_path / name).write_bytes(gzip.compress(cpu_bundle.read_bytes(), 1))
        same_as(cpu_bundle, tmp_path / name)
    (tmp_path / "cut.tgz").write_bytes((tmp_path / "b.tgz").read_bytes()[:50_000])
    assert is_bundle(tmp_path / "cut.tgz") and "damaged" in damaged(tmp_path / "cut.tgz", tmp_path / "engines")


def test_a_bundle_that_was_packed_again_is_read(cpu_bundle: Path, unpacked: Path, tmp_path: Path) -> None:
    (unpacked / "notes.txt").unlink()
    for name, place, what in (
        ("dot", unpacked, ["."]),
        ("folder", tmp_path, ["unpacked"]),
        ("reversed", unpacked, sorted((file.name for file in unpacked.iterdir()), reverse=True)),
        ("pax", unpacked, ["--format=pax", "."]),
        ("ustar", unpacked, ["--format=ustar", "."]),
    ):
        same_as(cpu_bundle, tar_of(place, tmp_path / f"{name}.tar", *what))


def test_a_bundle_of_an_earlier_version_with_times_in_pax_headers_is_read(cpu_bundle: Path, unpacked: Path) -> None:
    (unpacked / "notes.txt").unlink()
    path = unpacked.parent / "earlier.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for file in sorted(unpacked.iterdir(), key=lambda file: file.name != NAME):
            tar.add(file, file.name)
    assert b"mtime=" in path.read_bytes()
    same_as(cpu_bundle, path)


def test_a_changed_file_of_an_unpacked_bundle_is_noticed(unpacked: Path, tmp_path: Path) -> None:
    with (unpacked / "fp32-unsigned.onnx").open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"changed")
    with open_bundle(unpacked) as bundle, pytest.raises(
        AmpnetError, match=r"fp32-unsigned\.onnx does not match bundle\.json"
    ):
        bundle.read("fp32-unsigned.onnx")


def test_a_link_that_leads_out_of_an_unpacked_bundle_is_not_followed(unpacked: Path, tmp_path: Path) -> None:
    table = unpacked / TABLE
    outside = table.rename(tmp_path / "outside.json")
    table.symlink_to(outside)
    with open_bundle(unpacked) as bundle, pytest.raises(AmpnetError, match="is a link that leads out of it"):
        bundle.read(TABLE)
    (unpacked / NAME).rename(tmp_path / NAME)
    (unpacked / NAME).symlink_to(tmp_path / NAME)
    with pytest.raises(AmpnetError, match="is a link that leads out of it"), open_bundle(unpacked):
        pass


def test_faces_that_unpack_to_more_than_a_bundle_has_are_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("images", "landmarks", "logits"):
            archive.writestr(f"{name}.npy", bytes(50 << 20))
    with pytest.raises(ValueError, match="are not those of a bundle"):
        Golden.from_bytes(stream.getvalue())


def test_faces_whose_bytes_are_changed_anywhere_are_read_or_refused() -> None:
    valid = Golden(
        np.zeros((2, 224, 224, 3), np.uint8), np.ones((2, 5, 2), np.float32), np.ones((2, 2), np.float32)
    ).to_bytes()
    refused = 0
    for place in range(len(valid)):
        for changed in (valid[:place], valid[:place] + b"\xff\xff\xff\xff" + valid[place + 4 :]):
            try:
                Golden.from_bytes(changed)
            except ValueError as error:
                assert str(error)
                refused += 1
    assert refused > len(valid)


# What goes wrong on the way


@contextmanager
def stopped(name: str, total: int) -> Iterator[Callable[[float], None]]:
    if name.startswith(("preparing int8", "building")):
        raise KeyboardInterrupt
    yield lambda done: None


def test_a_full_disk_leaves_the_old_bundle(tmp_path: Path) -> None:
    path = tmp_path / "small.tar"
    path.write_bytes(b"old")
    with pytest.raises(MisuseError, match="exists already; pass --force"):
        bundle_checkpoint(checkpoint(), options("cpu", ["int8"]), TARGETS["cpu"], path, quiet)
    recipe()
    with no_file_beyond(300_000), pytest.raises(
        AmpnetError, match=r"^cannot write .*small\.tar: .*nothing was changed there"
    ):
        make_bundle(path, "cpu", ["fp32"])
    assert [file.name for file in tmp_path.iterdir()] == ["small.tar"] and path.read_bytes() == b"old"


def test_a_full_disk_on_the_board_leaves_nothing(cpu_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    with no_file_beyond(300_000), pytest.raises(AmpnetError, match=r"^cannot write .*cpu-fp32: .*nothing was changed there"):
        build_bundle(cpu_bundle, tmp_path / "engines", quiet)
    assert not list(tmp_path.iterdir())
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_ctrl_c_leaves_nothing(cpu_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        bundle_recipe(recipe(), ["fp32", "int8"], TARGETS["cpu"], tmp_path / "new" / "small.tar", stopped)
    with pytest.raises(KeyboardInterrupt):
        build_bundle(cpu_bundle, tmp_path / "engines", stopped)
    assert not list(tmp_path.iterdir())


# Engines in bundles


def test_a_cpu_engine_travels_as_it_is(built: Path, tmp_path: Path) -> None:
    path = bundle_engine(built, TARGETS["cpu"], tmp_path / "engine.tar")
    (engine,) = build_bundle(path, tmp_path / "board", quiet, precisions=["int8"], backend="cpu")
    assert engine == tmp_path / "board" / "cpu-int8"
    for file in built.iterdir():
        assert (engine / file.name).read_bytes() == file.read_bytes()
    assert sorted(file.name for file in engine.iterdir()) == sorted(file.name for file in built.iterdir())
    with tarfile.open(path) as tar:  # unpacked by hand, it is an engine as well
        tar.extractall(tmp_path / "by_hand")
    # A face at a time: OpenVINO without AVX-512 varies in the last digits with several, where channels are few.
    images, landmarks = faces()
    with Engine.load(tmp_path / "by_hand") as one, Engine.load(built) as other:
        for row in range(len(images)):
            face = images[row : row + 1], landmarks[row : row + 1]
            np.testing.assert_array_equal(one.infer(*face), other.infer(*face))
    with pytest.raises(MisuseError, match="holds int8, not fp32: make one with --fp32"):
        build_bundle(path, tmp_path / "board", quiet, precisions=["fp32"])


def test_an_engine_goes_only_to_its_own_kind_of_machine(built: Path, tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match=r"is for the backend cpu: take --target cpu, or bundle its checkpoint"):
        bundle_engine(built, TARGETS["rtx"], tmp_path / "engine.tar")
    folder = tmp_path / "trt"
    folder.mkdir()
    (folder / "engine.plan").write_bytes(b"plan")
    sidecar = asdict(read_sidecar(built))
    sidecar.update(backend="tensorrt", precision="fp16", batch=BatchRange())
    sidecar.update(files={"engine.plan": hashlib.sha256(b"plan").hexdigest()})
    Sidecar(**sidecar).write(folder)
    with pytest.raises(MisuseError, match=r"built on no Jetson: take --target gpu, or bundle its checkpoint"):
        bundle_engine(folder, TARGETS["orin-nx"], tmp_path / "engine.tar")
    assert not (tmp_path / "engine.tar").exists()


def test_a_bundled_engine_names_the_version_it_needs_and_must_be_what_the_bundle_says(built: Path, tmp_path: Path) -> None:
    path = bundle_engine(built, TARGETS["cpu"], tmp_path / "engine.tar")
    content = members(path)
    version = read_sidecar(built).backend_version
    assert f"cpu {version}" in content[README].decode()
    other = {"fp32": "int8", "int8": "fp32"}[read_sidecar(built).precision]
    lying = write_tar(tmp_path / "lying.tar", retold(content, lambda told: told.update(engine_precision=other)))
    assert "its engine is" in damaged(lying, tmp_path / "engines")


def test_a_damaged_engine_is_not_bundled(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "engine")
    (tmp_path / "engine" / "engine.bin").write_bytes(b"other")
    with pytest.raises(AmpnetError, match="was changed after it was built"):
        bundle_engine(tmp_path / "engine", TARGETS["cpu"], tmp_path / "engine.tar")


# The commands


def ampnet(*arguments: object) -> tuple[int, str]:
    """Exit code of the command, and what it said; an error of ours as `main` would say it."""
    result = CliRunner().invoke(application(), [str(argument) for argument in arguments])
    if isinstance(result.exception, AmpnetError):
        return result.exception.exit_code, str(result.exception)
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "faces.csv"], "already calibrated and exported: --data is for ampnet-opt bundle"),
        (["--calibration", "entropy"], "--calibration"),
        (["--faces", "256"], "--faces"),  # even with the default's value
        (["--max-drop", "1"], "--max-drop"),
        (["--input", "uint8"], "--input"),
        (["--classes", "rafdb"], "--classes"),
        (["--bf16"], "holds fp32, int8, not bf16: make one with --bf16"),
        (["--backend", "tensorrt"], "is for the backend cpu, not tensorrt"),
        (["--compute-capability", "8.9"], "tensorrt-rtx"),
    ],
)
def test_what_a_bundle_has_decided_cannot_be_asked_of_its_build(
    cpu_bundle: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    code, said = ampnet("build", cpu_bundle, "-o", tmp_path / "engines", *arguments)
    assert code == 2 and words in said
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_commands_from_checkpoint_to_board(cpu_bundle: Path, built: Path, tmp_path: Path) -> None:
    code, said = ampnet("build", cpu_bundle, "--int8", "-o", tmp_path / "engines", "--max-batch", 4)
    assert code == 0 and f"{tmp_path / 'engines' / 'cpu-int8'}: " in said and "(untrained weights)" in said
    assert read_sidecar(tmp_path / "engines" / "cpu-int8").batch == BatchRange(1, 1, 4)
    assert [path.name for path in (tmp_path / "engines").iterdir()] == ["cpu-int8"]
    code, said = ampnet("build", cpu_bundle, "--int8", "-o", tmp_path / "engines")
    assert code == 2 and "exists already; pass --force" in said
    with tarfile.open(cpu_bundle) as tar:
        for name in (EXAMPLE, EXAMPLE_TABLE):
            tar.extract(name, tmp_path)
    code, said = ampnet("run", built, tmp_path / EXAMPLE, "--landmarks", tmp_path / EXAMPLE_TABLE)
    assert code == 0 and f"{tmp_path / EXAMPLE}  " in said
    packed = tmp_path / "engine.tar"
    code, said = ampnet("bundle", built, "--target", "cpu", "-o", packed)
    assert code == 0 and f"tar -xOf {packed} README.txt" in said
    code, said = ampnet("bundle", built, "--target", "cpu", "-o", packed)
    assert code == 2 and "exists already; pass --force" in said
    code, said = ampnet("bundle", built, "--target", "cpu", "-o", packed, "--force", "--int8")
    assert code == 2 and "is finished: --int8 is for bundles of a checkpoint" in said
    code, said = ampnet("build", packed, "-o", tmp_path / "again", "--max-batch", 8)
    assert code == 2 and "holds a finished engine: --max-batch is for bundles of a checkpoint" in said
    assert ampnet("bundle", "--target", "nano")[0] == 2
    for command in (
        ["export", cpu_bundle, "-o", tmp_path / "x.onnx"],
        ["bundle", cpu_bundle, "--target", "cpu", "-o", tmp_path / "y.tar"],
    ):
        code, said = ampnet(*command)
        assert code == 2 and f"is a bundle, not a checkpoint: build its engines with ampnet-opt build {cpu_bundle}" in said


def test_pip_installs_the_wheel_without_index_or_build_tools(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(tmp_path / "site")]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    script = "import sys; sys.path.insert(0, sys.argv[1]); import ampnet_opt.runtime as r; print(r.__file__)"
    found = subprocess.run([sys.executable, "-S", "-c", script, str(tmp_path / "site")], capture_output=True, text=True)
    # Without site-packages there is no numpy, which is what the runtime asks for first: the package itself was found.
    assert "No module named 'numpy'" in found.stderr and str(tmp_path / "site") in found.stderr
