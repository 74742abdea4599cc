"""Checkpoints as people save them: the network is found, or the message says what was found and what to do."""

from __future__ import annotations

import gzip
import logging
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.network.checkpoint import read_checkpoint
from ampnet_opt.network.pickles import StoredTensor, pickled
from ampnet_opt.network.wrapped import Network, UnwrapError, choose, tables_in

Content = Callable[[], Any]
WEIGHTS = {"conv1.weight": torch.ones(2, 2), "fc_5.weight": torch.ones(7, 4), "fc_3.weight": torch.ones(7, 2)}


def prefixed(prefix: str, value: float = 1.0) -> dict[str, torch.Tensor]:
    return {prefix + key: tensor * value for key, tensor in WEIGHTS.items()}


def chosen(path: Path, content: Any) -> tuple[Network, list[Network]]:
    torch.save(content, path)
    with pickled(path) as found:
        return choose(tables_in(found.content, StoredTensor))


def refusal(path: Path) -> str:
    with pytest.raises(AmpnetError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value) and len(str(caught.value).replace(str(path), "")) < 300
    return str(caught.value)


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "module.module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "net.backbone."],
)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {
            "model_state_dict": state,
            "optimizer_state_dict": {"state": {0: {"momentum_buffer": torch.ones(9)}}},
        },
        lambda state: {"net": state},
        lambda state: {"model": OrderedDict(state), "params": {"lr": 0.1}},
        lambda state: {"checkpoint": {"net_state": {"params": state}}},
        lambda state: [state, 5],
        lambda state: {"state_dict": state, "model": state},
    ],
)
def test_a_network_is_found_under_any_name_and_prefix(tmp_path: Path, prefix: str, wrap: Callable[[Any], Any]) -> None:
    network, averages = chosen(tmp_path / "x.pth", wrap(prefixed(prefix)))
    assert set(network.tensors) == set(WEIGHTS) and network.prefix == prefix and averages == []


@pytest.mark.parametrize("name", ["ema", "model_ema", "ema_state_dict", "swa_model", "averaged_model", "EMA"])
def test_the_trained_weights_are_taken_before_a_moving_average_of_them(tmp_path: Path, name: str) -> None:
    content = {name: prefixed("", 2), "model": prefixed("module.")}
    network, averages = chosen(tmp_path / "x.pth", content)
    assert network.path == ("model",) and [average.path for average in averages] == [(name,)]
    network, averages = chosen(tmp_path / "x.pth", {name: prefixed("module.", 2), "epoch": 1})
    assert network.path == (name,) and averages == []


def test_an_average_in_the_same_table_is_told_by_its_prefix(tmp_path: Path) -> None:
    network, averages = chosen(tmp_path / "x.pth", {"state_dict": {**prefixed("model."), **prefixed("ema_model.", 2)}})
    assert (network.prefix, [average.prefix for average in averages]) == ("model.", ["ema_model."])
    assert set(network.other) == set(prefixed("ema_model."))


def test_several_networks_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnwrapError, match=r"holds 2 networks \(student, teacher/module\.\*\): save the one you mean alone"):
        chosen(tmp_path / "x.pth", {"student": prefixed(""), "teacher": prefixed("module.", 2)})


def test_a_word_with_ema_in_it_is_no_average(tmp_path: Path) -> None:
    network, _ = chosen(tmp_path / "x.pth", {"schema": prefixed(""), "ema": prefixed("", 2)})
    assert network.path == ("schema",)


CONTENTS: dict[str, tuple[Content, str]] = {
    "resnet": (
        lambda: {f"layer{i}.weight": torch.ones(1) for i in range(60)},
        "it holds the tensors layer0.weight, layer1.weight, layer2.weight and 57 more, but neither of the heads",
    ),
    "whole": (lambda: torch.nn.Linear(3, 4), "(torch.nn.modules.linear.Linear), which only its own code can load"),
    "whole_inside": (
        lambda: {"model": torch.nn.Linear(3, 4), "optimizer": {"state": {"a": {"b": torch.ones(1)}}}},
        "save its weights alone, with torch.save(model.state_dict(), 'weights.pth')",
    ),
    "optimizer": (
        lambda: {"optimizer": {"state": {"0": {"momentum_buffer": torch.ones(2)}}}},
        "it holds the state of an optimizer, and no weights",
    ),
    "nothing": (lambda: {"epoch": 3}, "it holds no table of tensors"),
}


@pytest.mark.parametrize("name", ["resnet", "whole", "whole_inside", "optimizer", "nothing"])
def test_what_holds_no_network_is_named_for_what_it_holds(tmp_path: Path, name: str) -> None:
    make, words = CONTENTS[name]
    torch.save(make(), tmp_path / "x.pth")
    assert words in refusal(tmp_path / "x.pth")


OTHER_FILES: dict[str, tuple[bytes, str]] = {
    "page": (b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title>", "is a web page, not a PyTorch"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
    "gzip": (gzip.compress(b"x" * 100), "unpack it with gunzip"),
    "bzip2": (b"BZh91AY&SY" + bytes(99), "unpack it with bunzip2"),
    "xz": (b"\xfd7zXZ\0" + bytes(99), "unpack it with unxz"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file, as Keras and TensorFlow write them"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x05" + bytes(99), "is an ONNX model: engines are built from the PyTorch"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "is a picture (PNG)"),
}


@pytest.mark.parametrize("name", OTHER_FILES)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_files_are_named_with_what_to_do(tmp_path: Path, name: str, suffix: str) -> None:
    content, words = OTHER_FILES[name]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    assert words in refusal(path)


def test_archives_around_a_checkpoint_are_named(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "x.pth", "models/x.pth")
    assert "is a zip file that holds models/x.pth: unpack it" in refusal(tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.pth") as old, zipfile.ZipFile(tmp_path / "y.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    assert "packed again with compression" in refusal(tmp_path / "y.pth")
    (tmp_path / "z.pth").write_bytes((tmp_path / "x.pth").read_bytes()[:-700])
    assert "is cut off, its end is missing: copy or download it again" in refusal(tmp_path / "z.pth")


def test_the_authors_keys_are_read_from_safetensors_and_counters_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from test_checkpoint import assert_published, published

    state = published()
    counters = {f"layer1.{i}.total_ops": torch.zeros(1) for i in range(300)}
    views = {f"module.{key}": value for key, value in {**state, **counters}.items()}
    torch.save({"model": views, "ema": {key: value + 1 for key, value in list(views.items())[:5]}}, tmp_path / "x.pth")
    with caplog.at_level(logging.WARNING):
        checkpoint = read_checkpoint(tmp_path / "x.pth")
    assert_published(checkpoint.model, state)
    assert len([key for key in checkpoint.dropped if key.endswith("total_ops")]) == 300
    assert not [record for record in caplog.records if "not of AMP-Net" in record.getMessage()]


def test_safetensors_of_the_authors_keys_are_no_strangers(tmp_path: Path) -> None:
    safetensors.torch.save_file(prefixed("module."), tmp_path / "x.safetensors")
    assert "does not fit AMP-Net: missing: " in refusal_of_any_length(tmp_path / "x.safetensors")


def refusal_of_any_length(path: Path) -> str:
    with pytest.raises(AmpnetError) as caught:
        read_checkpoint(path)
    return caught.value.whole


def test_a_number_too_large_for_float32_is_infinite(tmp_path: Path) -> None:
    state = {
        **WEIGHTS,
        "fc_3.bias": torch.full((7,), 1e300, dtype=torch.float64),
        "fc_5.bias": torch.ones(7, dtype=torch.int32),
    }
    torch.save(state, tmp_path / "x.pth")
    message = refusal_of_any_length(tmp_path / "x.pth")
    assert "fc_3.bias holds NaN or infinity" in message and "fc_5.bias is int32, expected floating point" in message


def test_tensors_of_one_buffer_are_read_once(tmp_path: Path) -> None:
    whole = torch.arange(100_000, dtype=torch.float32)
    torch.save({f"a{i}": whole[i : i + 10] for i in range(200)} | {"t": whole.reshape(100, 1000).t()}, tmp_path / "x.pth")
    from ampnet_opt.network.pickles import Tensors

    with pickled(tmp_path / "x.pth") as found:
        (table,) = tables_in(found.content, StoredTensor)
        tensors = Tensors(found, table.tensors)
        assert tensors["a7"].tolist() == list(range(7, 17)) and torch.equal(tensors["t"], whole.reshape(100, 1000).t())
        assert tensors["a1"].untyped_storage().data_ptr() == tensors["t"].untyped_storage().data_ptr()
