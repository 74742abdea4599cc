"""Parts of the network recomputed alone, effects, and the analysis of every unit."""

from __future__ import annotations

import json
import math
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import faces, float_graph, placement, run, scales

from ampnet_opt.calibration.table import CalibrationTable
from ampnet_opt.convert.bias_correction import bias_corrections
from ampnet_opt.convert.placement import Placement, place
from ampnet_opt.convert.quantize import quantize
from ampnet_opt.convert.source import Int8
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.sensitivity.analysis import FORMAT, Sensitivity, analyse, name_of, read_sensitivity, units
from ampnet_opt.sensitivity.effect import effect, kl_divergence
from ampnet_opt.sensitivity.variants import Network, seams_of, split

pytestmark = pytest.mark.slow

LABELS = np.array([0, 1, 2, 0])


@cache
def int8() -> Int8:
    table = CalibrationTable("minmax", 4, "data", "graph", dict(scales()))
    return Int8(table.with_corrections(bias_corrections(float_graph(), placement(), scales(), [faces()])))


def in_two_batches() -> list[tuple[np.ndarray, np.ndarray]]:
    images, landmarks = faces()
    return [(images[:3], landmarks[:3]), (images[3:], landmarks[3:])]


def whole(variant: Placement) -> np.ndarray:
    """Logits of a variant whose graph runs in one piece."""
    if not variant.layers:
        return run(float_graph(), faces())[0]
    return run(quantize(float_graph(), variant, scales(), int8().corrections), faces())[0]


def test_modules_are_named_as_in_the_checkpoint() -> None:
    assert name_of("/model/stem/conv/Conv") == "stem"
    assert name_of("/model/trunk/trunk.0/trunk.0.1/first/conv/Conv") == "trunk.0.1.first"
    assert name_of("/model/local.2/local.2.0/shortcut/conv/Conv") == "local.2.0.shortcut"
    assert name_of("/model/stages.0/layers.1/conv_norm/conv/Conv") == "stages.0.layers.1"
    assert name_of("/model/local_fc/Gemm") == "local_fc"
    assert name_of("/trunk/trunk.0/trunk.0.1/first/conv/Conv") == "trunk.0.1.first"  # of a graph for float images


def test_units_are_all_layers_once() -> None:
    layers = placement().layers
    single, blocks = units(layers, "layer"), units(layers, "block")
    assert [unit.layers for unit in single] == [(name,) for name in layers]
    assert len({unit.name for unit in single}) == len(layers) == 95
    assert sorted(name for unit in blocks for name in unit.layers) == sorted(layers)
    # The stem, 7 blocks of the trunk, 4 local branches of 4, 5 attention branches of 2, 3 stages, 2 products.
    assert len(blocks) == 1 + 7 + 16 + 10 + 3 + 2


def test_parts_make_up_the_network() -> None:
    parts = split(float_graph())
    nodes = {node.name for part in parts for node in part.graph.graph.node}
    products = [node.name for node in float_graph().graph.node if node.op_type in {"Conv", "Gemm"}]
    counted = [node.name for part in parts for node in part.graph.graph.node if node.op_type in {"Conv", "Gemm"}]
    assert sorted(counted) == sorted(products)  # each in one part
    assert nodes == {node.name for node in float_graph().graph.node}
    # The map, 9 patches, 9 branches' means, the global mean, and the logits.
    assert len(seams_of(float_graph().graph)) == 1 + 9 + 9 + 1
    assert len(parts) == 21


@pytest.mark.parametrize("kept", [lambda name: False, lambda name: "trunk" in name, lambda name: "local.1" not in name])
def test_a_variant_in_parts_is_the_variant_in_one_piece(kept: object) -> None:
    variant = place(float_graph(), [name for name in placement().layers if kept(name)])  # type: ignore[operator]
    expected = whole(variant)
    for base in (Placement(), placement()):
        network = Network(float_graph(), int8(), base, in_two_batches())
        np.testing.assert_allclose(network.logits, whole(base), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(network.run(variant), expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(network.run(base), network.logits)


logits = st.lists(st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3), min_size=2, max_size=2).map(
    lambda rows: np.array(rows, np.float32)
)


@given(logits, logits)
def test_divergence_is_that_of_the_probabilities(first: np.ndarray, second: np.ndarray) -> None:
    p, q = (np.exp(np.float64(x)) / np.exp(np.float64(x)).sum(1, keepdims=True) for x in (second, first))
    assert math.isclose(kl_divergence(first, second), (p * np.log(p / q)).sum(1).mean(), rel_tol=1e-6, abs_tol=1e-9)
    assert kl_divergence(first, second) >= -1e-12
    assert kl_divergence(first + 3, first) == pytest.approx(0, abs=1e-9)


def test_effect_counts_agreement_and_hits() -> None:
    reference = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]
    changed = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]]
    found = effect(changed, reference, np.array([0, 2, 1, 2]))
    assert (found.agreement, found.top1) == (0.75, 0.75)


def analysed(state: Path, mode: str = "only", labels: np.ndarray = LABELS, **options: object) -> Sensitivity:
    return analyse(
        float_graph(),
        int8(),
        checkpoint_sha256="checkpoint",
        batches=in_two_batches(),
        labels=labels,
        kind="block",
        mode=mode,
        state=state,
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Sensitivity:
    return analysed(tmp_path_factory.mktemp("analysis") / "state")


def test_every_unit_is_measured_and_ranked(found: Sensitivity) -> None:
    assert len(found.rows) == 39
    divergences = [row.effect.kl for row in found.rows]
    assert divergences == sorted(divergences, reverse=True)
    worst = found.rows[0]
    alone = place(float_graph(), set(placement().layers) - set(worst.layers))
    reference = run(float_graph(), faces())[0]
    assert worst.effect.kl == pytest.approx(kl_divergence(whole(alone), reference), rel=0.05)
    assert worst.tensors == tuple(alone.tensors)
    assert found.int8.kl > worst.effect.kl


def test_sparing_a_unit_leaves_the_rest_in_int8(tmp_path: Path) -> None:
    found = analysed(tmp_path / "state", "all-but")
    divergences = [row.effect.kl for row in found.rows]
    assert divergences == sorted(divergences)
    best = found.rows[0]
    reference = run(float_graph(), faces())[0]
    spared = whole(place(float_graph(), best.layers))
    assert best.effect.kl == pytest.approx(kl_divergence(spared, reference), rel=0.05)


def test_a_stopped_analysis_goes_on(tmp_path: Path, found: Sensitivity) -> None:
    state, done = tmp_path / "state", []

    def stop(count: int, total: int) -> None:
        done.append(count)
        if count == 30:
            raise KeyboardInterrupt

    state.write_text("of another run, or damaged")
    with pytest.raises(KeyboardInterrupt):
        analysed(state, progress=stop)
    kept = json.loads(state.read_text())["rows"]
    assert len(kept) == 30
    kept[0]["kl"] = 77.0  # a mark, to see that it is not measured again
    state.write_text(json.dumps({**json.loads(state.read_text()), "rows": kept}))
    shutil.copy(state, tmp_path / "copy")
    other = analysed(tmp_path / "copy", labels=LABELS[::-1].copy())  # top-1 is another
    assert all(row.effect.kl != 77.0 for row in other.rows)
    resumed = analysed(state)
    assert resumed.rows[0].effect.kl == 77.0
    assert resumed.rows[0].name == kept[0]["name"]
    assert analysed(state).rows == resumed.rows  # if the result cannot be written, nothing is lost
    names = {row.name: row.effect for row in found.rows}
    assert all(names[row.name] == row.effect for row in resumed.rows[1:])


def test_an_analysis_is_a_file(tmp_path: Path, found: Sensitivity) -> None:
    path = tmp_path / "sensitivity.json"
    found.write(path)
    assert "Infinity" not in path.read_text()
    assert read_sensitivity(path) == found


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": "other"}', json.dumps({"format": FORMAT, "rows": [{}]})])
def test_what_is_no_analysis_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "sensitivity.json"
    path.write_text(content)
    with pytest.raises(AmpnetError, match=r"sensitivity analysis"):
        read_sensitivity(path)
    with pytest.raises(MisuseError, match="does not exist"):
        read_sensitivity(tmp_path / "missing.json")
