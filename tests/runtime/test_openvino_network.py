"""Networks that are no engines in OpenVINO: compiled for the sizes that recur, whose answers are those of any size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino", reason="these are networks in OpenVINO")
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.runtime.onnx_interface import FlexibleGraph, with_free_size
from ampnet_opt.runtime.openvino.network import MOST_SIZES, Network
from ampnet_opt.shipped import CENTERFACE_INT8

SIZES = [(64, 96), (96, 64), (64, 64), (128, 64), (96, 96), (64, 128)]


@pytest.fixture(scope="module")
def graph() -> FlexibleGraph:
    return with_free_size(CENTERFACE_INT8.read_bytes(), "face detector")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AMPNET_OPT_CACHE", str(tmp_path))
    return tmp_path / "openvino"


@pytest.fixture
def network(graph: FlexibleGraph, cache: Path) -> Iterator[Network]:
    with closing(Network(graph, 1)) as opened:
        yield opened


def image(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * width)
    return rng.uniform(0, 255, (1, 3, height, width)).astype(np.float32)


def test_a_size_that_recurs_gets_the_answers_of_any_size(network: Network) -> None:
    for size in (*SIZES[:2], SIZES[0]):
        once, often = network.run(image(*size)), network.run(image(*size), recurring=True)
        assert list(once) == list(often)
        for one, other in zip(once.values(), often.values(), strict=True):
            np.testing.assert_allclose(one, other, atol=0.02 * np.abs(one).max())  # steps of INT8 may fall otherwise


def test_only_the_sizes_of_late_stay_compiled_and_come_back_from_the_cache(network: Network, cache: Path) -> None:
    first = [network.run(image(*size), recurring=True) for size in SIZES]
    assert len(network._requests) == MOST_SIZES < len(SIZES)
    kept = sorted(cache.iterdir())
    assert len(kept) == len(SIZES)
    for size, expected in zip(SIZES, first, strict=True):
        again = network.run(image(*size), recurring=True)
        assert all(np.array_equal(again[name], values) for name, values in expected.items())
    assert sorted(cache.iterdir()) == kept


def test_what_it_cannot_read_is_an_error_in_words(cache: Path) -> None:
    with closing(Network(FlexibleGraph(b"no graph", "image", [], "small network"), 1)) as unreadable:
        for recurring in (False, True):
            with pytest.raises(AmpnetError, match=r"OpenVINO .* cannot load the network"):
                unreadable.run(image(64, 64), recurring=recurring)


def test_images_that_it_does_not_take_leave_it_as_it_was(network: Network) -> None:
    for recurring in (False, True):
        before = network.run(image(64, 64), recurring=recurring)
        with pytest.raises(AmpnetError, match="OpenVINO"):
            network.run(np.zeros((1, 4, 64, 64), np.float32), recurring=recurring)
        after = network.run(image(64, 64), recurring=recurring)
        assert all(np.array_equal(after[name], values) for name, values in before.items())
