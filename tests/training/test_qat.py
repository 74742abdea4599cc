"""The fake-quantised network computes what its exported INT8 graph does, before and after training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import small
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from onnx import TensorProto, helper
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from ampnet_opt.calibration.histogram import collect
from ampnet_opt.calibration.table import read_table, shared_scales
from ampnet_opt.convert.bias_correction import bias_corrections
from ampnet_opt.convert.export import export, module_path, random_faces
from ampnet_opt.convert.placement import Placement, place
from ampnet_opt.convert.quantize import quantize, quantize_weight
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.faces.face import Face, fingerprint
from ampnet_opt.network.checkpoint import read_checkpoint, save_checkpoint, seeded
from ampnet_opt.network.model import AMPNet
from ampnet_opt.training.fake_quantised import (
    FakeQuantise,
    FoldedConvNorm,
    QuantisedLinear,
    add_to_biases,
    fake_quantise,
    fake_quantise_weight,
    insert_pairs,
)
from ampnet_opt.training.loop import Outputs, train
from ampnet_opt.training.qat import for_int8
from ampnet_opt.training.recipe import TrainingRecipe

pytestmark = pytest.mark.slow

CLASSES = small.CLASSES
POINTS = np.array([[80, 90], [140, 95], [110, 120], [85, 150], [135, 155]], np.float32)


@dataclass(frozen=True)
class Network:
    """A float network, its graph, and what INT8 makes of it."""

    model: AMPNet
    graph: onnx.ModelProto
    placement: Placement
    scales: Mapping[str, float]

    def faked(self) -> AMPNet:
        model = deepcopy(self.model)
        insert_pairs(model, self.graph, self.placement, self.scales)
        return model


def exported(model: AMPNet, folder: Path) -> onnx.ModelProto:
    save_checkpoint(folder / "net.safetensors", model, CLASSES)
    return export(read_checkpoint(folder / "net.safetensors"), "uint8")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Seeded, but for batch norms as training leaves them: a fold of fresh ones would change nothing."""
    model, generator = seeded(5, 0.125, len(CLASSES)).eval(), torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            with torch.no_grad():
                module.weight.uniform_(0.7, 1.4, generator=generator)
                module.bias.uniform_(-0.3, 0.3, generator=generator)
                module.running_mean.uniform_(-0.2, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
    graph = exported(model, tmp_path_factory.mktemp("float"))
    placement = place(graph)
    amax = {name: found.amax for name, found in collect(graph, list(placement.tensors), [small.faces()]).items()}
    return Network(model, graph, placement, shared_scales(amax, placement.groups()))


def tensors(faces: small.Faces) -> tuple[Tensor, Tensor]:
    """As the loop gives them: contiguous, as torch 2.13 has a backward pass that corrupts memory with channels last."""
    return torch.from_numpy(faces[0]).permute(0, 3, 1, 2).contiguous() / 255, torch.from_numpy(faces[1])


def logits(model: AMPNet, faces: small.Faces) -> np.ndarray:
    with torch.inference_mode():
        return model.eval()(*tensors(faces)).numpy()


def likeness(expected: np.ndarray, got: np.ndarray) -> float:
    """SQNR in dB of what depends on the face: logits of random weights are mostly the same for all."""
    return small.sqnr(expected - expected.mean(0), got - got.mean(0))


UNSEEN = random_faces(6, "uint8", seed=11)


def int8_logits(graph: onnx.ModelProto, placement: Placement, scales: Mapping[str, float], faces: small.Faces) -> np.ndarray:
    """Pair by pair as the graph is written: fused integer kernels round in other places."""
    (found,) = small.run(quantize(graph, placement, scales), faces, optimise=False)
    return found


def test_logits_are_those_of_the_exported_graph(network: Network) -> None:
    expected = int8_logits(network.graph, network.placement, network.scales, UNSEEN)
    assert likeness(expected, logits(network.faked(), UNSEEN)) > 35
    assert likeness(expected, logits(network.model, UNSEEN)) < 28  # the errors that the two have in common


def test_corrected_biases_are_those_of_the_exported_graph(network: Network) -> None:
    corrections = bias_corrections(network.graph, network.placement, network.scales, [small.faces()])
    corrected = quantize(network.graph, network.placement, network.scales, corrections)
    (expected,) = small.run(corrected, UNSEEN, optimise=False)
    model = network.faked()
    assert likeness(expected, logits(model, UNSEEN)) < 35
    add_to_biases(model, corrections)
    assert likeness(expected, logits(model, UNSEEN)) > 35


def test_every_layer_and_shortcut_has_its_pair(network: Network) -> None:
    modules = list(network.faked().modules())
    layers = [m for m in modules if isinstance(m, (FoldedConvNorm, QuantisedLinear)) and m.input is not None]
    assert len(layers) == len(network.placement.layers) > 90
    shortcuts = sum(isinstance(m, FakeQuantise) for m in modules) - len(layers)
    assert shortcuts == 7 + 13  # of the trunk; of blocks in the branches that keep their shape


def test_logits_follow_the_landmarks(network: Network) -> None:
    moved = (np.repeat(UNSEEN[0][:1], 6, 0), UNSEEN[1])
    expected = int8_logits(network.graph, network.placement, network.scales, moved)
    assert expected.std(0).min() > 1e-4
    assert likeness(expected, logits(network.faked(), moved)) > 30


@cache
def _pair() -> onnxruntime.InferenceSession:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    floats = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])]
    floats += [helper.make_tensor_value_info("scale", TensorProto.FLOAT, [])]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    zero = helper.make_tensor("zero", TensorProto.INT8, [], [0])
    graph = helper.make_graph(nodes, "pair", floats, [result], [zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float32, array_shapes(max_dims=1, max_side=30), elements=st.floats(-400, 400, width=32)),
    st.floats(2.0**-14, 300, width=16),
)
def test_a_pair_is_onnx_runtimes_with_the_gradient_of_clipping(values: np.ndarray, scale: float) -> None:
    x = torch.from_numpy(values).requires_grad_()
    y = fake_quantise(x, scale)
    (expected,) = _pair().run(None, {"x": values, "scale": np.array(scale, np.float32)})
    assert np.array_equal(y.detach().numpy(), expected)
    (y * torch.arange(1, len(values) + 1)).sum().backward()
    steps = values / np.float32(scale)
    inside = (steps >= -128) & (steps <= 127)
    assert x.grad is not None
    assert np.array_equal(x.grad.numpy(), np.where(inside, np.arange(1, len(values) + 1), 0))


def test_a_pair_passes_on_what_is_no_number() -> None:
    """A run that diverges has to be noticed."""
    assert torch.isnan(fake_quantise(torch.tensor([1.0, float("nan")]), 0.5)).tolist() == [False, True]


def test_weights_are_those_that_are_stored() -> None:
    weight = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    faked = fake_quantise_weight(weight)
    values, scale = quantize_weight(weight.detach().numpy())
    assert np.array_equal(faked.detach().numpy(), values * scale[:, None, None, None])
    faked.sum().backward()
    assert weight.grad is not None and torch.equal(weight.grad, torch.ones_like(weight))


@pytest.mark.parametrize(
    ("node", "path"),
    [
        ("/model/stem/conv/Conv", "stem.conv"),
        ("/model/trunk/trunk.1/trunk.1.0/shortcut/conv/Conv", "trunk.1.0.shortcut.conv"),
        ("/model/local.3/local.3.1/Add", "local.3.1"),
        ("/model/stages.0/layers.2/conv_norm/conv/Conv", "stages.0.layers.2.conv_norm.conv"),
        ("/model/local_fc/Gemm", "local_fc"),
    ],
)
def test_names_of_nodes_are_paths_of_modules(node: str, path: str) -> None:
    assert module_path(node) == path
    seeded(0, 0.125, 2).get_submodule(path)


def test_a_pair_without_a_place_is_refused(network: Network) -> None:
    placement = deepcopy(network.placement)
    pooled = next(node for node in network.graph.graph.node if node.op_type == "Sigmoid").input[0]
    placement.add(pooled)
    with pytest.raises(AmpnetError, match="no place to quantise"):
        insert_pairs(deepcopy(network.model), network.graph, placement, {**network.scales, pooled: 1.0})


def moved_by(model: AMPNet, teacher: Tensor) -> dict[str, Tensor]:
    """Gradients of the mean squared difference to the logits `teacher`."""
    model.zero_grad()
    (model(*tensors(small.faces())) - teacher).pow(2).mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def test_gradients_reach_all_that_they_reach_in_float(network: Network) -> None:
    teacher = torch.randn(4, len(CLASSES), generator=torch.Generator().manual_seed(0))
    whole, faked = moved_by(deepcopy(network.model).eval(), teacher), moved_by(network.faked().eval(), teacher)
    assert len(whole) > 400 and not whole.keys() - faked.keys()
    together = [torch.cat([gradients[name].flatten() for name in whole]) for gradients in (whole, faked)]
    assert torch.cosine_similarity(together[0], together[1], 0) > 0.9


def test_fine_tuning_lowers_the_error_of_the_exported_graph(network: Network, tmp_path: Path) -> None:
    faces = small.faces()
    # Ranges so small that much is clipped, as if calibrated on other faces: there is something to make up for.
    narrow = {name: scale / 4 for name, scale in network.scales.items()}
    model, teacher = deepcopy(network.model), torch.from_numpy(logits(network.model, faces))
    insert_pairs(model, network.graph, network.placement, narrow)
    statistics = {key: value.clone() for key, value in model.state_dict().items() if "running" in key}
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    for _ in range(6):
        optimizer.zero_grad()
        (model(*tensors(faces)) - teacher).pow(2).mean().backward()
        optimizer.step()
    with torch.no_grad():
        training = model(*tensors(faces)).numpy()
    assert np.array_equal(training, logits(model, faces))  # no norm looks at the batch
    assert len(statistics) > 200 and all(torch.equal(value, model.state_dict()[key]) for key, value in statistics.items())

    tuned = exported(model, tmp_path)
    assert place(tuned) == network.placement
    before, after = (int8_logits(graph, network.placement, narrow, faces) for graph in (network.graph, tuned))
    assert np.square(after - teacher.numpy()).mean() < 0.2 * np.square(before - teacher.numpy()).mean()
    assert likeness(int8_logits(tuned, network.placement, narrow, UNSEEN), logits(model, UNSEEN)) > 35


@contextmanager
def silent(name: str, total: int) -> Iterator[Callable[[float], None]]:
    yield lambda done: None


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> list[Face]:
    folder, rng = tmp_path_factory.mktemp("faces"), np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (224, 224, 3), np.uint8)).save(folder / f"{i}.png")
    return [Face(folder / f"{i}.png", POINTS, CLASSES[i % 3]) for i in range(6)]


class Killed(BaseException):
    pass


def learn(start: Path, faces: list[Face], output: Path, stop_at: int | None = None) -> dict[str, Tensor]:
    def report(epoch: int, done: int, metrics: dict[str, float]) -> None:
        if epoch == stop_at and 0 < done < 6:
            raise Killed

    outputs = Outputs(output)
    model = for_int8(read_checkpoint(start), faces, outputs.scales, silent, force=False)
    recipe = TrainingRecipe(epochs=2, batch=3, rate=1e-3, ema=0.5)
    basis = outputs.scales.read_text()
    train(model, CLASSES, faces, faces[:2], recipe, output=output, workers=0, report=report, basis=basis)
    return load_file(output)


def test_a_killed_run_goes_on_with_its_scales(network: Network, faces: list[Face], tmp_path: Path) -> None:
    start, output = tmp_path / "float.safetensors", tmp_path / "broken.safetensors"
    save_checkpoint(start, network.model, CLASSES)
    whole = learn(start, faces, tmp_path / "whole.safetensors")
    for epoch in (0, 1):
        with pytest.raises(Killed):
            learn(start, faces, output, stop_at=epoch)
    table = Outputs(output).scales
    found = read_table(table)
    assert found.scales.keys() == network.placement.tensors.keys()
    assert (found.method, found.faces, found.data_fingerprint) == ("entropy", 6, fingerprint(faces))

    written = table.read_text()
    table.write_text(written.replace('"method": "entropy"', '"method": "minmax"'))
    with pytest.raises(MisuseError, match="not of an interrupted run like this; pass --force"):
        learn(start, faces, output)
    table.write_text(written.replace("Relu", "Gelu"))
    with pytest.raises(MisuseError, match="not of an interrupted run like this; pass --force"):
        learn(start, faces, output)
    table.write_text(written)
    resumed = learn(start, faces, output)
    assert whole.keys() == resumed.keys() == load_file(start).keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert table.read_text() == (tmp_path / "whole.calibration.json").read_text()
    changed = [key for key, value in load_file(start).items() if not torch.equal(value.half(), whole[key])]
    assert len(changed) > 100 and not any("running" in key for key in changed)


def test_command(tmp_path: Path) -> None:
    from console_script import fails, succeeds

    from ampnet_opt import synthetic

    classes = ("happiness", "anger", "neutral")
    data, start, output = tmp_path / "faces", tmp_path / "float.safetensors", tmp_path / "new" / "int8.safetensors"
    synthetic.write(data, {"train": 1, "val": 1}, classes, seed=9)
    save_checkpoint(start, seeded(0, 0.125, 3), classes)
    fine_tune = ("train", "--data", data, "--qat", start)
    fails(2, "does not exist", "train", "--data", data, "--qat", tmp_path / "no.pth", "-o", output)
    fails(2, "leave out --width", *fine_tune, "-o", output, "--width", 0.25)
    fails(2, "leave out --from and --bf16", *fine_tune, "-o", output, "--from", start, "--bf16")
    fails(2, "which is read", *fine_tune, "-o", start, "--force")
    fails(2, "leave out --classes", *fine_tune, "-o", output, "--classes", "contempt,joy,awe")
    assert not output.parent.exists()
    result = succeeds(*fine_tune, "-o", output, "--epochs", 1)
    assert "epoch 1 of 1, on 3 validation faces in INT8" in result.stdout and "build --int8 --scales" in result.stdout
    assert {file.name for file in output.parent.iterdir()} == {
        "int8.calibration.json",
        "int8.csv",
        "int8.png",
        "int8.safetensors",
    }
    assert read_checkpoint(output).classes == classes
    assert read_table(Outputs(output).scales).corrections == {}  # those of calibration are of other weights
