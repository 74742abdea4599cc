from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import DATA, HEADS, published_weights

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.network.checkpoint import FORMAT, init_checkpoint, read_checkpoint, save_checkpoint
from ampnet_opt.network.model import AMPNet
from ampnet_opt.network.published_keys import published_key

KEYS = json.loads((DATA / "checkpoint_keys.json").read_text())


def published(classes: int = 7) -> dict[str, torch.Tensor]:
    """Every tensor of the authors' layout at its full shape, but one number each, so that the file is small."""
    state = {}
    for key, shape in KEYS.items():
        shape = [classes, *shape[1:]] if key.rpartition(".")[0] in HEADS else shape
        state[key] = torch.tensor(zlib.crc32(key.encode()) % 997 / 997).expand(shape)
    return state


def save(path: Path, state: dict[str, torch.Tensor], prefix: str = "module.", **others: Any) -> Path:
    torch.save({"epoch": 3, "state_dict": {prefix + key: value for key, value in state.items()}, **others}, path)
    return path


def failure(path: Path, kind: type[AmpnetError] = AmpnetError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        read_checkpoint(path, **options)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return caught.value.whole


def assert_published(model: AMPNet, state: dict[str, torch.Tensor]) -> None:
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert value.dtype == torch.float32 and torch.equal(value, state[published_key(key)].float()), key


# --- the authors' layout


@pytest.mark.parametrize("layout", ["wrapped", "bare", "prefixed", "legacy", "half"])
def test_each_form_of_the_authors_file_gives_the_same_network(tmp_path: Path, layout: str) -> None:
    state, path = published(), tmp_path / "ampnet.pth"
    if layout == "half":
        state = {key: value.half() for key, value in state.items()}
    if layout in ("wrapped", "half"):
        save(path, state)
    elif layout == "bare":  # and without counters, as from before PyTorch 0.4.1
        torch.save({key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}, path)
    elif layout == "prefixed":
        torch.save({f"module.{key}": value for key, value in state.items()}, path)
    else:
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=False)
    before = torch.random.get_rng_state()
    checkpoint = read_checkpoint(path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert_published(checkpoint.model, state)
    assert checkpoint.classes == PRESETS["rafdb"] and checkpoint.trained
    assert not any(module.training for module in checkpoint.model.modules())
    kept = {key for key in KEYS if layout != "bare" or not key.endswith("num_batches_tracked")}
    assert set(checkpoint.dropped) == kept - {published_key(key) for key in checkpoint.model.state_dict()}


@pytest.mark.slow
def test_eight_classes_are_found_in_the_file(tmp_path: Path) -> None:
    weights = {key: torch.from_numpy(value) for key, value in published_weights(8).items() if key.startswith("fc_")}
    path = save(tmp_path / "eight.pth", {**published(8), **weights})
    checkpoint = read_checkpoint(path, classes=PRESETS["affectnet8"])
    assert checkpoint.classes == PRESETS["affectnet8"]
    assert torch.equal(checkpoint.model.patch_head.weight, weights["fc_5.weight"])
    assert "has 8 outputs and names no classes: name them in order with --classes" in failure(path, MisuseError)
    message = failure(path, MisuseError, classes=PRESETS["rafdb"])
    assert "8 classes" in message and "7 were named" in message


def test_a_file_without_names_says_once_what_is_assumed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save(tmp_path / "ampnet.pth", published())
    for _ in range(2):
        checkpoint = read_checkpoint(path)
    order = "surprise, fear, disgust, happiness, sadness, anger, neutral"
    sentence = f"{path} names no classes: RAF-DB's order is assumed ({order}); --classes names another"
    assert checkpoint.assumed == sentence
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [sentence]
    caplog.clear()
    named = read_checkpoint(path, PRESETS["fer2013"])
    assert named.classes == PRESETS["fer2013"] and named.assumed == ""
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


def test_patch_radius_is_the_published_one_unless_given(tmp_path: Path) -> None:
    path = save(tmp_path / "ampnet.pth", published())
    assert read_checkpoint(path).model.config.patch_radius == 5
    assert read_checkpoint(path, patch_radius=14).model.config.patch_radius == 14
    for radius in (0, 15):
        assert "patch_radius must be 1 to 14" in failure(path, MisuseError, patch_radius=radius)


def test_unknown_keys_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save(tmp_path / "extra.pth", {**published(), "ema.decay": torch.ones(1)})
    with caplog.at_level(logging.INFO):
        assert "ema.decay" in read_checkpoint(path, PRESETS["rafdb"]).dropped
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and "ema.decay" in warnings[0] and "fc_4" not in warnings[0]


def test_every_missing_misshapen_or_broken_key_is_named(tmp_path: Path) -> None:
    state = published()
    missing = ["fc_1.bias", "fc_5.weight", "layer3_1_1.0.cbam.SpatialGate.spatial.bn.running_var"]
    for key in missing:
        del state[key]
    state["fc_2.weight"] = state["fc_2.weight"].t()
    state["conv1.weight"] = torch.full(state["conv1.weight"].shape, float("nan"))
    state["fc_3.bias"] = torch.tensor([1.0, 2, 3, 4, 5, 6, float("inf")])
    message = failure(save(tmp_path / "broken.pth", state))
    named = [*missing, "fc_2.weight is [", "conv1.weight holds NaN", "fc_3.bias holds NaN or infinity"]
    assert [part for part in named if part not in message] == []
    assert "fc_2.bias" not in message and "fc_4" not in message


def test_heads_that_disagree_are_misshapen(tmp_path: Path) -> None:
    state = {**published(), **{k: v for k, v in published(8).items() if k.startswith("fc_3")}}
    message = failure(save(tmp_path / "mixed.pth", state))
    assert "fc_3.weight is [8, 512], expected [7, 512]" in message and "fc_3.bias is [8], expected [7]" in message


def test_other_networks_are_no_ampnet(tmp_path: Path) -> None:
    for state in (torch.nn.Linear(3, 2).state_dict(), {}, {"fc_5.weight": torch.ones(7)}):
        assert "is not an AMP-Net checkpoint" in failure(save(tmp_path / "other.pth", dict(state)))
    one = {**published(), "fc_5.weight": torch.ones(1, 1024)}
    assert "num_classes must be at least 2" in failure(save(tmp_path / "one.pth", one), MisuseError)


def test_a_full_file_agrees_with_torch(published_file: Path) -> None:
    expected = torch.load(published_file, weights_only=True, mmap=True)["state_dict"]
    checkpoint = read_checkpoint(published_file)
    for key in ("stem.conv.weight", "patch_head.weight", "stages.2.join.conv.weight", "local.3.3.second.norm.running_var"):
        assert torch.equal(checkpoint.model.state_dict()[key], expected[f"module.{published_key(key)}"])


# --- our own files


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.safetensors"
    init_checkpoint(path, seed=3, width=0.05, classes=PRESETS["ferplus"])
    return path


@pytest.mark.slow
@settings(max_examples=4, deadline=None)
@given(
    width=st.floats(0.01, 0.09),
    classes=st.lists(st.text(min_size=1, max_size=9), min_size=2, max_size=9, unique=True),
    radius=st.integers(1, 14),
    beta=st.floats(0, 1),
    trained=st.booleans(),
)
def test_what_is_saved_comes_back(width: float, classes: list[str], radius: int, beta: float, trained: bool) -> None:
    model = AMPNet(len(classes), width, radius, beta)
    path = Path(tempfile.gettempdir(), f"ampnet-own-{os.getpid()}.safetensors")
    try:
        save_checkpoint(path, model, classes, trained)
        back = read_checkpoint(path)
    finally:
        path.unlink(missing_ok=True)
    assert (back.classes, back.trained, back.model.config) == (tuple(classes), trained, model.config)
    assert back.dropped == () and not back.model.training
    assert all(torch.equal(value, back.model.state_dict()[key]) for key, value in model.state_dict().items())


def test_the_suffix_does_not_matter(own: Path, tmp_path: Path) -> None:
    renamed = own.rename(tmp_path / "own.pth")
    assert read_checkpoint(renamed).classes == PRESETS["ferplus"]


def test_a_loaded_network_can_be_trained_further(own: Path) -> None:
    model = read_checkpoint(own).model.train()
    model(torch.rand(2, 3, 224, 224), torch.rand(2, 5, 2) * 224).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_classes_never_replace_the_stored_ones(own: Path) -> None:
    for others in (PRESETS["affectnet8"], PRESETS["rafdb"], tuple("abcdefgh")):
        message = failure(own, MisuseError, classes=others)
        assert f"names its classes: {', '.join(PRESETS['ferplus'])}; leave out --classes" in message
    same = [{"happiness": "Happy", "fear": "afraid"}.get(name, name) for name in PRESETS["ferplus"]]
    assert read_checkpoint(own, classes=same).classes == PRESETS["ferplus"]
    assert read_checkpoint(own).assumed == ""


def test_the_stored_patch_radius_stands(own: Path) -> None:
    assert read_checkpoint(own, patch_radius=5).model.config.patch_radius == 5
    assert "made with patch radius 5; it cannot be 7" in failure(own, MisuseError, patch_radius=7)


def rewritten(own: Path, metadata: dict[str, str] | None, **tensors: torch.Tensor | None) -> Path:
    """The file again, with this metadata over its own (None: none at all) and these tensors (None: without)."""
    with safetensors.safe_open(own, "pt") as stream:
        merged = None if metadata is None else {**stream.metadata(), **metadata}
        state = {**{key: stream.get_tensor(key) for key in stream.keys()}, **tensors}  # noqa: SIM118 (not a dict)
    path = own.with_name("rewritten.safetensors")
    safetensors.torch.save_file({k: v for k, v in state.items() if v is not None}, path, merged)
    return path


def test_other_safetensors_files_are_refused(own: Path) -> None:
    for metadata in (None, {"format": "pt"}):
        assert "the keys of ampnet-opt's own network without its configuration" in failure(rewritten(own, metadata))
    assert "written by another version of ampnet-opt" in failure(rewritten(own, {"format": f"{FORMAT}0"}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("config", "{"),
        ("config", "[]"),
        ("config", "null"),
        ("config", '{"num_classes": 8}'),
        ("config", '{"num_classes": 8, "width": 0.05, "patch_radius": 5, "beta": 0.5, "more": 1}'),
        ("config", '{"num_classes": 8.0, "width": 0.05, "patch_radius": 5, "beta": 0.5}'),
        ("config", '{"num_classes": 8, "width": "0.05", "patch_radius": 5, "beta": 0.5}'),
        ("config", '{"num_classes": 8, "width": NaN, "patch_radius": 5, "beta": 0.5}'),
        ("config", '{"num_classes": 8, "width": 0.05, "patch_radius": 5.5, "beta": 0.5}'),
        ("config", '{"num_classes": 8, "width": 0.05, "patch_radius": 15, "beta": 0.5}'),
        ("config", '{"num_classes": 1000000000000, "width": 0.05, "patch_radius": 5, "beta": 0.5}'),
        ("classes", '"abcdefgh"'),
        ("classes", "[1, 2, 3, 4, 5, 6, 7, 8]"),
        ("classes", '["a", "b"]'),
        ("trained", "1"),
        ("trained", ""),
    ],
)
def test_damaged_metadata_is_an_error(own: Path, key: str, value: str) -> None:
    assert "damaged metadata" in failure(rewritten(own, {key: value}))


def test_metadata_and_weights_that_disagree_are_an_error(own: Path) -> None:
    config = json.dumps({"num_classes": 8, "width": 0.5, "patch_radius": 5, "beta": 0.5})
    assert "stem.conv.weight is [8, 3, 7, 7], expected [32, 3, 7, 7]" in failure(rewritten(own, {"config": config}))
    assert "missing: patch_head.bias" in failure(rewritten(own, {}, **{"patch_head.bias": None}))
    nan = torch.full((8,), float("nan"))
    assert "global_head.bias holds NaN" in failure(rewritten(own, {}, **{"global_head.bias": nan}))
    assert read_checkpoint(rewritten(own, {}, extra=torch.ones(1))).dropped == ("extra",)


# --- files that are none


def test_files_that_are_none(tmp_path: Path, own: Path) -> None:
    assert "does not exist" in failure(tmp_path / "absent.pth", MisuseError)
    assert "is a directory" in failure(tmp_path, MisuseError)
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(b"")
        assert "is empty" in failure(path)
        for content in (b"some text\n", b"{}", own.read_bytes()[:-1], own.read_bytes()[:100]):
            path.write_bytes(content)
            assert str(path) in failure(path)
    cut = save(tmp_path / "cut.pth", published())
    cut.write_bytes(cut.read_bytes()[:-100])
    assert "is cut off, its end is missing: copy or download it again" in failure(cut)


# --- seeded networks


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path).model.state_dict()


def test_seeds_make_networks_and_leave_no_trace(tmp_path: Path) -> None:
    names = PRESETS["rafdb"]
    before = torch.random.get_rng_state()
    a, b, c = (tmp_path / f"{name}.safetensors" for name in "abc")
    made = init_checkpoint(a, 7, 0.05, names)
    torch.rand(5)
    init_checkpoint(b, 7, 0.05, names)
    init_checkpoint(c, 8, 0.05, names)
    torch.random.set_rng_state(before)
    init_checkpoint(c, 8, 0.05, names)
    assert torch.equal(torch.random.get_rng_state(), before)
    first, second, other = weights(a), weights(b), weights(c)
    assert all(
        torch.equal(value, second[key]) and torch.equal(value, first[key]) for key, value in made.state_dict().items()
    )
    assert not torch.equal(first["stem.conv.weight"], other["stem.conv.weight"])
    assert not made.training and read_checkpoint(a).trained is False


def test_what_no_network_can_be_made_of(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    for seed, width, classes in [
        (1, 0, "ab"),
        (1, -1, "ab"),
        (1, 5, "ab"),
        (1, float("nan"), "ab"),
        (1, 1, "a"),
        (2**64, 1, "ab"),
    ]:
        with pytest.raises(MisuseError, match="no network can be made of"):
            init_checkpoint(path, seed, width, list(classes))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_cannot_be_written_where_a_directory_is(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="is a directory"):
        init_checkpoint(tmp_path, 1, 0.05, ["a", "b"])


def test_a_checkpoint_is_as_readable_as_any_file(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        init_checkpoint(tmp_path / "own.safetensors", 1, 0.125, ["a", "b"])
    finally:
        os.umask(mask)
    assert (tmp_path / "own.safetensors").stat().st_mode & 0o777 == 0o640


def test_the_fingerprint_is_of_the_file(own: Path) -> None:
    checkpoint = read_checkpoint(own)
    before = checkpoint.sha256
    assert before == read_checkpoint(own).sha256 == hashlib.sha256(own.read_bytes()).hexdigest()
    changed = rewritten(own, {}, **{"patch_head.bias": torch.zeros(8)})
    assert read_checkpoint(changed).sha256 != before


WRITE = """
import sys
import torch
from ampnet_opt.network.checkpoint import init_checkpoint
from ampnet_opt.network.tensors import write_tensors
init_checkpoint(sys.argv[1], seed=3, width=0.125, classes=["dark", "br\u00fcght", "'\\""])
write_tensors(sys.argv[2], {"one": torch.arange(5)}, {f"key {i}": "\u00fc\\u0001\\n/\\x7f" * i for i in range(20)})
"""


def test_equal_checkpoints_have_equal_bytes(tmp_path: Path) -> None:
    """Their SHA-256 says whether engines and scales are of one checkpoint."""
    written = []
    for seed in ("0", "1", "2", "random"):
        files = [tmp_path / f"{seed}.{i}.safetensors" for i in range(2)]
        subprocess.run([sys.executable, "-c", WRITE, *files], check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        written.append([file.read_bytes() for file in files])
    assert all(one == written[0] for one in written[1:])
    with safetensors.safe_open(files[1], "pt") as stream:
        assert stream.metadata() == {f"key {i}": "\u00fc\u0001\n/\x7f" * i for i in range(20)}
        assert stream.get_tensor("one").tolist() == [0, 1, 2, 3, 4]
    assert read_checkpoint(files[0]).classes == ("dark", "br\u00fcght", "'\"")
