"""Files of `torch.save`, honest and hostile: tensors come out, nothing runs."""

from __future__ import annotations

import argparse
import builtins
import collections
import datetime
import enum
import importlib
import io
import os
import pathlib
import pickle
import runpy
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.network.checkpoint import read_checkpoint
from ampnet_opt.network.pickles import LEGACY_MAGIC, LEGACY_PROTOCOL, StoredTensor, Tensors, pickled
from ampnet_opt.network.wrapped import tables_in

TENSOR = {"weight": torch.arange(6.0).reshape(2, 3)}
LAYOUTS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def save(path: Path, content: Any, zipped: bool = True, protocol: int = 2) -> Path:
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    return path


def read(path: Path) -> dict[str, torch.Tensor]:
    """The first table of tensors, `module.` taken off its keys; that of a state_dict when there is one."""
    with pickled(path) as content:
        tables = tables_in(content.content, StoredTensor)
        table = next((table for table in tables if table.path == ("state_dict",)), tables[0] if tables else None)
        if table is None:
            read_checkpoint(path)  # which says so
            raise AssertionError(path)
        tensors = dict(Tensors(content, table.tensors))
    return {key.removeprefix("module."): value for key, value in tensors.items()}


def refusal(path: Path) -> str:
    """The error's message, which must be one sentence that names the file."""
    with pytest.raises(AmpnetError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


# --- honest files


@st.composite
def tensor(draw: st.DrawFn) -> torch.Tensor:
    kinds = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool]
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    value = torch.randint(-5, 6, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    value = value.to(draw(st.sampled_from(kinds)))
    if value.ndim > 1 and draw(st.booleans()):
        value = value.transpose(0, -1)
    if value.ndim and value.shape[0] > 1 and draw(st.booleans()):
        value = value[1:]
    return value.unsqueeze(0).expand(3, *value.shape) if draw(st.booleans()) else value


@given(st.lists(tensor(), min_size=1, max_size=4), st.booleans(), st.sampled_from([2, 3, 4, 5]), st.booleans())
def test_tensors_are_those_that_torch_loads(values: list[torch.Tensor], zipped: bool, protocol: int, shared: bool) -> None:
    state = {f"module.t{i}": value for i, value in enumerate(values)}
    if shared:
        state["module.again"] = values[0]
        state["module.parameter"] = torch.nn.Parameter(values[0].float())
    path = Path(tempfile.gettempdir(), f"ampnet-pickles-{os.getpid()}.pth")
    try:
        save(path, {"state_dict": collections.OrderedDict(state)}, zipped, protocol)
        found = read(path)
        expected = torch.load(path, weights_only=False)["state_dict"]
    finally:
        path.unlink(missing_ok=True)
    assert [f"module.{key}" for key in found] == list(expected)
    for key, value in expected.items():
        mine = found[key.removeprefix("module.")]
        assert mine.dtype == value.dtype and torch.equal(mine, value)


class RecorderMeter:
    def __init__(self) -> None:
        self.epoch_losses = np.zeros((4, 2), np.float32) - 1
        self.epoch_accuracy = np.linspace(0, 255, 8)
        self.best = np.float64(89.25)


class History(list):
    pass


class Log(dict):
    pass


class Seen(set):
    pass


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self) -> None:
        self.a, self.b = 1, [2]


class Phase(enum.Enum):
    TRAIN = 1


class Linked:
    def __init__(self) -> None:
        self.me = self


def training_objects() -> dict[str, Any]:
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    log, keyed, deque = Log(loss=1.0), collections.defaultdict(list), collections.deque([1, 2], 5)
    log.note, keyed["x"] = "kept in the instance", [1]
    return {
        "epoch": 3,
        "arch": "AMP-Net",
        "best_acc": torch.tensor(89.25),
        "best": np.float64(89.25),
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 5).state_dict(),
        "whole": [optimizer, torch.nn.CrossEntropyLoss(), layer],
        "recorder": RecorderMeter(),
        "lists": [History([1, History()]), log, Seen([1, 2]), Slotted(), Phase.TRAIN, Linked()],
        "plain": [{1, 2}, frozenset([3]), b"\xff\x00bytes", bytearray(b"ab"), 1j, 2**80, None, slice(1, 2), range(3)],
        "library": [keyed, deque, collections.Counter("aab"), argparse.Namespace(lr=0.1), pathlib.Path("/a/b")],
        "times": [datetime.datetime(2022, 1, 1, tzinfo=datetime.timezone.utc), datetime.timedelta(1)],
        "arrays": [np.arange(3)[::-1], np.array(["a", "b"]), np.bool_(True), np.array([None, {}], object)],
        "random": [np.random.RandomState(1), np.random.default_rng(1), np.random.get_state()],
        "torch": [torch.float32, torch.device("cpu"), torch.Size([1, 2]), torch.ones(2, dtype=torch.complex64)],
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_training_objects_of_any_kind_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    for kind in (RecorderMeter, History, Log, Seen, Slotted, Phase, Linked):
        monkeypatch.setattr(kind, "__module__", "__main__")
        monkeypatch.setattr(sys.modules["__main__"], kind.__name__, kind, raising=False)
    path = save(tmp_path / "real.pth", {**training_objects(), "state_dict": TENSOR}, protocol=protocol)
    monkeypatch.undo()  # from here on nothing of it could be imported
    assert torch.equal(read(path)["weight"], TENSOR["weight"])
    assert list(read(path)) == ["weight"]


def test_training_objects_are_skipped_in_the_legacy_layout(tmp_path: Path) -> None:
    content = training_objects()
    content["torch"].pop()  # a complex tensor, whose place in this layout needs its size
    path = save(tmp_path / "real.pth", {**content, "state_dict": TENSOR}, zipped=False)
    assert torch.equal(read(path)["weight"], TENSOR["weight"])


def test_views_of_old_files_start_where_they_say(tmp_path: Path) -> None:
    class Old(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if isinstance(value, str) and value == "HERE":
                return ("storage", torch.FloatStorage, "7", "cpu", 6, ("8", 2, 3))
            return None

    class Rebuilt:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor, ("HERE", 1, (2,), (1,))

    raw = io.BytesIO()
    for value in (LEGACY_MAGIC, LEGACY_PROTOCOL, {"little_endian": True}):
        pickle.dump(value, raw, 2)
    Old(raw, 2).dump({"w": Rebuilt()})
    pickle.dump(["7"], raw, 2)
    raw.write((6).to_bytes(8, "little") + np.arange(6, dtype="<f4").tobytes())
    path = tmp_path / "old.pth"
    path.write_bytes(raw.getvalue())
    assert read(path)["w"].tolist() == [3, 4]


# --- hostile files


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


SCRIPT = "open({!r}, 'w').close()"
HOSTILE: dict[str, Callable[[str], Any]] = {
    "os.system": lambda canary: Call(os.system, f"touch {canary}"),
    "eval": lambda canary: Call(eval, SCRIPT.format(canary)),
    "exec": lambda canary: Call(exec, SCRIPT.format(canary)),
    "open": lambda canary: Call(open, canary, "w"),
    "Popen": lambda canary: Call(subprocess.Popen, ["touch", canary]),
    "import": lambda canary: Call(importlib.import_module, "this"),
    "runpy": lambda canary: Call(runpy.run_path, canary),
    "pickle.loads": lambda canary: Call(pickle.loads, pickle.dumps(Call(os.system, f"touch {canary}"))),
    "getattr": lambda canary: Call(getattr, 1, "real"),
    "map": lambda canary: Call(list, Call(map, eval, [SCRIPT.format(canary)])),
    "torch.load": lambda canary: Call(torch.load, canary),
    "torch.hub": lambda canary: Call(torch.hub.load, "a/b", "c"),
    "torch.jit": lambda canary: Call(torch.jit.load, canary),
    "torch storage": lambda canary: Call(torch.storage._load_from_bytes, b""),
    "torch.save": lambda canary: Call(torch.save, 1, canary),
    "numpy.load": lambda canary: Call(np.load, canary),
    "numpy.save": lambda canary: Call(np.savetxt, canary, [1]),
    "numpy.memmap": lambda canary: Call(np.memmap, canary, "uint8", "w+", 0, 5),
    "state": lambda canary: {"x": Call(Call, Call(eval, SCRIPT.format(canary)))},
}


@LAYOUTS
@pytest.mark.parametrize("kind", HOSTILE)
def test_code_is_refused_and_does_not_run(tmp_path: Path, kind: str, zipped: bool) -> None:
    canary = tmp_path / "canary"
    for protocol in (2, 4):
        content = {"state_dict": TENSOR, "extra": HOSTILE[kind](str(canary))}
        path = save(tmp_path / "evil.pth", content, zipped, protocol)
        assert "is refused: its pickle asks for" in refusal(path)
        assert not canary.exists()


def test_the_canary_would_show(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    torch.load(save(tmp_path / "evil.pth", HOSTILE["os.system"](str(canary))), weights_only=False)
    assert canary.exists()


def raw_zip(path: Path, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
    return path


@pytest.mark.parametrize(
    "program",
    [
        b"cposix\nsystem\n(VCANARY\ntR.",  # GLOBAL
        b"(cos\nsystem\nVCANARY\no.",  # OBJ
        b"(VCANARY\nios\nsystem\n.",  # INST
        b"\x80\x02c__builtin__\neval\nVCANARY\n\x85R.",  # Python 2's name
        b"\x80\x02ccommands\ngetoutput\nVCANARY\n\x85R.",  # a module of Python 2, now of subprocess
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x06CANARY\x85R.",  # STACK_GLOBAL
        b"\x80\x04\x8c\x08builtins\x8c\x0fobject.__init__\x93.",  # a dotted name of an allowed one
        b"\x80\x04\x8c\x08__main__\x8c\x09os.system\x93\x8c\x06CANARY\x85R.",
        b"\x80\x04\x8c\x05torch\x8c\x09os.system\x93\x8c\x06CANARY\x85R.",
        b"\x80\x04\x8c\x08torch.os\x8c\x06system\x93\x8c\x06CANARY\x85R.",
        b"\x80\x04\x8c\x0anumpy.core\x8c\x11multiarray.scalar\x93.",
        b"\x80\x04\x8c\x0etorch.nn.utils\x8c\x09load.Pool\x93.",
    ],
)
def test_every_way_to_name_code_is_refused(tmp_path: Path, program: bytes) -> None:
    canary = tmp_path / "c"
    command = f"touch {canary}".encode()
    program = program.replace(b"\x8c\x06CANARY", b"\x8c" + bytes([len(command)]) + command).replace(b"CANARY", command)
    assert "is refused: its pickle asks for" in refusal(raw_zip(tmp_path / "evil.pth", program))
    assert not canary.exists()


def test_a_foreign_callable_is_not_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "innocent.py").write_text(f"open({str(canary)!r}, 'w').close()\ndef run(*a): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    program = b"\x80\x02cinnocent\nrun\nVx\n\x85R}(Vstate\nV1\nub."  # call it, then set its state
    assert "holds a whole pickled object (innocent.run)" in refusal(raw_zip(tmp_path / "evil.pth", program))
    assert not canary.exists() and "innocent" not in sys.modules


@pytest.mark.parametrize("place", range(5))
def test_every_pickle_of_the_legacy_layout_is_guarded(tmp_path: Path, place: int) -> None:
    canary = tmp_path / "canary"
    parts: list[Any] = [LEGACY_MAGIC, LEGACY_PROTOCOL, {"little_endian": True}, {}, []]
    parts[place] = HOSTILE["os.system"](str(canary))
    path = tmp_path / "evil.pth"
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in parts))
    assert "system, which no checkpoint needs" in refusal(path)
    assert not canary.exists()


def test_the_classes_that_stand_in_cannot_be_altered(tmp_path: Path) -> None:
    for name in (
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch._utils\n_rebuild_parameter\n",
        b"ccollections\nOrderedDict\n",
    ):
        program = b"\x80\x02" + name + b"N}(V__new__\nV__class__\nu\x86b."  # BUILD with slot state: setattr on the class
        refusal(raw_zip(tmp_path / "evil.pth", program))
    assert torch.equal(read(save(tmp_path / "good.pth", TENSOR))["weight"], TENSOR["weight"])


# --- damaged and other files


@LAYOUTS
def test_a_file_cut_anywhere_is_an_error(tmp_path: Path, zipped: bool) -> None:
    whole = save(tmp_path / "whole.pth", {"state_dict": TENSOR}, zipped).read_bytes()
    path = tmp_path / "cut.pth"
    for length in range(1, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        refusal(path)


@given(data=st.data(), zipped=st.booleans())
def test_a_changed_byte_is_an_error_or_a_tensor(data: st.DataObject, zipped: bool) -> None:
    path = Path(tempfile.gettempdir(), f"ampnet-pickles-{os.getpid()}.pth")
    try:
        raw = bytearray(save(path, {"state_dict": TENSOR}, zipped).read_bytes())
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(raw)
        try:
            found = read(path)
        except AmpnetError as error:
            assert "\n" not in str(error)
        else:
            assert all(isinstance(value, torch.Tensor) for value in found.values())
    finally:
        path.unlink(missing_ok=True)


def test_a_flipped_bit_in_a_tensor_is_found(tmp_path: Path) -> None:
    path = save(tmp_path / "flipped.pth", TENSOR)
    raw = path.read_bytes()
    numbers = TENSOR["weight"].numpy().tobytes()
    assert raw.count(numbers) == 1
    path.write_bytes(raw.replace(numbers, numbers[:-1] + b"\x41"))
    assert "CRC" in refusal(path)


def test_a_tensor_larger_than_its_storage_is_an_error(tmp_path: Path) -> None:
    source, path = save(tmp_path / "source.pth", TENSOR), tmp_path / "large.pth"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data[:-4] if name.endswith("data/0") else data)
    assert "shorter than its tensor" in refusal(path)


def test_other_files_are_named_for_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    for text in (b"weights\n", b"\x89PNG\r\n\x1a\n", b"\x00" * 100, b"\x80", b"(" * 50, pickle.dumps({"weight": 1})):
        path.write_bytes(text)
        assert "not a PyTorch checkpoint" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "is a zip file, but not a PyTorch checkpoint" in refusal(path)
    torch.jit.trace(torch.nn.ReLU(), torch.ones(1)).save(str(path))
    assert "TorchScript" in refusal(path)
    for content in ([1], 3, torch.ones(2), "text"):
        assert "holds no table of tensors" in refusal(save(path, content))


def test_members_that_are_compressed_are_refused(tmp_path: Path) -> None:
    source, path = save(tmp_path / "source.pth", TENSOR), tmp_path / "squeezed.pth"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "packed again with compression" in refusal(path)


@LAYOUTS
def test_big_endian_files_are_refused(tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "byteorder", "big")
    path = save(tmp_path / "big.pth", TENSOR, zipped)
    monkeypatch.undo()
    assert "big-endian" in refusal(path)


def test_no_name_of_builtins_that_runs_code_is_let_through(tmp_path: Path) -> None:
    plain = {set, frozenset, list, dict, tuple, int, float, bool, complex, str, bytes, bytearray, object, slice, range}
    for name, value in vars(builtins).items():
        if not isinstance(value, type) or value not in plain:
            assert "is refused" in refusal(raw_zip(tmp_path / "b.pth", f"cbuiltins\n{name}\n.".encode()))
