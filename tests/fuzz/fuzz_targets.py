"""Everything that reads a file which others may have written: a small valid file of each kind, and the reader to give it to.

A reader returns, or raises AmpnetError. What it returns is used as the commands use it, so that odd contents are met here.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ampnet_opt.core.files import sha256
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.faces.face import COLUMNS
from ampnet_opt.runtime.sidecar import FORMAT as ENGINE_FORMAT
from ampnet_opt.runtime.sidecar import BatchRange, Sidecar

POINTS = [80, 90, 144, 90, 112, 120, 88, 155, 136, 155]
DIGEST = "ab" * 32
EFFECT = {"sqnr_db": 30.5, "kl": 0.001, "agreement": 0.99, "top1": 0.5}


@dataclass(frozen=True)
class Target:
    """name: of the file that is changed. valid: its bytes as they should be. read: called with its path, beside which the
    files of `around` lie. structure: how it is changed beyond its bytes: "json", "csv", "tar", "safetensors" or ""."""

    name: str
    valid: Callable[[], bytes]
    read: Callable[[Path], None]
    structure: str = ""
    around: Callable[[Path], None] = lambda folder: None


# --- engine.json


def _engine_files(folder: Path) -> None:
    (folder / "engine.xml").write_text("<net/>")
    (folder / "engine.bin").write_bytes(bytes(64))


def _engine(folder: Path | None = None) -> bytes:
    record = {
        "precision": "int8",
        "as_asked": {"convolution": 93, "matrix product": 2},
        "by_design": {"fp32": 58},
        "downgraded": {"/model/a/Conv": "fp32"},
        "untold": ["/model/b/Conv"],
        "reformats": 44,
        "list": [["Convolution", "int8", 864, "/model/a/Conv"], ["Reorder", "", None, "reorder"]],
    }
    choice = {"top1": 0.5, "float_top1": 0.5, "agreement": 0.99, "sqnr_db": 30.0, "held_out_faces": 8, "float_layers": []}
    sidecar = Sidecar(
        backend="cpu",
        backend_version="2026.4",
        precision="int8",
        classes=list(PRESETS["rafdb"]),
        image_input="uint8",
        patch_radius=5,
        trained=True,
        batch=BatchRange(),
        files={"engine.xml": DIGEST, "engine.bin": DIGEST},
        checkpoint_sha256=DIGEST,
        graph_sha256=DIGEST,
        built="2026-11-24T12:00:00+00:00",
        build_seconds=1.5,
        ampnet_opt_version="0.1.0",
        calibration_sha256=DIGEST,
        mixed_precision={**choice, "float_layers": [{"name": "/model/a/Conv"}], "max_drop": 1.0, "min_agreement": 0.99},
        target={"processor": "a CPU", "threads": 2},
        layers=record,
    )
    return json.dumps({"format": ENGINE_FORMAT, **asdict(sidecar)}, indent=2).encode()


def _read_engine(path: Path) -> None:
    from ampnet_opt.cli.build import say_engine
    from ampnet_opt.cli.inspect import inspect
    from ampnet_opt.cli.options import STDOUT
    from ampnet_opt.core.errors import AmpnetError
    from ampnet_opt.runtime.sidecar import parse_sidecar, read_sidecar, rebuild_command

    engine = path.parent
    parse_sidecar(engine)
    shown = io.StringIO()
    with redirect_stdout(shown):
        say_engine(engine, "")
        for layers, json_file in ((False, None), (True, None), (False, STDOUT)):
            try:
                inspect(engine, layers, json_file)
            except AmpnetError as error:
                assert "was changed after it was built" in str(error) or "is damaged" in str(error), error
    assert all(line.isprintable() for line in shown.getvalue().split("\n"))
    rebuild_command(read_sidecar(engine, trusted=True))


# --- other JSON


def _calibration() -> bytes:
    from ampnet_opt.calibration.table import FORMAT, CalibrationTable

    scales, corrections = {"image": 0.0039, "/model/a/Conv_output_0": 0.125}, {"/model/a/Conv": "AACAPwAAgD8="}
    table = CalibrationTable("minmax", 4, DIGEST, DIGEST, scales, corrections=corrections, large_tensors={"image": 2e4})
    return json.dumps({"format": FORMAT, **asdict(table)}).encode()


def _read_calibration(path: Path) -> None:
    from ampnet_opt.calibration.table import read_table

    table = read_table(path)
    assert all(np.float32(scale) >= 0 for scale in table.scales.values())
    assert all(np.isfinite(values).all() for values in table.decoded_corrections().values())


def _sensitivity() -> bytes:
    from ampnet_opt.sensitivity.analysis import FORMAT

    row = {"kind": "layer", "tensors": ["image"], **EFFECT}
    rows = [{"name": name, "layers": [name], **row} for name in ("/model/a/Conv", "/model/b/Conv")]
    hashes = dict.fromkeys(("checkpoint_sha256", "graph_sha256", "data_fingerprint"), DIGEST)
    more = {"faces": 8, "method": "minmax", "mode": "only", "reference_top1": 0.5, "int8": EFFECT, "rows": rows}
    return json.dumps({"format": FORMAT, **hashes, **more}).encode()


def _read_sensitivity(path: Path) -> None:
    from ampnet_opt.core.console import console
    from ampnet_opt.sensitivity.analysis import ranked, read_sensitivity
    from ampnet_opt.sensitivity.report import render_sensitivity

    found = read_sensitivity(path)
    ranked(found.rows, found.mode)
    console(file=io.StringIO()).print(render_sensitivity(found, 20))


def _bench() -> Any:
    from ampnet_opt.benchmarks.bench import Bench, Measured, Timing
    from ampnet_opt.benchmarks.bench_many import ManyTiming
    from ampnet_opt.benchmarks.bench_noise import Interval
    from ampnet_opt.benchmarks.compare import Environment
    from ampnet_opt.core.metrics import Latency

    place = Environment("a CPU", 2, "Linux", {"python": "3.11", "openvino": "2026.4"}, "2026-11-24T12:00:00+00:00")
    timing = Timing(1, Latency(2.0, 2.2, 2.5, 500.0, 100), Interval(1.9, 2.1), False, 0.5, 1 << 28)
    many = ManyTiming(64, 1.0, Interval(0.9, 1.1), False, 1 << 28)
    measured = Measured("cpu-int8", "cpu", "int8", True, DIGEST, 1 << 20, [timing], many)
    return Bench(2, [1], place, None, [measured, replace(measured, name="cpu-fp32")], [], ["a note"])


def _read_benchmark(path: Path) -> None:
    from ampnet_opt.benchmarks.bench_report import render_changes
    from ampnet_opt.benchmarks.regression import changes, read_benchmark
    from ampnet_opt.core.console import console

    console(file=io.StringIO()).print(render_changes(*changes(read_benchmark(path), _bench()), str(path)))


def _comparison() -> bytes:
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6}
    results = [{"name": name, "accuracy": {"top1": estimate}} for name in ("PyTorch", "cpu-int8")]
    return json.dumps({"checkpoint_sha256": DIGEST, "results": results, "notes": ["a note"]}).encode()


def _comparison_engine(folder: Path) -> None:
    engine = folder / "cpu-int8"
    engine.mkdir(exist_ok=True)
    _engine_files(engine)
    content = json.loads(_engine())
    content["files"] = {name: sha256(engine / name) for name in ("engine.xml", "engine.bin")}
    (engine / "engine.json").write_text(json.dumps(content))


def _read_comparison(path: Path) -> None:
    from ampnet_opt.benchmarks.regression import read_accuracy

    assert all(f"{100 * found.value:.1f}" for found in read_accuracy(path, [path.parent / "cpu-int8"]).values())


SETTINGS = {"version": 1, "pictures": DIGEST, "crop": True, "faces": "largest"}


def _journal() -> bytes:
    outcome = {"name": "a.png", "rows": [["a.png", "fear", "train", *map(str, POINTS)]], "reason": "", "detail": ""}
    lines = [SETTINGS, {**outcome, "several": False}, {**outcome, "name": "b.png", "rows": [], "reason": "no face"}]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def _read_journal(path: Path) -> None:
    from ampnet_opt.preparing.journal import Journal

    Journal(path.parent, SETTINGS, [], force=False).close()


# --- bundles


def bundle_members() -> dict[str, bytes]:
    from hashlib import sha256 as digest

    from ampnet_opt.runtime.build import Origin
    from ampnet_opt.runtime.bundle import FORMAT, GOLDEN, NAME, BundlePart, Contents

    members = {"README.txt": b"what to do\n", "int8.onnx": bytes(100), GOLDEN: _golden(), "calibration.json": _calibration()}
    origin = Origin(["a", "b"], "uint8", 5, True, DIGEST, DIGEST)
    hashes = {name: digest(data).hexdigest() for name, data in members.items()}
    contents = Contents("cpu", "cpu", "0.1.0", hashes, origin, [BundlePart("int8", {"unsigned": "int8.onnx"}, 0.01)])
    return {NAME: json.dumps({"format": FORMAT, **asdict(contents)}).encode(), **members}


def tar_of(members: dict[str, bytes], headers: dict[str, dict[str, Any]] | None = None) -> bytes:
    """A tar of `members`; headers: fields of TarInfo that are set to something else, by member."""
    parts = []
    for name, data in members.items():
        member = tarfile.TarInfo(name)
        member.size = len(data)
        for key, value in (headers or {}).get(name, {}).items():
            setattr(member, key, value)
        there = data[: member.size]  # no more than there is, whatever the header says: TarFile.addfile would refuse that
        parts += [member.tobuf(), there, bytes(-len(there) % tarfile.BLOCKSIZE)]
    return b"".join([*parts, bytes(2 * tarfile.BLOCKSIZE)])


def _golden() -> bytes:
    from ampnet_opt.runtime.golden import Golden

    pixels = np.zeros((2, 224, 224, 3), np.uint8)
    return Golden(pixels, np.ones((2, 5, 2), np.float32), np.ones((2, 2), np.float32)).to_bytes()


def _read_bundle(path: Path) -> None:
    from ampnet_opt.runtime.bundle import is_bundle, open_bundle

    if is_bundle(path):
        with open_bundle(path) as bundle:
            for name in bundle.contents.members:
                for _ in bundle.blocks(name):
                    pass


def _read_bundle_contents(path: Path) -> None:
    members = bundle_members()
    members["bundle.json"] = path.read_bytes()
    tar = path.with_name("bundle.tar")
    tar.write_bytes(tar_of(members))
    _read_bundle(tar)


def _read_golden(path: Path) -> None:
    from ampnet_opt.core.errors import AmpnetError
    from ampnet_opt.runtime.golden import Golden

    try:
        Golden.from_bytes(path.read_bytes())
    except ValueError as error:  # which a bundle's reader takes for damage
        raise AmpnetError(str(error)) from error


# --- checkpoints


def _state() -> dict[str, Any]:
    import torch

    return {"epoch": 3, "state_dict": {"module.conv.weight": torch.ones(2, 3), "module.conv.bias": torch.zeros(2)}}


def _saved(legacy: bool) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(_state(), stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def _safetensors() -> bytes:
    from safetensors.numpy import save

    from ampnet_opt.network.checkpoint import FORMAT

    config = {"num_classes": 2, "width": 0.125, "patch_radius": 5, "beta": 0.5}
    about = {"format": FORMAT, "classes": '["a", "b"]', "config": json.dumps(config), "trained": "true"}
    return save({"a.weight": np.ones((2, 3), np.float32), "a.bias": np.zeros(2, np.float32)}, about)


def _read_checkpoint(path: Path) -> None:
    from ampnet_opt.network.checkpoint import read_checkpoint

    read_checkpoint(path)


# --- tables and arrays


def _table() -> bytes:
    rows = [["file", "label", "split", *COLUMNS], *(["0.png", "fear", split, *POINTS] for split in ("train", "val"))]
    return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


def _table_pictures(folder: Path) -> None:
    Image.new("RGB", (224, 224), (90, 80, 70)).save(folder / "0.png")


def _read_table(path: Path) -> None:
    from ampnet_opt.core.errors import AmpnetError
    from ampnet_opt.datasets.face_table import read
    from ampnet_opt.faces.face import read_faces, read_landmarks

    for reader in (read_faces, partial(read_landmarks, pictures=[path.with_name("0.png")]), read):
        try:
            reader(path)
        except AmpnetError as error:
            refused = error
        else:
            refused = None
    if refused is not None:
        raise refused


def _fer2013() -> bytes:
    pixels = " ".join(["7"] * 48 * 48)
    return f"emotion,pixels,Usage\n0,{pixels},Training\n3,{pixels},PublicTest\n".encode()


def _read_fer2013(path: Path) -> None:
    from ampnet_opt.datasets.fer2013 import read

    read(path)


def _array(objects: bool) -> bytes:
    stream = io.BytesIO()
    value: Any = np.arange(20, dtype=np.float32).reshape(2, 5, 2)
    if objects:
        value = np.empty(2, object)
        value[:] = [["a.jpg", np.ones((5, 2))], ["b.jpg", [1.5] * 10]]
    np.save(stream, value, allow_pickle=objects)
    return stream.getvalue()


def _read_array(path: Path) -> None:
    from ampnet_opt.datasets.npy import load_npy

    load_npy(path, "landmarks")


def _picture(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)).save(stream, kind)
    return stream.getvalue()


def _read_picture(path: Path) -> None:
    from ampnet_opt.core.pictures import read_image

    image = read_image(path)
    assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8


TARGETS = {
    "engine": Target("engine.json", _engine, _read_engine, "json", _engine_files),
    "calibration": Target("calibration.json", _calibration, _read_calibration, "json"),
    "sensitivity": Target("sensitivity.json", _sensitivity, _read_sensitivity, "json"),
    "benchmark": Target("benchmark.json", lambda: _bench().to_json().encode(), _read_benchmark, "json"),
    "comparison": Target("compare.json", _comparison, _read_comparison, "json", _comparison_engine),
    "journal": Target("faces.partial.jsonl", _journal, _read_journal, "lines"),
    "bundle contents": Target("bundle.json", lambda: bundle_members()["bundle.json"], _read_bundle_contents, "json"),
    "bundle": Target("bundle.tar", lambda: tar_of(bundle_members()), _read_bundle, "tar"),
    "golden faces": Target("golden.npz", _golden, _read_golden),
    "safetensors": Target("a.safetensors", _safetensors, _read_checkpoint, "safetensors"),
    "pickle in a zip": Target("a.pth", lambda: _saved(legacy=False), _read_checkpoint, "zip"),
    "bare pickle": Target("a.pth", lambda: _saved(legacy=True), _read_checkpoint, "pickle"),
    "array": Target("land_marks.npy", lambda: _array(objects=False), _read_array),
    "array of objects": Target("land_marks.npy", lambda: _array(objects=True), _read_array, "pickle"),
    "faces": Target("faces.csv", _table, _read_table, "csv", _table_pictures),
    "fer2013": Target("fer2013.csv", _fer2013, _read_fer2013, "csv"),
    **{kind: Target(f"a.{kind.lower()}", partial(_picture, kind), _read_picture) for kind in ("PNG", "JPEG", "BMP", "WEBP")},
}
